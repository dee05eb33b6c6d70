import { assert, assertEquals, assertMatch } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import {
  decodeFileName,
  encodeFileName,
  hasHashedFileName,
  isHashedFileName,
  MAX_FILE_NAME_BYTES,
} from "../../../src/keys/key_codec.ts";
import { ObjectKey, type ObjectKeyFields } from "../../../src/keys/object_key.ts";
import { runs } from "../../support/runs.ts";

const HASH = new Uint8Array(32).map((_, i) => i);
const HEX = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

function keyOf(fields: Partial<ObjectKeyFields>): ObjectKey {
  return new ObjectKey({ chunkHash: HASH, model: "llama", ...fields });
}

function decodedId(name: string): string | undefined {
  return decodeFileName(name)?.id;
}

/** Text that has broken file names elsewhere, between ordinary text. */
const hostileText = fc.array(
  fc.oneof(
    fc.constantFrom(
      ..."a A z 0 . .. % %2F %25 %2f %zz -SEP- - -- _ : ; ~ # ? & = + | < > * ' \" ` $ é ß".split(
        " ",
      ),
      " ",
      "🙂",
      "語",
      "\ufeff",
      "\u2028",
      "\u202e",
      "e\u0301",
      "CON",
      ".data",
      "h-",
    ),
    fc.string({ unit: "binary", maxLength: 4 }),
    fc.string({ unit: "grapheme", maxLength: 60 }),
  ),
  { maxLength: 12 },
).map((pieces) => pieces.join(""));

function isValid(fields: Partial<ObjectKeyFields>): boolean {
  try {
    keyOf(fields);
    return true;
  } catch {
    return false;
  }
}

const models = fc.oneof(
  hostileText,
  fc.tuple(hostileText, fc.constantFrom("/", "\\", "/../", "//"), hostileText)
    .map((parts) => parts.join("")),
  fc.integer({ min: 1, max: 256 }).map((length) => "m".repeat(length)),
).filter((model) => isValid({ model }));
const salts = fc.oneof(
  fc.constant(""),
  hostileText,
  fc.tuple(hostileText, fc.constantFrom("/", "\\", "@", "/../", "%40"), hostileText)
    .map((parts) => parts.join("")),
)
  .filter((cacheSalt) => isValid({ cacheSalt }));
const uint32 = fc.oneof(fc.nat(0xffffffff), fc.constantFrom(0, 1, 0x0a, 255, 0xffffffff));
const keys = fc.record({
  chunkHash: fc.uint8Array({ minLength: 32, maxLength: 32 }),
  model: models,
  kvRank: uint32,
  objectGroup: uint32,
  cacheSalt: salts,
}).map((fields) => new ObjectKey(fields));

