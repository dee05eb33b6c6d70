import { assert, assertEquals, assertNotEquals } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import { kvLayout, type ObjectLayout } from "../../../src/keys/kv_layout.ts";
import { ObjectKey } from "../../../src/keys/object_key.ts";
import { concatParts, frontOfParts } from "../../../src/adapter/contract.ts";
import {
  keyInTail,
  MAX_TAIL_BYTES,
  tailBytes,
  TRAILER_BYTES,
  verifyAnyLayout,
  verifyObject,
  writeTrailer,
} from "../../../src/adapter/object_trailer.ts";
import { crc32 } from "../../../src/base/checksum.ts";
import { testBytes, testKey, testLayout } from "../../support/objects.ts";
import { runs } from "../../support/runs.ts";
import { sealedObject } from "../../support/sealed_objects.ts";

/** Written by a program in another language, from the description of the format alone. */
const GOLDEN_TRAILER = [
  "4b565431", // magic
  "01", // version
  "00", // flags
  "0000", // key length
  "0800000000000000", // payload length
  "b40cf7ecfbb8bc12453b9f9856b0e812cd52a94f737859ce212d49aa6bdeb233", // key digest
  "0102030405060708", // layout fingerprint
  "6eb6f0cb", // CRC-32 of the payload
  "7df901ba", // CRC-32 of the 60 bytes before it
].join("");

const longKey = testKey(1, { model: "m".repeat(256), cacheSalt: "s".repeat(128) });

function sealed(key: ObjectKey, layout: ObjectLayout): Uint8Array<ArrayBuffer> {
  return concatParts(sealedObject(key, layout).parts);
}

/** `bytes` cut at `ends`. */
function cut(bytes: Uint8Array<ArrayBuffer>, ends: readonly number[]): Uint8Array<ArrayBuffer>[] {
  const bounds = [0, ...ends, bytes.byteLength];
  return bounds.slice(1).map((end, i) => bytes.subarray(bounds[i], end));
}

Deno.test("a trailer is 64 bytes of a format that does not change", () => {
  const key = new ObjectKey({
    chunkHash: new Uint8Array(32).map((_, i) => i),
    model: "meta/llama",
    kvRank: 0x02010100,
    objectGroup: 3,
    cacheSalt: "tenant",
  });
  const layout = { byteLength: 8, fingerprint: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8) };
  const payload = Uint8Array.of(0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80);
  const trailer = new Uint8Array(TRAILER_BYTES);
  writeTrailer(key, layout, [payload, trailer]);
  assertEquals(trailer.toHex(), GOLDEN_TRAILER);
});

for (const [name, key] of [["short", testKey(1)], ["long", longKey]] as const) {
  Deno.test(`an object with a ${name} key and a trailer verifies`, () => {
    const layout = testLayout(256);
    assertEquals(verifyObject(key, layout, [sealed(key, layout)]), null);
    assertEquals(sealed(key, layout).byteLength, 256 + tailBytes(key));
  });

  Deno.test(`every flip of one bit of an object with a ${name} key is detected`, () => {
    const layout = testLayout(64);
    const bytes = sealed(key, layout);
    for (let bit = 0; bit < bytes.byteLength * 8; bit++) {
      const byte = bit >> 3;
      const mask = 1 << (bit & 7);
      bytes[byte] = (bytes[byte] ?? 0) ^ mask;
      assertNotEquals(verifyObject(key, layout, [bytes]), null, `bit ${bit}`);
      bytes[byte] = (bytes[byte] ?? 0) ^ mask;
    }
    assertEquals(verifyObject(key, layout, [bytes]), null);
  });

  Deno.test(`zeroing any tail or head of an object with a ${name} key is detected`, () => {
    const layout = testLayout(64);
    const bytes = sealed(key, layout);
    for (let at = 0; at < bytes.byteLength; at++) {
      assertNotEquals(verifyObject(key, layout, [bytes.slice().fill(0, at)]), null, `from ${at}`);
      const headless = bytes.slice().fill(0, 0, at + 1);
      if (at > 0) assertNotEquals(verifyObject(key, layout, [headless]), null, `to ${at}`);
    }
  });

  Deno.test(`every truncation of an object with a ${name} key is detected`, () => {
    const layout = testLayout(64);
    const bytes = sealed(key, layout);
    for (let size = 0; size < bytes.byteLength; size++) {
      assertNotEquals(verifyObject(key, layout, [bytes.slice(0, size)]), null, `${size} bytes`);
    }
  });

  Deno.test(`parts split at any position have the trailer of the whole, ${name} key`, () => {
    const layout = testLayout(64);
    const whole = sealed(key, layout);
    for (let at = 0; at <= whole.byteLength; at++) {
      const fresh = new Uint8Array(whole.byteLength);
      fresh.set(testBytes(key, layout.byteLength));
      writeTrailer(key, layout, cut(fresh, [at]));
      assertEquals(fresh, whole);
      assertEquals(verifyObject(key, layout, cut(whole, [at])), null);
    }
  });
}

