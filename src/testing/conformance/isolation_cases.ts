import { assertEquals } from "@std/assert";
import type { ObjectKey, ObjectKeyFields } from "../../keys/object_key.ts";
import { sampleBytes, sampleKey } from "./samples.ts";
import type { SubjectCase } from "./subject.ts";

/** Model names that a careless encoding would confuse with others, or interpret as paths. */
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

/** Keys that differ from `sampleKey(0)` in one field each. */
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

/** A case that stores similar keys one by one, and checks that none is confused with another. */
function neverMixesUp(what: string, makeKeys: () => ObjectKey[]): SubjectCase {
  return {
    name: `${what} are never confused`,
    async check(subject) {
      const given = makeKeys().map((key, n) => ({ key, bytes: sampleBytes(n, 100) }));
      const keys = given.map(({ key }) => key);
      for (const [n, each] of given.entries()) {
        const stored = "1".repeat(n) + "0".repeat(keys.length - n);
        assertEquals(await subject.lookup(keys), stored);
        assertEquals(await subject.load(each), null, `bytes under ${each.key.id}`);
        await subject.store([each]);
      }
      await subject.assertStored(given);
      assertEquals(subject.errors, []);
    },
  };
}

/** Cases about the isolation of keys. */
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
