import { assertEquals } from "@std/assert";
import type { ObjectKey, ObjectKeyFields } from "../../keys/object_key.ts";
import { sampleBytes, sampleKey } from "./samples.ts";
import type { SubjectCase } from "./subject.ts";

/** Model names that a careless encoding would mix up, or take for a path. */
const HOSTILE_MODELS = [
  "a/b",
  "a-SEP-b",
  "a%2Fb",
  "a%2fb",
  "a%252Fb",
  "a\\b",
  "a b",
  "a_b",
  "a",
  "a.",
  ".a",
  ".",
  "..",
  "../a",
  "/a",
  "/etc/passwd",
  "a:b",
  "a*?b",
  "a'\"b",
  "a\u00e9",
  "ae\u0301",
  "模型/🤖",
  "x".repeat(255),
  "x".repeat(256),
  `${"x".repeat(255)}y`,
  "/".repeat(256),
  "é".repeat(128),
];

const HOSTILE_SALTS = [
  "",
  ".",
  "..",
  "a",
  "a%",
  "a@",
  "a%40",
  "a%2540",
  "@a",
  "a/b",
  "a%2Fb",
  "../a",
  "a\\b",
  "a.data",
  "0",
  " ",
  "e\u0301",
  "\u00e9",
  "🤖",
  "s".repeat(128),
  "語".repeat(128),
];

/** Keys that differ from `sampleKey(0)`, and from one another, in one field. */
function neighbours(fields: Partial<ObjectKeyFields>): ObjectKey[] {
  const near = [
    { kvRank: 1 },
    { kvRank: 0x10 },
    { kvRank: 0x01000000 },
    { objectGroup: 1 },
    { objectGroup: 0x10 },
    { cacheSalt: "tenant" },
    { cacheSalt: "tenant1" },
    { model: "another/model" },
    { model: "another/model1" },
  ];
  const key = sampleKey(0, fields);
  const flipped = key.chunkHash.map((byte, i) => i === 31 ? byte ^ 1 : byte);
  return [
    key,
    sampleKey(1, fields),
    key.withChunkHash(flipped),
    ...near.map((other) => sampleKey(0, { ...fields, ...other })),
  ];
}

/** Each key alone, among those that resemble it: nothing answers for another. */
function neverMixesUp(what: string, makeKeys: () => ObjectKey[]): SubjectCase {
  return {
    name: `${what} never answer for one another`,
    async check(subject) {
      const given = makeKeys().map((key, n) => ({ key, bytes: sampleBytes(n, 100) }));
      const keys = given.map(({ key }) => key);
      for (const [n, each] of given.entries()) {
        const held = "1".repeat(n) + "0".repeat(keys.length - n);
        assertEquals(await subject.lookup(keys), held);
        assertEquals(await subject.load(each), null, `bytes under ${each.key.id}`);
        await subject.store([each]);
      }
      await subject.assertHeld(given);
      assertEquals(subject.errors, []);
    },
  };
}

/** One key's object is never another's. */
export const isolationCases: readonly SubjectCase[] = [
  neverMixesUp("keys that differ in one field", () => neighbours({})),
  neverMixesUp(
    "long keys that differ in one field",
    () => neighbours({ model: "x".repeat(256), cacheSalt: "s".repeat(128) }),
  ),
  neverMixesUp("hostile model names", () => HOSTILE_MODELS.map((model) => sampleKey(0, { model }))),
  neverMixesUp(
    "hostile salts",
    () => HOSTILE_SALTS.map((cacheSalt) => sampleKey(0, { cacheSalt })),
  ),
];
