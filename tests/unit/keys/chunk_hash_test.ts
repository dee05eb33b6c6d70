import { assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import {
  chunkHashes,
  type PositionedKey,
  type PrefixIdentity,
  rootHash,
  type TokenIds,
} from "../../../src/keys/chunk_hash.ts";
import { kvLayout } from "../../../src/keys/kv_layout.ts";
import { runs } from "../../support/runs.ts";

const LAYOUT = kvLayout({ layers: 2, kvHeads: 8, headDim: 64, dtype: "f16", chunkTokens: 4 });
const IDENTITY = {
  model: "qwen/qwen3",
  revision: "c1899de",
  layout: LAYOUT,
  salt: "ålice",
} satisfies PrefixIdentity;

const tokenIds = fc.oneof(
  fc.nat(0xffffffff),
  fc.constantFrom(0, 1, 255, 256, 0x7fffffff, 0x80000000, 0xffffffff),
);

function hexHashes(root: Uint8Array, tokens: ArrayLike<number>, chunkTokens: number): string[] {
  return chunkHashes(root, tokens, chunkTokens).map((hash) => hash.toHex());
}

/** The definition of the chain, by other means. */
function plainHashes(root: Uint8Array, tokens: readonly number[], chunkTokens: number): string[] {
  const hashes: string[] = [];
  let previous = root;
  for (let start = 0; start + chunkTokens <= tokens.length; start += chunkTokens) {
    const bytes = Buffer.alloc(chunkTokens * 4);
    for (let i = 0; i < chunkTokens; i++) bytes.writeUInt32BE(tokens[start + i] ?? 0, i * 4);
    previous = createHash("sha256").update(previous).update(bytes).digest();
    hashes.push(previous.toHex());
  }
  return hashes;
}

Deno.test("rootHash() and chunkHashes() are the same in every release", () => {
  // Written by a program in another language, from the description of the format alone.
  const root = rootHash(IDENTITY);
  assertEquals(root.toHex(), "88cdb5efec8fb7de820aee3bd0f2219818ba1ce704bbeeaf957349f4e0170866");
  assertEquals(hexHashes(root, [0, 1, 2, 3, 0xffffffff, 5, 256, 65536, 9], 4), [
    "0fbdf0eeaca28fd8976cc322ac237cd45a504bd1504960afd4cf2ed73d8e328e",
    "13c516633b5c28a168d156538b0fecea77b3bd70424bb96471d881e73229603a",
  ]);
});

Deno.test("chunkHashes() chains SHA-256 over big-endian token ids", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      fc.array(tokenIds, { maxLength: 40 }),
      fc.integer({ min: 1, max: 9 }),
      (root, tokens, chunkTokens) => {
        const expected = plainHashes(root, tokens, chunkTokens);
        assertEquals(hexHashes(root, tokens, chunkTokens), expected);
        assertEquals(hexHashes(root, Uint32Array.from(tokens), chunkTokens), expected);
      },
    ),
    runs(200),
  );
});

Deno.test("chunkHashes() hashes complete chunks only", () => {
  const root = rootHash(IDENTITY);
  const tokens = Array.from({ length: 20 }, (_, i) => i);
  for (let length = 0; length <= 20; length++) {
    const hashes = hexHashes(root, tokens.slice(0, length), 4);
    assertEquals(hashes, hexHashes(root, tokens, 4).slice(0, Math.floor(length / 4)));
  }
});

Deno.test("chunkHashes() agree up to the first differing token", () => {
  fc.assert(
    fc.property(
      fc.array(tokenIds, { minLength: 1, maxLength: 40 }),
      fc.nat(),
      fc.integer({ min: 1, max: 0xffffffff }),
      fc.integer({ min: 1, max: 9 }),
      (tokens, position, change, chunkTokens) => {
        const at = position % tokens.length;
        const others = tokens.with(at, ((tokens[at] ?? 0) + change) % 2 ** 32);
        const root = rootHash(IDENTITY);
        const [a, b] = [tokens, others].map((ids) => hexHashes(root, ids, chunkTokens));
        const common = Math.floor(at / chunkTokens);
        assertEquals(a?.slice(0, common), b?.slice(0, common));
        const rest = [...a?.slice(common) ?? [], ...b?.slice(common) ?? []];
        assertEquals(new Set(rest).size, rest.length, "no later hash is shared");
      },
    ),
    runs(200),
  );
});

