import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import {
  type KvRankFields,
  ObjectKey,
  type ObjectKeyFields,
  packKvRank,
  unpackKvRank,
  validateCacheSalt,
  validateModelName,
} from "../../../src/keys/object_key.ts";
import { runs } from "../../support/runs.ts";

const HASH = new Uint8Array(32).map((_, i) => i);
const FIELDS = {
  chunkHash: HASH,
  model: "meta/llama",
  kvRank: 0x02010100,
  objectGroup: 3,
  cacheSalt: "tenant",
} satisfies ObjectKeyFields;

function withModel(model: string): ObjectKey {
  return new ObjectKey({ ...FIELDS, model });
}

function withSalt(cacheSalt: string): ObjectKey {
  return new ObjectKey({ ...FIELDS, cacheSalt });
}

Deno.test("ObjectKey keeps its fields", () => {
  const key = new ObjectKey(FIELDS);
  const { chunkHash, model, kvRank, objectGroup, cacheSalt } = key;
  assertEquals({ chunkHash, model, kvRank, objectGroup, cacheSalt }, FIELDS);
  assertEquals(key.chunkHashHex, HASH.toHex());
  assertEquals(`${key}`, key.id);
});

Deno.test("ObjectKey has rank 0, group 0 and no salt by default", () => {
  const { kvRank, objectGroup, cacheSalt } = new ObjectKey({ chunkHash: HASH, model: "m" });
  assertEquals({ kvRank, objectGroup, cacheSalt }, { kvRank: 0, objectGroup: 0, cacheSalt: "" });
});

Deno.test("ObjectKey.toBytes() and digest are the same in every release", () => {
  // Written by a program in another language, from the description of the format alone.
  const key = new ObjectKey(FIELDS);
  assertEquals(
    key.toBytes().toHex(),
    [
      HASH.toHex(), // chunk hash
      "00010102", // rank
      "03000000", // group
      "0a00", // length of the model name
      "6d6574612f6c6c616d61", // meta/llama
      "0600", // length of the salt
      "74656e616e74", // tenant
    ].join(""),
  );
  assertEquals(
    key.digest.toHex(),
    "b40cf7ecfbb8bc12453b9f9856b0e812cd52a94f737859ce212d49aa6bdeb233",
  );
  assertEquals(
    new ObjectKey({ chunkHash: HASH, model: "m".repeat(256) }).digest.toHex(),
    "2a5353775e39bb5f5cc872a2fc18937652cd7a52dac00ccd36286e3cb1848ea2",
  );
});

Deno.test("keys with equal fields are equal; a change to any field changes the key", () => {
  const keys = [
    FIELDS,
    { ...FIELDS, chunkHash: HASH.with(0, 1) },
    { ...FIELDS, chunkHash: HASH.with(31, 0) },
    { ...FIELDS, model: "meta/llama2" },
    { ...FIELDS, model: "META/LLAMA" },
    // One character, or two: the same to a reader, other bytes.
    { ...FIELDS, model: "caf\u00e9" },
    { ...FIELDS, model: "cafe\u0301" },
    { ...FIELDS, kvRank: 0 },
    { ...FIELDS, kvRank: 0xffffffff },
    { ...FIELDS, objectGroup: 0 },
    { ...FIELDS, objectGroup: 0xffffffff },
    // Rank and group exchanged.
    { ...FIELDS, kvRank: FIELDS.objectGroup, objectGroup: FIELDS.kvRank },
    { ...FIELDS, cacheSalt: "" },
    { ...FIELDS, cacheSalt: "tenant2" },
    { ...FIELDS, cacheSalt: "tenant@" },
    { ...FIELDS, cacheSalt: "tenant%40" },
    { ...FIELDS, cacheSalt: "@tenant" },
    { ...FIELDS, cacheSalt: "caf\u00e9" },
    { ...FIELDS, cacheSalt: "cafe\u0301" },
    // The same letters, divided in another way.
    { ...FIELDS, model: "meta/llamat", cacheSalt: "enant" },
  ].map((fields) => new ObjectKey(fields));
  assertEquals(new Set(keys.map(({ id }) => id)).size, keys.length);
  assertEquals(new Set(keys.map(({ digest }) => digest.toHex())).size, keys.length);
  for (const [i, a] of keys.entries()) {
    for (const [j, b] of keys.entries()) assertEquals(a.equals(b), i === j);
  }
  const again = new ObjectKey({ ...FIELDS, chunkHash: HASH.slice() });
  assert(again.equals(new ObjectKey(FIELDS)));
  assertEquals(again.id, keys[0]?.id);
  assertEquals(again.digest, keys[0]?.digest);
});