const EXAMPLES: readonly (readonly [Partial<ObjectKeyFields>, string])[] = [
  [{ kvRank: 0x2a }, `llama@0x0000002a@0@${HEX}.data`],
  [{ model: "meta-llama/Llama-3.1-8B" }, `meta-llama%2FLlama-3.1-8B@0x00000000@0@${HEX}.data`],
  [{ kvRank: 0x02010201, objectGroup: 255 }, `llama@0x02010201@ff@${HEX}.data`],
  [{ kvRank: 0xffffffff, objectGroup: 0xffffffff }, `llama@0xffffffff@ffffffff@${HEX}.data`],
  [{ cacheSalt: "alice" }, `llama@0x00000000@0@${HEX}@alice.data`],
  [{ cacheSalt: "user-abc_123.xyz:42" }, `llama@0x00000000@0@${HEX}@user-abc_123.xyz%3A42.data`],
  [{ cacheSalt: "tenant%prod" }, `llama@0x00000000@0@${HEX}@tenant%25prod.data`],
  [{ cacheSalt: "alice@example.com" }, `llama@0x00000000@0@${HEX}@alice%40example.com.data`],
  [{ cacheSalt: "alice%40example.com" }, `llama@0x00000000@0@${HEX}@alice%2540example.com.data`],
  [{ cacheSalt: "../org/a\\b" }, `llama@0x00000000@0@${HEX}@%2E.%2Forg%2Fa%5Cb.data`],
  [{ cacheSalt: "租户" }, `llama@0x00000000@0@${HEX}@%E7%A7%9F%E6%88%B7.data`],
  [{ cacheSalt: "a b" }, `llama@0x00000000@0@${HEX}@a%20b.data`],
  [{ model: ".." }, `%2E.@0x00000000@0@${HEX}.data`],
  [{ model: ".hidden" }, `%2Ehidden@0x00000000@0@${HEX}.data`],
  [{ model: "a/../b" }, `a%2F..%2Fb@0x00000000@0@${HEX}.data`],
  [{ model: "a-SEP-b" }, `a-SEP-b@0x00000000@0@${HEX}.data`],
  [{ model: "C:\\models\\x" }, `C%3A%5Cmodels%5Cx@0x00000000@0@${HEX}.data`],
  [{ model: "é🙂" }, `%C3%A9%F0%9F%99%82@0x00000000@0@${HEX}.data`],
  [{ model: "\ufeffm" }, `%EF%BB%BFm@0x00000000@0@${HEX}.data`],
  [
    { model: "m".repeat(256) },
    "h-2a5353775e39bb5f5cc872a2fc18937652cd7a52dac00ccd36286e3cb1848ea2.data",
  ],
];

for (const [fields, name] of EXAMPLES) {
  Deno.test(`encodeFileName() gives ${name}`, () => {
    const key = keyOf(fields);
    assertEquals(encodeFileName(key), name);
    assertEquals(decodedId(name), isHashedFileName(name) ? undefined : key.id);
  });
}

Deno.test("names decode to their keys: models, salts and groups of LMCache's tests", () => {
  for (const model of ["llama", "meta-llama/Llama-3.1-8B", "a-SEP-b", "a/b"]) {
    for (const cacheSalt of ["", "alice", "user-abc_123.xyz:42", "tenant%prod"]) {
      for (const objectGroup of [0, 1, 255]) {
        const key = keyOf({ model, cacheSalt, objectGroup });
        assertEquals(decodedId(encodeFileName(key)), key.id);
      }
    }
  }
});

Deno.test("encodeFileName() returns portable names of at most 255 bytes", () => {
  fc.assert(
    fc.property(keys, (key) => {
      const name = encodeFileName(key);
      assertMatch(name, /^[A-Za-z0-9._%@-]+$/);
      assert(!name.startsWith("."), "hidden");
      assert(name.length <= MAX_FILE_NAME_BYTES, `${name.length} bytes`);
      assert(name.endsWith(".data"));
    }),
    runs(1500),
  );
});

Deno.test("decodeFileName() undoes encodeFileName(), unless the name is hashed", () => {
  fc.assert(
    fc.property(keys, (key) => {
      const name = encodeFileName(key);
      assertEquals(hasHashedFileName(key), isHashedFileName(name));
      assertEquals(decodedId(name), isHashedFileName(name) ? undefined : key.id);
    }),
    runs(1500),
  );
});

Deno.test("hasHashedFileName() agrees with the name, also near the limit", () => {
  const pieces = fc.constantFrom("m", "mm", "%", "é", "語", "/");
  const nearBound = fc.record({
    model: fc.tuple(fc.integer({ min: 100, max: 165 }), fc.array(pieces, { maxLength: 12 }))
      .map(([length, rest]) => "m".repeat(length) + rest.join("")),
    cacheSalt: fc.array(fc.constantFrom("s", "%", "é", " "), { maxLength: 12 })
      .map((each) => each.join("")),
    objectGroup: fc.integer({ min: 0, max: 32 }).chain((bits) => fc.nat(2 ** bits - 1)),
  }).filter((fields) => isValid(fields)).map(keyOf);
  fc.assert(
    fc.property(fc.oneof(keys, nearBound), (key) => {
      assertEquals(hasHashedFileName(key), isHashedFileName(encodeFileName(key)));
    }),
    runs(3000),
  );
});

