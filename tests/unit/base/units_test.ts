import { assert, assertEquals } from "@std/assert";
import { GIB, MAX_GIB, MIB } from "../../../src/base/units.ts";

Deno.test("the largest configurable size is a safe integer in bytes; twice that size is not", () => {
  assertEquals(GIB, 1024 * MIB);
  assert(Number.isSafeInteger(MAX_GIB * GIB));
  assert(!Number.isSafeInteger(2 * MAX_GIB * GIB));
});