Deno.test("ids, digests and bytes are equal exactly for equal fields", () => {
  const text = fc.array(fc.constantFrom("a", "0", "é", "%", ":", "-"), { maxLength: 3 })
    .map((chars) => chars.join(""));
  const fields = fc.record({
    chunkHash: fc.constantFrom(HASH, HASH.with(5, 0)),
    model: text.map((model) => `m${model}`),
    kvRank: fc.nat(17),
    objectGroup: fc.nat(17),
    cacheSalt: text,
  });
  fc.assert(
    fc.property(fields, fields, (a, b) => {
      const [left, right] = [new ObjectKey(a), new ObjectKey(b)];
      const isSame = JSON.stringify({ ...a, chunkHash: a.chunkHash.toHex() }) ===
        JSON.stringify({ ...b, chunkHash: b.chunkHash.toHex() });
      assertEquals(left.id === right.id, isSame, "id");
      assertEquals(left.digest.toHex() === right.digest.toHex(), isSame, "digest");
      assertEquals(left.toBytes().toHex() === right.toBytes().toHex(), isSame, "bytes");
    }),
    runs(1000),
  );
});

Deno.test("ObjectKey is independent of its input array and of returned arrays", () => {
  const chunkHash = HASH.slice();
  const key = new ObjectKey({ ...FIELDS, chunkHash });
  const { id } = key;
  chunkHash.fill(0xff);
  key.chunkHash.fill(0xff);
  key.toBytes().fill(0xff);
  assertEquals(key.chunkHash, HASH);
  assertEquals(key.chunkHashHex, HASH.toHex());
  assertEquals(key.id, id);
  assertEquals(key.digest, new ObjectKey(FIELDS).digest);
});

Deno.test("ObjectKey.withChunkHash() changes only the chunk hash", () => {
  const other = HASH.toReversed();
  const key = new ObjectKey(FIELDS).withChunkHash(other);
  assertEquals(key.id, new ObjectKey({ ...FIELDS, chunkHash: other }).id);
  assertNotEquals(key.id, new ObjectKey(FIELDS).id);
  assertThrows(() => key.withChunkHash(new Uint8Array(31)), RangeError, "32 bytes");
});

for (const length of [0, 4, 31, 33, 64]) {
  Deno.test(`ObjectKey refuses a chunk hash of ${length} bytes`, () => {
    const chunkHash = new Uint8Array(length);
    assertThrows(() => new ObjectKey({ ...FIELDS, chunkHash }), RangeError, "32 bytes");
  });
}

Deno.test("a model name has 1 to 256 UTF-8 bytes, independent of characters", () => {
  assertThrows(() => withModel(""), RangeError, "empty");
  for (const char of ["m", "é", "語", "🙂"]) {
    const bytes = new TextEncoder().encode(char).length;
    const longest = char.repeat(Math.floor(256 / bytes)) + "m".repeat(256 % bytes);
    assertEquals(withModel(longest).model, longest);
    assertThrows(() => withModel(`${longest}m`), RangeError, "257");
  }
});

Deno.test("a cache salt has 0 to 128 characters, independent of bytes", () => {
  assertEquals(withSalt("").cacheSalt, "");
  for (const char of ["s", "é", "語", "🙂"]) {
    const longest = char.repeat(128);
    const key = withSalt(longest);
    assertEquals(key.cacheSalt, longest);
    assertEquals(ObjectKey.fromBytes(key.toBytes()).id, key.id);
    assertThrows(() => withSalt(`${longest}s`), RangeError, "at most 128 characters: received 129");
  }
});