Deno.test("encodeFileName() returns different names for different keys", () => {
  // Similar strings, which collide in a careless encoding.
  const similar = fc.array(
    fc.constantFrom("%", "2", "5", "F", "%25", "%2F", "/", ".", "-SEP-", "é", "\u00e9", "e\u0301"),
    { maxLength: 4 },
  ).map((pieces) => `m${pieces.join("")}`);
  const long = fc.nat(9).map((n) => "m".repeat(200) + "é".repeat(n));
  const model = fc.oneof({ weight: 4, arbitrary: similar }, { weight: 1, arbitrary: long });
  const salt = similar.map((text) => text.slice(1)).filter((cacheSalt) => isValid({ cacheSalt }));
  const group = fc.constantFrom(0, 1, 16);
  fc.assert(
    fc.property(
      fc.record({ model, cacheSalt: salt, objectGroup: group, kvRank: group }),
      fc.record({ model, cacheSalt: salt, objectGroup: group, kvRank: group }),
      (a, b) => {
        const [left, right] = [keyOf(a), keyOf(b)];
        assertEquals(encodeFileName(left) === encodeFileName(right), left.id === right.id);
      },
    ),
    runs(3000),
  );
});

Deno.test("a name is spelled out up to 255 bytes, and hashed from 256 on", () => {
  const rest = `@0x00000000@0@${HEX}.data`.length;
  for (const cacheSalt of ["", "s".repeat(100)]) {
    const room = MAX_FILE_NAME_BYTES - rest - (cacheSalt === "" ? 0 : cacheSalt.length + 1);
    const fits = keyOf({ model: "m".repeat(room), cacheSalt });
    const tooLong = keyOf({ model: "m".repeat(room + 1), cacheSalt });
    assertEquals(encodeFileName(fits).length, 255);
    assertEquals(decodedId(encodeFileName(fits)), fits.id);
    assertEquals(encodeFileName(tooLong), `h-${tooLong.digest.toHex()}.data`);
    assertEquals([hasHashedFileName(fits), hasHashedFileName(tooLong)], [false, true]);
  }
});

Deno.test("decodeFileName() never throws and accepts only the canonical name", () => {
  const field = fc.oneof(
    fc.constantFrom("llama", "0x0000002a", "0", "ff", HEX, "%2F", "%", ".data", "é", "..", ""),
    fc.string({ unit: "binary", maxLength: 8 }),
  );
  const names = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.array(field, { maxLength: 7 }).map((fields) => `${fields.join("@")}.data`),
    fc.tuple(field, field, field, field).map(([model, rank, group, salt]) =>
      `${model}@${rank}@${group}@${HEX}@${salt}.data`
    ),
    fc.tuple(field, field).map(([model, salt]) => `${model}@0x00000000@0@${HEX}@${salt}.data`),
    fc.tuple(field, field, fc.nat(100)).map(([a, b, at]) => {
      const name = encodeFileName(keyOf({ model: "a/é", cacheSalt: "s" }));
      return name.slice(0, at) + a + b + name.slice(at + 1);
    }),
  );
  fc.assert(
    fc.property(names, (name) => {
      const key = decodeFileName(name);
      if (key !== null) assertEquals(encodeFileName(key), name);
    }),
    runs(3000),
  );
});

