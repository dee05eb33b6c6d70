import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { BufferPool } from "../../../../src/l2/transforms/buffer_pool.ts";

Deno.test("pool are used again for the same length, with nothing at either end", () => {
  const pool = new BufferPool(1000);
  const buffer = pool.acquire(300).fill(7);
  pool.release(buffer);
  assertEquals([pool.acquire(200) === buffer, pool.idleBytes], [false, 300]);
  const again = pool.acquire(300);
  assertStrictEquals(again, buffer);
  assertEquals(pool.idleBytes, 0);
  const ends = [...again.subarray(0, 16), ...again.subarray(300 - 64)];
  assert(ends.every((byte) => byte === 0));
  assert(pool.acquire(300) !== buffer);
  pool.release(pool.acquire(10).fill(7));
  assertEquals(pool.acquire(10), new Uint8Array(10));
});

Deno.test("pool keep a bounded number of bytes, those used last", () => {
  const pool = new BufferPool(1000);
  const given = [400, 500, 300, 1001].map((length) => pool.acquire(length));
  for (const buffer of given) pool.release(buffer);
  assertEquals(pool.idleBytes, 800);
  assert(pool.acquire(400) !== given[0]);
  assertStrictEquals(pool.acquire(500), given[1]);
  pool.clear();
  assertEquals(pool.idleBytes, 0);
  assert(pool.acquire(300) !== given[2]);
});