Deno.test("a change of any part of the identity changes every hash", () => {
  const { layers, kvHeads, headDim, dtype, chunkTokens } = LAYOUT;
  const shape = { layers, kvHeads, headDim, dtype, chunkTokens };
  const identities: PrefixIdentity[] = [
    IDENTITY,
    { ...IDENTITY, model: "qwen/qwen4" },
    { ...IDENTITY, revision: "c1899df" },
    { ...IDENTITY, revision: "" },
    { ...IDENTITY, salt: "bob" },
    { ...IDENTITY, salt: "" },
    // The same letters, divided in another way.
    { ...IDENTITY, model: "qwen/qwen3c", revision: "1899de" },
    { ...IDENTITY, revision: "c1899deå", salt: "lice" },
    { ...IDENTITY, model: 'qwen/qwen3","c1899de', revision: "" },
    { ...IDENTITY, layout: kvLayout({ ...shape, layers: 4 }) },
    { ...IDENTITY, layout: kvLayout({ ...shape, dtype: "bf16" }) },
    { ...IDENTITY, layout: kvLayout({ ...shape, kvHeads: 64, headDim: 8 }) },
    { ...IDENTITY, layout: kvLayout({ ...shape, chunkTokens: 8 }) },
    { ...IDENTITY, extraKey: "lora 1" },
    { ...IDENTITY, extraKey: "lora 2" },
    { ...IDENTITY, windows: [512] },
    { ...IDENTITY, windows: [1024] },
    { ...IDENTITY, layout: [LAYOUT, LAYOUT] },
    { ...IDENTITY, layout: [LAYOUT, LAYOUT], windows: [undefined, 512] },
    { ...IDENTITY, layout: [LAYOUT, LAYOUT], windows: [512, undefined] },
    // Fields that a layout's fingerprint covers count by themselves, too.
    { ...IDENTITY, layout: { ...LAYOUT, chunkTokens: 8 } },
    { ...IDENTITY, layout: { ...LAYOUT, dtype: "bf16" } },
  ];
  const tokens = Array.from({ length: 12 }, (_, i) => i);
  const hashes = identities.flatMap((identity) => hexHashes(rootHash(identity), tokens, 4));
  assertEquals(new Set(hashes).size, identities.length * 3);
});

Deno.test("rootHash() treats a missing revision or salt as empty", () => {
  const { model, layout } = IDENTITY;
  const empty = { revision: "", salt: "", extraKey: "", windows: [undefined] };
  assertEquals(rootHash({ model, layout }), rootHash({ model, layout, ...empty }));
});

Deno.test("rootHash() rejects names that an object key rejects", () => {
  assertThrows(() => rootHash({ ...IDENTITY, model: "a@b" }), TypeError, "Model name");
  assertThrows(() => rootHash({ ...IDENTITY, model: "" }), RangeError, "Model name");
  assertThrows(() => rootHash({ ...IDENTITY, model: "m".repeat(257) }), RangeError, "Model name");
  assertThrows(() => rootHash({ ...IDENTITY, salt: "a\0b" }), TypeError, "Cache salt");
  assertThrows(() => rootHash({ ...IDENTITY, revision: "\ud800" }), TypeError, "revision");
  assertThrows(() => rootHash({ ...IDENTITY, extraKey: "\ud800" }), TypeError, "extraKey");
});

for (const field of ["salt", "extraKey", "revision", "windows"]) {
  for (const lost of [undefined, null]) {
    Deno.test(`rootHash() refuses ${lost} as ${field}, which would be shared by all`, () => {
      const identity = { ...IDENTITY, [field]: lost } as PrefixIdentity;
      assertThrows(() => rootHash(identity), TypeError, `must have a value for ${field}`);
    });
  }
}

const LETTERS = fc.constantFrom("a", "b", '"', ",", "é");
const positionedKeys = fc.array(
  fc.record({ atToken: fc.nat(20), key: fc.string({ unit: LETTERS, minLength: 1, maxLength: 3 }) }),
  { maxLength: 4 },
);
const SIXTEEN = Array.from({ length: 16 }, (_, i) => i);

function positioned(keys: readonly PositionedKey[]): string[] {
  return chunkHashes(rootHash(IDENTITY), SIXTEEN, 4, { positionedKeys: keys })
    .map((hash) => hash.toHex());
}

/** What of some keys matters before a token, in words that are equal exactly for the same keys. */
function meaning(keys: readonly PositionedKey[], beforeToken: number): string {
  return keys.filter(({ atToken }) => atToken < beforeToken)
    .map(({ atToken, key }) => `${atToken} ${key.length} ${key}`).sort().join(" ");
}

Deno.test("positioned keys change the hashes of their chunk and all later ones only", () => {
  fc.assert(
    fc.property(positionedKeys, positionedKeys, (a, b) => {
      const [left, right] = [positioned(a), positioned(b)];
      for (let chunk = 0; chunk < 4; chunk++) {
        const isSame = meaning(a, 4 * chunk + 4) === meaning(b, 4 * chunk + 4);
        assertEquals(left[chunk] === right[chunk], isSame, `chunk ${chunk}`);
      }
      assertEquals(positioned(a.toReversed()), left, "in any order");
    }),
    runs(500),
  );
});

Deno.test("an empty list changes nothing, and a key at token 0 differs from a string", () => {
  const plain = hexHashes(rootHash(IDENTITY), SIXTEEN, 4);
  assertEquals(positioned([]), plain);
  assertEquals(positioned([{ atToken: 16, key: "a" }]), plain, "beyond the last chunk");
  const first = positioned([{ atToken: 0, key: "a" }]);
  const whole = hexHashes(rootHash({ ...IDENTITY, extraKey: "a" }), SIXTEEN, 4);
  assertEquals(new Set([...first, ...whole, ...plain]).size, 12);
});