const NAME = `llama@0x0000002a@0@${HEX}`;
const NOT_OURS: Readonly<Record<string, string>> = {
  "another extension": `${NAME}.bin`,
  "no extension": NAME,
  "an upper-case extension": `${NAME}.DATA`,
  "more after the extension": `${NAME}.data.tmp`,
  "too few fields": `llama@0x0000002a@${HEX}.data`,
  "LMCache's three fields of old": `llama@${HEX}@0.data`,
  "too many fields": `${NAME}@salt@more.data`,
  "an empty salt": `${NAME}@.data`,
  "an empty model": `@0x0000002a@0@${HEX}.data`,
  "a rank without 0x": `llama@0000002a@0@${HEX}.data`,
  "a rank of 7 digits": `llama@0x000002a@0@${HEX}.data`,
  "a rank of 9 digits": `llama@0x00000002a@0@${HEX}.data`,
  "an upper-case rank": `llama@0x0000002A@0@${HEX}.data`,
  "a group with a leading zero": `llama@0x0000002a@00@${HEX}.data`,
  "an upper-case group": `llama@0x0000002a@FF@${HEX}.data`,
  "a group of more than 32 bits": `llama@0x0000002a@100000000@${HEX}.data`,
  "a negative group": `llama@0x0000002a@-1@${HEX}.data`,
  "a short hash": `llama@0x0000002a@0@${HEX.slice(2)}.data`,
  "a long hash": `llama@0x0000002a@0@${HEX}00.data`,
  "an upper-case hash": `llama@0x0000002a@0@${HEX.toUpperCase()}.data`,
  "an escape that is not needed": `%6Clama@0x0000002a@0@${HEX}.data`,
  "a lower-case escape": `a%2fb@0x0000002a@0@${HEX}.data`,
  "half an escape": `a%2@0x0000002a@0@${HEX}.data`,
  "an escape of nothing": `a%zz@0x0000002a@0@${HEX}.data`,
  "an escape of NUL": `a%00@0x0000002a@0@${HEX}.data`,
  "an escaped '@'": `a%40b@0x0000002a@0@${HEX}.data`,
  "escaped bytes that are no UTF-8": `a%FF@0x0000002a@0@${HEX}.data`,
  "an escaped surrogate": `a%ED%A0%80@0x0000002a@0@${HEX}.data`,
  "a raw space": `a b@0x0000002a@0@${HEX}.data`,
  "a raw letter outside ASCII": `é@0x0000002a@0@${HEX}.data`,
  "a letter whose low byte is ASCII": `\u0161@0x0000002a@0@${HEX}.data`,
  "a raw slash": `a/b@0x0000002a@0@${HEX}.data`,
  "a raw leading dot": `.a@0x0000002a@0@${HEX}.data`,
  "a salt with a lower-case escape": `${NAME}@a%2fb.data`,
  "a raw '@' in a salt": `${NAME}@a@b.data`,
  "a salt of 129 characters": `a@0x0000002a@0@${HEX}@${"s".repeat(129)}.data`,
  "a name that should have been hashed": `${"m".repeat(200)}@0x0000002a@0@${HEX}.data`,
  "a hashed name": `h-${HEX}.data`,
  "nothing": "",
  "an extension alone": ".data",
};

for (const [what, name] of Object.entries(NOT_OURS)) {
  Deno.test(`decodeFileName() returns null for ${what}`, () => {
    assertEquals(decodeFileName(name), null);
  });
}

Deno.test("decodeFileName() accepts the unmodified name", () => {
  assertEquals(decodedId(`${NAME}.data`), keyOf({ kvRank: 0x2a }).id);
});

Deno.test("isHashedFileName() distinguishes hashed names", () => {
  assert(isHashedFileName(`h-${HEX}.data`));
  for (
    const name of [
      `${NAME}.data`,
      `h-${HEX}`,
      `h-${HEX}.data.tmp`,
      `xh-${HEX}.data`,
      `h-${HEX.slice(1)}.data`,
      `h-${HEX}0.data`,
      `h-${HEX.toUpperCase()}.data`,
      `h-${HEX}.data\n`,
    ]
  ) {
    assert(!isHashedFileName(name), JSON.stringify(name));
  }
});

Deno.test("hashed names differ if any field differs", () => {
  const fields = { model: "m".repeat(256), cacheSalt: "s".repeat(128) };
  const names = [
    fields,
    { ...fields, model: `${"m".repeat(255)}n` },
    { ...fields, cacheSalt: `${"s".repeat(127)}t` },
    { ...fields, kvRank: 1 },
    { ...fields, objectGroup: 1 },
    { ...fields, chunkHash: HASH.with(0, 1) },
  ].map((each) => encodeFileName(keyOf(each)));
  assert(names.every(isHashedFileName));
  assertEquals(new Set(names).size, names.length);
});
