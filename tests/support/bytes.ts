import { assertEquals } from "@std/assert";

/** Asserts that bytes are equal. Reports the first difference instead of printing megabytes. */
export function assertSameBytes(actual: Uint8Array, expected: Uint8Array, what = "bytes"): void {
  assertEquals(actual.byteLength, expected.byteLength, `${what}: length`);
  for (let i = 0; i < actual.byteLength; i++) {
    if (actual[i] !== expected[i]) assertEquals(actual[i], expected[i], `${what}: byte ${i}`);
  }
}
