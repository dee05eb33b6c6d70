import { assertEquals } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import { crc32 } from "../../../src/base/checksum.ts";
import { runs } from "../../support/runs.ts";

/** The definition, bit by bit: reflected polynomial 0xEDB88320. */
function plainCrc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

Deno.test("crc32() of the catalogue's check string is 0xcbf43926", () => {
  assertEquals(crc32(new TextEncoder().encode("123456789")), 0xcbf43926);
  assertEquals(crc32(new Uint8Array()), 0);
});

Deno.test("crc32() is the CRC-32 of IEEE 802.3, unsigned", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      assertEquals(crc32(bytes), plainCrc32(bytes));
    }),
    runs(200),
  );
});

Deno.test("crc32() continues over several parts", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 20 })), (pieces) => {
      const whole = Uint8Array.from(pieces.flatMap((piece) => [...piece]));
      assertEquals(pieces.reduce((crc, piece) => crc32(piece, crc), 0), crc32(whole));
    }),
    runs(200),
  );
});