Deno.test("parts split anyhow have the trailer of the whole", () => {
  const layout = testLayout(96);
  const whole = sealed(longKey, layout);
  const ends = fc.array(fc.nat(whole.byteLength), { maxLength: 12 });
  fc.assert(fc.property(ends, (unsorted) => {
    const positions = unsorted.toSorted((a, b) => a - b);
    const fresh = new Uint8Array(whole.byteLength);
    fresh.set(testBytes(longKey, layout.byteLength));
    const pieces = cut(fresh, positions);
    writeTrailer(longKey, layout, pieces);
    assertEquals(fresh, whole);
    assertEquals(verifyObject(longKey, layout, cut(whole, positions)), null);
    assertEquals(concatParts(frontOfParts(pieces, layout.byteLength)), testBytes(longKey, 96));
  }));
});

Deno.test("verification reports the fault", () => {
  const [key, layout] = [testKey(1), testLayout(64)];
  const bytes = sealed(key, layout);
  const withByte = (at: number, value: number): Uint8Array<ArrayBuffer> => {
    const changed = bytes.slice();
    changed[at] = value;
    return changed;
  };
  const fault = (pieces: Uint8Array[]) => verifyObject(key, layout, pieces);
  assertEquals(fault([withByte(0, (bytes[0] ?? 0) ^ 1)]), "payload-checksum");
  assertEquals(fault([withByte(64, 0)]), "magic");
  assertEquals(fault([withByte(64 + 8, 1)]), "trailer-checksum");
  assertEquals(fault([sealed(testKey(2), layout)]), "key");
  assertEquals(fault([new Uint8Array(bytes.byteLength)]), "magic");
  assertEquals(fault([]), "magic");
});

Deno.test("another layout of the same size, or of another size, is told from damage", () => {
  const key = testKey(1);
  const wide = kvLayout({ layers: 2, kvHeads: 1, headDim: 8, dtype: "f16", chunkTokens: 4 });
  const deep = kvLayout({ layers: 1, kvHeads: 2, headDim: 8, dtype: "f16", chunkTokens: 4 });
  const equal = { byteLength: wide.byteLength, fingerprint: deep.fingerprint };
  assertEquals(verifyObject(key, equal, [sealed(key, wide)]), "layout");
  // The same trailer in the position of a shorter object.
  const short = { ...wide, byteLength: wide.byteLength - 4 };
  assertEquals(verifyObject(key, short, [sealed(key, wide).subarray(4)]), "length");
});

Deno.test("another version, or unknown flags, are told from damage", () => {
  const [key, layout] = [testKey(1), testLayout(64)];
  for (const [offset, value] of [[4, 2], [5, 1]] as const) {
    const bytes = sealed(key, layout);
    bytes[64 + offset] = value;
    const view = new DataView(bytes.buffer, 64);
    view.setUint32(60, crc32(bytes.subarray(64, 64 + 60)), true);
    assertEquals(verifyObject(key, layout, [bytes]), "version");
  }
});

Deno.test("an object whose name is hashed carries its key", () => {
  const layout = testLayout(64);
  const inline = longKey.toBytes();
  assertEquals(tailBytes(testKey(1)), TRAILER_BYTES);
  assertEquals(tailBytes(longKey), TRAILER_BYTES + inline.byteLength);
  assertEquals(sealed(longKey, layout).slice(64, 64 + inline.byteLength), inline);
});

Deno.test("a trailer depends on every byte of the payload", () => {
  const layout = testLayout(64);
  const key = testKey(1);
  const seals = new Set<string>();
  for (let at = -1; at < 64; at++) {
    const payload = new Uint8Array(64);
    if (at >= 0) payload[at] = 1;
    const tail = new Uint8Array(TRAILER_BYTES);
    writeTrailer(key, layout, [payload, tail]);
    seals.add(tail.toHex());
  }
  assert(seals.size === 65);
});