const CONTROLS = [...Array(0x20).keys(), ...Array.from({ length: 0x21 }, (_, i) => 0x7f + i)];

Deno.test("model names and salts reject NUL and control characters anywhere", () => {
  for (const char of CONTROLS.map((code) => String.fromCharCode(code))) {
    for (const text of [char, `a${char}`, `${char}a`, `a${char}b`]) {
      assertThrows(() => withModel(text), TypeError, "Model name must not contain");
      assertThrows(() => withSalt(text), TypeError, "Cache salt must not contain");
    }
  }
});

Deno.test("model names reject '@', salts do not", () => {
  for (const text of ["@", "a@", "@a", "alice@example.com", "a@0x00000000@0@b"]) {
    assertThrows(() => withModel(text), TypeError, "Model name must not contain '@'");
    assertEquals(withSalt(text).cacheSalt, text);
  }
});

for (const field of ["cacheSalt", "kvRank", "objectGroup"]) {
  for (const lost of [undefined, null]) {
    Deno.test(`ObjectKey refuses ${lost} as ${field}: it would name another's object`, () => {
      const fields = { ...FIELDS, [field]: lost } as ObjectKeyFields;
      assertThrows(() => new ObjectKey(fields), TypeError, `must have a value for ${field}`);
    });
  }
}

Deno.test("ObjectKey describes a field of the wrong type", () => {
  const make = (fields: object) => () => new ObjectKey({ ...FIELDS, ...fields } as ObjectKeyFields);
  const received = "must be a string: received";
  assertThrows(make({ cacheSalt: 7 }), TypeError, `Cache salt ${received} a number`);
  assertThrows(make({ model: undefined }), TypeError, `Model name ${received} undefined`);
  assertThrows(make({ chunkHash: "00" }), TypeError, "must be a Uint8Array: received a string");
});

Deno.test("model names and salts reject lone surrogates, which share an encoding", () => {
  for (const text of ["\ud83d", "a\ude42", "\ude42\ud83d", "\udfff b"]) {
    assertThrows(() => withModel(text), TypeError, "well-formed");
    assertThrows(() => withSalt(text), TypeError, "well-formed");
  }
  assertEquals(withModel("🙂").model, "🙂");
});

Deno.test("model names and salts accept all other characters", () => {
  for (
    const text of [
      " ",
      "..",
      "%",
      "%2F",
      "-SEP-",
      "a:b",
      "\ufeff",
      "\u2028",
      "\ufffd",
      "*?<>|",
      "a/b",
      "\\",
    ]
  ) {
    assertEquals(withModel(text).model, text);
    assertEquals(withSalt(text).cacheSalt, text);
  }
});

Deno.test("an error shows the code of a control character, not the character", () => {
  assertThrows(() => withModel("a\u0000b"), TypeError, "received U+0000");
  assertThrows(() => withSalt("a\u0085b"), TypeError, "received U+0085");
  assertThrows(() => withModel("a@b"), TypeError, "received '@'");
});

Deno.test("accepting a name does not affect other names", () => {
  // The last valid name is remembered: a salt must not pass because a model name did.
  const text = "shared@name";
  validateCacheSalt(text);
  assertThrows(() => validateModelName(text), TypeError);
  assertThrows(() => validateCacheSalt(`${text}\n`), TypeError);
  validateCacheSalt(text);
  validateCacheSalt("");
  assertThrows(() => validateModelName(""), RangeError);
});

for (const value of [-1, 0.5, NaN, Infinity, 2 ** 32]) {
  Deno.test(`ObjectKey refuses ${value} as rank and as group`, () => {
    assertThrows(() => new ObjectKey({ ...FIELDS, kvRank: value }), RangeError, "kvRank");
    assertThrows(() => new ObjectKey({ ...FIELDS, objectGroup: value }), RangeError, "objectGroup");
  });
}

