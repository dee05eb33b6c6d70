import { assertEquals } from "@std/assert";
import * as fc from "../../../support/fast_check.ts";
import {
  decodeFrameHeader,
  encodeFrameHeader,
  FRAME_HEADER_BYTES,
} from "../../../../src/l2/transforms/frame_header.ts";
import { runs } from "../../../support/runs.ts";

Deno.test("a frame header is 16 bytes of a format that does not change", () => {
  assertEquals(encodeFrameHeader(4096).toHex(), "4b564631a743fc020010000000000000");
});

Deno.test("a frame header gives back the length", () => {
  fc.assert(
    fc.property(fc.maxSafeNat(), (length) => {
      assertEquals(decodeFrameHeader(encodeFrameHeader(length)), length);
    }),
    runs(200),
  );
});

Deno.test("a frame header with any bit flipped is foreign or damaged", () => {
  const header = encodeFrameHeader(123_456);
  for (let bit = 0; bit < 8 * FRAME_HEADER_BYTES; bit++) {
    const bytes = header.slice();
    bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    assertEquals(decodeFrameHeader(bytes), bit < 32 ? "foreign" : "damaged");
  }
  assertEquals(decodeFrameHeader(header.subarray(0, 15)), "foreign");
});
