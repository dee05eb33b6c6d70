import { assertEquals } from "@std/assert";
import type { ObjectKey, ObjectKeyFields } from "../../keys/object_key.ts";
import { keysOf, sampleBytes, sampleKey } from "./samples.ts";
import type { Cases, Check } from "./subject.ts";

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

/** Stores similar keys one by one, and checks that none is confused with another. */
function neverMixesUp(makeKeys: () => ObjectKey[]): Check {
  return async (subject) => {
    const given = makeKeys().map((key, n) => ({ key, bytes: sampleBytes(n, 100) }));
    for (const [n, each] of given.entries()) {
      const stored = "1".repeat(n) + "0".repeat(given.length - n);
      assertEquals(await subject.lookup(keysOf(given)), stored);
      assertEquals(await subject.load(each), null, `bytes under ${each.key.id}`);
      await subject.store([each]);
    }
    await subject.assertStored(given);
    assertEquals(subject.errors, []);
  };
}

/** Cases about the isolation of keys. */
export const isolationCases: Cases = {
  "keys that differ in one field are never confused": neverMixesUp(() => neighbours({})),
  "long keys that differ in one field are never confused": neverMixesUp(() =>
    neighbours({ model: "x".repeat(256), cacheSalt: "s".repeat(128) })
  ),
  "hostile model names are never confused": neverMixesUp(() =>
    HOSTILE_MODELS.map((model) => sampleKey(0, { model }))
  ),
  "hostile salts are never confused": neverMixesUp(() =>
    HOSTILE_SALTS.map((cacheSalt) => sampleKey(0, { cacheSalt }))
  ),
};