for (const [name, key] of [["short", testKey(1)], ["long", longKey]] as const) {
  Deno.test(`an object with a ${name} key verifies by its own trailer, whatever its layout`, () => {
    for (const size of [4, 64, 256]) {
      const bytes = sealed(key, testLayout(size));
      assertEquals(verifyAnyLayout(key, bytes.byteLength, [bytes]), null);
      assertEquals(verifyAnyLayout(key, bytes.byteLength, cut(bytes, [1, size + 3])), null);
    }
  });

  Deno.test(`every change of an object with a ${name} key is detected without its layout`, () => {
    const bytes = sealed(key, testLayout(64));
    const { byteLength } = bytes;
    for (let at = 0; at < byteLength; at++) {
      const changed = bytes.with(at, (bytes[at] ?? 0) ^ 1);
      assertNotEquals(verifyAnyLayout(key, byteLength, [changed]), null, `byte ${at}`);
      const short = bytes.slice(0, at);
      assertEquals(verifyAnyLayout(key, byteLength, [short]), "length");
      assertNotEquals(verifyAnyLayout(key, at, [short]), null, `${at} bytes`);
    }
    for (const extra of [1, 4, 64]) {
      const longer = concatParts([new Uint8Array(extra), bytes]);
      assertEquals(verifyAnyLayout(key, byteLength + extra, [longer]), "length");
      assertEquals(verifyAnyLayout(key, byteLength, [bytes, new Uint8Array(extra)]), "length");
    }
    assertEquals(verifyAnyLayout(testKey(7), byteLength, [bytes]) === null, false);
  });
}

Deno.test("verification without a layout reports the fault", () => {
  const [key, layout] = [testKey(1), testLayout(64)];
  const fault = (bytes: Uint8Array) => verifyAnyLayout(key, bytes.byteLength, [bytes]);
  const bytes = sealed(key, layout);
  assertEquals(fault(bytes.with(0, (bytes[0] ?? 0) ^ 1)), "payload-checksum");
  assertEquals(fault(bytes.with(64, 0)), "magic");
  assertEquals(fault(bytes.with(64 + 50, 1)), "trailer-checksum");
  assertEquals(fault(sealed(testKey(2), layout)), "key");
  assertEquals(fault(new Uint8Array(10)), "length");
});

Deno.test("the tail of an object with a hashed name contains its key", () => {
  for (const payload of [0, 1, 256, 5000]) {
    const bytes = sealed(longKey, testLayout(payload));
    for (const known of [MAX_TAIL_BYTES, MAX_TAIL_BYTES + 1, bytes.byteLength]) {
      const end = bytes.slice(-Math.min(known, bytes.byteLength));
      assertEquals(keyInTail(end, bytes.byteLength)?.id, longKey.id);
    }
  }
});

Deno.test("the longest key fits into MAX_TAIL_BYTES", () => {
  const key = testKey(1, { model: "\u{1f600}".repeat(64), cacheSalt: "\u{1f600}".repeat(128) });
  assertEquals(tailBytes(key), MAX_TAIL_BYTES);
});

Deno.test("a tail that is damaged, cut or of another length has no key", () => {
  const bytes = sealed(longKey, testLayout(100));
  const { byteLength } = bytes;
  // Neither the digest of the payload nor the layout is part of the key.
  const keyAndTrailer = byteLength - tailBytes(longKey);
  for (let bit = 8 * keyAndTrailer; bit < 8 * byteLength; bit++) {
    const damaged = bytes.slice();
    damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    assertEquals(keyInTail(damaged, byteLength), null, `bit ${bit}`);
  }
  for (const length of [byteLength - 1, byteLength + 1, 0, 2 ** 52]) {
    assertEquals(keyInTail(bytes, length), null, `${length} bytes`);
  }
  for (let length = 0; length < byteLength; length++) {
    assertEquals(keyInTail(bytes.subarray(0, length), length), null, `cut after ${length}`);
    const end = bytes.subarray(byteLength - length);
    const expected = length < tailBytes(longKey) ? null : longKey.id;
    assertEquals(keyInTail(end, byteLength)?.id ?? null, expected, `the last ${length}`);
  }
});

Deno.test("an object whose name spells its key has none in its tail", () => {
  const bytes = sealed(testKey(1), testLayout(256));
  assertEquals(keyInTail(bytes, bytes.byteLength), null);
});

Deno.test("random bytes have no key in their tail", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: MAX_TAIL_BYTES }), fc.nat(1000), (bytes, length) => {
      assertEquals(keyInTail(bytes, length), null);
    }),
    runs(500),
  );
});