Deno.test("the hashes of positioned keys are the same in every release", () => {
  const hash = (...parts: (string | Uint8Array)[]): Uint8Array => {
    const sha = createHash("sha256");
    for (const part of parts) sha.update(part);
    return sha.digest();
  };
  const words = (...tokens: number[]): Uint8Array => {
    const bytes = Buffer.alloc(4 * tokens.length);
    for (const [i, token] of tokens.entries()) bytes.writeUInt32BE(token, 4 * i);
    return bytes;
  };
  const root = rootHash(IDENTITY);
  const first = hash(root, words(0, 1, 2, 3));
  const keys = '[[5,"img"],[7,"b"]]';
  const second = hash(hash("kvtier positioned keys 1", first, keys), words(4, 5, 6, 7));
  const given = [{ atToken: 7, key: "b" }, { atToken: 5, key: "img" }];
  assertEquals(positioned(given).slice(0, 2), [first.toHex(), second.toHex()]);
});

Deno.test("chunkHashes() hashes at most maxChunks chunks", () => {
  const root = rootHash(IDENTITY);
  const hashes = hexHashes(root, SIXTEEN, 4);
  for (const maxChunks of [0, 1, 3, 4, 9]) {
    const some = chunkHashes(root, SIXTEEN, 4, { maxChunks }).map((hash) => hash.toHex());
    assertEquals(some, hashes.slice(0, maxChunks));
  }
});

const NOT_POSITIONED: readonly [unknown, typeof Error, string][] = [
  [{ atToken: 1, key: "a" }, TypeError, "an array of { atToken, key }: received an object with"],
  [7, TypeError, "received a number"],
  [["a"], TypeError, "extraKey[0] must be an object: received a string"],
  [
    [{ atToken: 1, key: "a" }, { at: 1, key: "a" }],
    TypeError,
    'extraKey[1] must not have the key "at"',
  ],
  [[{ atToken: -1, key: "a" }], RangeError, "extraKey[0].atToken must be an integer"],
  [[{ atToken: 1.5, key: "a" }], RangeError, "received 1.5"],
  [[{ atToken: "1", key: "a" }], TypeError, "received a string"],
  [[{ key: "a" }], TypeError, "received undefined"],
  [[{ atToken: 1, key: "" }], RangeError, "extraKey[0].key must not be empty"],
  [[{ atToken: 1 }], TypeError, "extraKey[0].key must be a string: received undefined"],
  [[{ atToken: 1, key: "\ud800" }], TypeError, "well-formed"],
];
for (const [keys, type, message] of NOT_POSITIONED) {
  Deno.test(`chunkHashes() says what is wrong with ${JSON.stringify(keys)}`, () => {
    const options = { positionedKeys: keys as PositionedKey[] };
    assertThrows(() => chunkHashes(rootHash(IDENTITY), SIXTEEN, 4, options), type, message);
  });
}

for (const token of [-1, 0.5, NaN, Infinity, 2 ** 32]) {
  Deno.test(`chunkHashes() refuses ${token} as a token id, and says where it is`, () => {
    const tokens = [1, 2, 3, token];
    assertThrows(() => chunkHashes(rootHash(IDENTITY), tokens, 4), RangeError, "at index 3");
  });
}

for (const chunkTokens of [0, -1, 1.5, NaN]) {
  Deno.test(`chunkHashes() refuses chunks of ${chunkTokens} tokens`, () => {
    assertThrows(
      () => chunkHashes(rootHash(IDENTITY), [1], chunkTokens),
      RangeError,
      "chunkTokens",
    );
  });
}

Deno.test("chunkHashes() returns independent arrays", () => {
  const root = rootHash(IDENTITY);
  const [first] = chunkHashes(root, [1, 2, 3, 4], 4);
  const before = first?.toHex();
  first?.fill(0);
  assertEquals(hexHashes(root, [1, 2, 3, 4], 4), [before]);
  assertNotEquals(before, root.toHex());
});

Deno.test("chunkHashes() accepts the arrays that tokenizers return", () => {
  const root = rootHash(IDENTITY);
  const tokens = [5, 0, 4_294_967_295, 7];
  const hashes = hexHashes(root, tokens, 2);
  const hashesOf = (ids: TokenIds) => chunkHashes(root, ids, 2).map((hash) => hash.toHex());
  assertEquals(hashesOf(BigInt64Array.from(tokens.map(BigInt))), hashes);
  assertEquals(hashesOf(Uint32Array.from(tokens)), hashes);
  for (const id of [-1n, 2n ** 32n, 2n ** 60n]) {
    assertThrows(() => chunkHashes(root, [0n, id], 2), RangeError, "at index 1");
  }
  assertThrows(() => chunkHashes(root, "1234" as unknown as TokenIds, 2), RangeError, "at index 0");
  assertThrows(() => chunkHashes(root, ["1"] as never, 1), RangeError, "a string at index 0");
  for (const [tokens, words] of [[undefined, "undefined"], [{}, "an empty object"]] as const) {
    assertThrows(() => chunkHashes(root, tokens as never, 2), TypeError, `received ${words}`);
  }
});