Deno.test("packKvRank() packs one byte per field, world size first", () => {
  const fields = { worldSize: 0x84, rank: 3, localWorldSize: 2, localRank: 1 };
  assertEquals(packKvRank(fields), 0x84030201);
  assertEquals(unpackKvRank(0x84030201), fields);
});

Deno.test("unpackKvRank() is the inverse of packKvRank()", () => {
  const byte = fc.nat(255);
  const fields = fc.record({ worldSize: byte, rank: byte, localWorldSize: byte, localRank: byte });
  fc.assert(
    fc.property(fields, (rank: KvRankFields) => {
      const packed = packKvRank(rank);
      assert(packed >= 0 && packed <= 0xffffffff);
      assertEquals(unpackKvRank(packed), rank);
    }),
    runs(200),
  );
});

for (const field of ["worldSize", "rank", "localWorldSize", "localRank"] as const) {
  Deno.test(`packKvRank() refuses ${field} that does not fit into a byte`, () => {
    const fields = { worldSize: 1, rank: 0, localWorldSize: 1, localRank: 0 };
    for (const value of [-1, 256, 0.5, NaN]) {
      assertThrows(() => packKvRank({ ...fields, [field]: value }), RangeError, field);
    }
  });
}

const anyKey = fc.record({
  chunkHash: fc.uint8Array({ minLength: 32, maxLength: 32 }),
  model: fc.string({ unit: "binary", minLength: 1, maxLength: 64 }),
  kvRank: fc.nat(2 ** 32 - 1),
  objectGroup: fc.nat(2 ** 32 - 1),
  cacheSalt: fc.string({ unit: "binary", maxLength: 32 }),
}).chain((fields) => {
  try {
    return fc.constant(new ObjectKey(fields));
  } catch {
    // Invalid strings are replaced; the other fields of the key still vary.
    return fc.constant(new ObjectKey({ ...fields, model: "m", cacheSalt: "" }));
  }
});

Deno.test("ObjectKey.fromBytes() is the inverse of toBytes()", () => {
  const models = ["\ufeffm", "é", "\u{10ffff}", "a/b", " ", "%2F"].map(withModel);
  for (const key of [...models, new ObjectKey(FIELDS), withSalt(""), withSalt("\ufeff")]) {
    assertEquals(ObjectKey.fromBytes(key.toBytes()).id, key.id);
  }
  fc.assert(
    fc.property(anyKey, fc.nat(9), (key, offset) => {
      const bytes = key.toBytes();
      const within = new Uint8Array(bytes.byteLength + 20);
      within.set(bytes, offset);
      const view = within.subarray(offset, offset + bytes.byteLength);
      const decoded = ObjectKey.fromBytes(view);
      within.fill(0xff);
      assertEquals(decoded.id, key.id);
      assertEquals(decoded.toBytes(), bytes);
      assertEquals(decoded.digest, key.digest);
    }),
    runs(1000),
  );
});

Deno.test("ObjectKey.fromBytes() rejects bytes that toBytes() does not return", () => {
  const bytes = new ObjectKey(FIELDS).toBytes();
  for (let length = 0; length < bytes.byteLength; length++) {
    assertThrows(() => ObjectKey.fromBytes(bytes.subarray(0, length)), RangeError);
  }
  assertThrows(() => ObjectKey.fromBytes(Uint8Array.of(...bytes, 0)), RangeError);
  assertThrows(() => ObjectKey.fromBytes(bytes.with(42, 0xff)), TypeError);
  assertThrows(() => ObjectKey.fromBytes(bytes.with(42, 0x40)), TypeError);
  assertThrows(() => ObjectKey.fromBytes(bytes.with(bytes.byteLength - 1, 0x1f)), TypeError);
  assertThrows(() => ObjectKey.fromBytes(new Uint8Array(44)));
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (nonsense) => {
      let key: ObjectKey;
      try {
        key = ObjectKey.fromBytes(nonsense);
      } catch (error) {
        return assert(error instanceof RangeError || error instanceof TypeError);
      }
      assertEquals(key.toBytes(), nonsense);
    }),
    runs(1000),
  );
});
