import { Buffer } from "node:buffer";
import { assert, assertEquals } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import {
  concatParts,
  copyParts,
  fillParts,
  frontOfParts,
  lengthOfParts,
  readParts,
  sliceParts,
  viewOfParts,
  writeParts,
} from "../../../src/base/byte_parts.ts";

/** Bytes in parts of any size, including empty ones. */
const anyParts = fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 8 }).map((parts) =>
  parts.map((part) => new Uint8Array([9, ...part, 9]).subarray(1, part.length + 1))
);

Deno.test("slices of parts equal slices of the whole", () => {
  fc.assert(
    fc.property(anyParts, fc.nat(200), fc.nat(200), (parts, a, b) => {
      const whole = Buffer.concat(parts);
      const [start = 0, end = 0] = [a, b].map((n) => n % (whole.length + 1)).sort((x, y) => x - y);
      assertEquals(
        Buffer.from(sliceParts(parts, start, end)),
        Buffer.from(whole.subarray(start, end)),
      );
    }),
    { seed: 1 },
  );
});

Deno.test("bytes within one part are not copied", () => {
  const parts = [new Uint8Array(10), new Uint8Array(100)];
  const slice = sliceParts(parts, 20, 110);
  assert(slice.buffer === parts[1]?.buffer);
  assertEquals(slice.byteOffset, 10);
});

Deno.test("chunks written to parts in any order give the whole", () => {
  fc.assert(
    fc.property(anyParts, fc.integer({ min: 1, max: 50 }), (parts, size) => {
      const whole = Buffer.concat(parts);
      const room = parts.map(({ byteLength }) => new Uint8Array(byteLength));
      for (let at = Math.floor(whole.length / size) * size; at >= 0; at -= size) {
        writeParts(room, at, whole.subarray(at, at + size));
      }
      assertEquals(Buffer.concat(room), whole);
    }),
    { seed: 2 },
  );
});

Deno.test("readParts() reads from any place, up to the end of its target", () => {
  const parts = [Uint8Array.of(1, 2), new Uint8Array(0), Uint8Array.of(3, 4, 5)];
  const target = new Uint8Array(3);
  readParts(parts, 1, target);
  assertEquals(target, Uint8Array.of(2, 3, 4));
});

Deno.test("viewOfParts() has no view of bytes that span several parts", () => {
  const parts = [new Uint8Array(10), new Uint8Array(100)];
  assertEquals(viewOfParts(parts, 9, 11), undefined);
  assertEquals(viewOfParts(parts, 0, 111), undefined);
  assert(viewOfParts(parts, 10, 110)?.buffer === parts[1]?.buffer);
});

Deno.test("concatParts(), copyParts() and fillParts() copy all bytes in order", () => {
  fc.assert(
    fc.property(anyParts, (parts) => {
      const whole = new Uint8Array(Buffer.concat(parts));
      assertEquals(lengthOfParts(parts), whole.byteLength);
      assertEquals(concatParts(parts), whole);
      const target = new Uint8Array(whole.byteLength + 3);
      copyParts(parts, target, 2);
      assertEquals(target, Uint8Array.of(0, 0, ...whole, 0));
      const room = parts.map(({ byteLength }) => new Uint8Array(byteLength));
      assert(fillParts(room, whole));
      assertEquals(room.map((part) => [...part]), parts.map((part) => [...part]));
    }),
    { seed: 3 },
  );
});

Deno.test("fillParts() copies nothing unless the bytes fit exactly", () => {
  const parts = [new Uint8Array(2), new Uint8Array(1)];
  for (const bytes of [undefined, Uint8Array.of(1, 1), Uint8Array.of(1, 1, 1, 1)]) {
    assertEquals(fillParts(parts, bytes), false);
  }
  assertEquals(concatParts(parts), new Uint8Array(3));
});

Deno.test("frontOfParts() shares the first bytes, and only those", () => {
  fc.assert(
    fc.property(anyParts, fc.nat(400), (parts, n) => {
      const front = frontOfParts(parts, n);
      assertEquals(concatParts(front), concatParts(parts).subarray(0, n));
      assert(front.every((part, i) => part.buffer === parts[i]?.buffer));
    }),
    { seed: 4 },
  );
});
