import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { Rooms } from "../../../../src/l2/transforms/rooms.ts";

Deno.test("rooms are used again for the same length, with nothing at either end", () => {
  const rooms = new Rooms(1000);
  const room = rooms.take(300).fill(7);
  rooms.give(room);
  assertEquals([rooms.take(200) === room, rooms.idleBytes], [false, 300]);
  const again = rooms.take(300);
  assertStrictEquals(again, room);
  assertEquals(rooms.idleBytes, 0);
  const ends = [...again.subarray(0, 16), ...again.subarray(300 - 64)];
  assert(ends.every((byte) => byte === 0));
  assert(rooms.take(300) !== room);
  rooms.give(rooms.take(10).fill(7));
  assertEquals(rooms.take(10), new Uint8Array(10));
});

Deno.test("rooms keep a bounded number of bytes, those used last", () => {
  const rooms = new Rooms(1000);
  const given = [400, 500, 300, 1001].map((length) => rooms.take(length));
  for (const room of given) rooms.give(room);
  assertEquals(rooms.idleBytes, 800);
  assert(rooms.take(400) !== given[0]);
  assertStrictEquals(rooms.take(500), given[1]);
  rooms.clear();
  assertEquals(rooms.idleBytes, 0);
  assert(rooms.take(300) !== given[2]);
});
