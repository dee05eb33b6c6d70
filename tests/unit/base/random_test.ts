import { assertEquals, assertNotEquals } from "@std/assert";
import { systemRandom } from "../../../src/base/random.ts";

Deno.test("systemRandom.bytes() returns as many bytes as asked for", () => {
  for (const length of [0, 1, 16, 1000]) assertEquals(systemRandom.bytes(length).length, length);
});

Deno.test("systemRandom.bytes() returns different bytes each time, of all values", () => {
  assertNotEquals(systemRandom.bytes(16), systemRandom.bytes(16));
  // Each value is missing with a probability of (255/256)^65536, which is 10^-111.
  assertEquals(new Set(systemRandom.bytes(65536)).size, 256);
});
