import { assert, assertEquals } from "@std/assert";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import type { L1Cache, L1CacheOptions } from "../../../src/l1/l1_cache.ts";
import {
  LAYOUT,
  pick,
  type SetUp,
  setUp,
  SIZE,
  stage,
  statuses,
  WRITE_TTL_MS,
  writeObjects,
} from "../../support/l1.ts";
import { testKey } from "../../support/objects.ts";

/** A cache with a quota of `objects` objects for salt `a`. */
function withQuota(
  objects: number,
  capacity = 16,
  options: Partial<L1CacheOptions> = {},
): SetUp {
  const quotaOf = (salt: string): number | undefined => salt === "a" ? objects * SIZE : undefined;
  return setUp(capacity, { quotaOf, ...options });
}

function keysOf(cacheSalt: string, ...numbers: number[]): ObjectKey[] {
  return numbers.map((n) => testKey(n, { cacheSalt }));
}

function residentsOf(l1: L1Cache, cacheSalt: string): number[] {
  return [...Array(32).keys()].filter((n) => l1.has(testKey(n, { cacheSalt })));
}

Deno.test("bytes of a salt are those of its resident and staged objects", () => {
  const { l1 } = setUp();
  writeObjects(l1, keysOf("a", 0, 1), LAYOUT);
  const staged = stage(l1, keysOf("b", 2));
  assertEquals([l1.usedBytesOf("a"), l1.usedBytesOf("b"), l1.usedBytesOf("c")], [
    2 * SIZE,
    SIZE,
    0,
  ]);
  assertEquals([...l1.usageBySalt()], [["a", 2 * SIZE], ["b", SIZE]]);
  l1.usageBySalt().set("a", 0);
  assertEquals(l1.usedBytesOf("a"), 2 * SIZE, "a copy was given out");
  l1.finishWriteAndDelete(staged);
  l1.reserveRead(keysOf("a", 0));
  l1.forget(() => true);
  assertEquals([...l1.usageBySalt()], [], "a doomed object counts for no salt");
});

Deno.test("a salt at its quota evicts only its own objects, in the policy's order", () => {
  const { l1, heard } = withQuota(3);
  writeObjects(l1, keysOf("b", 0), LAYOUT);
  for (const n of [1, 2, 3]) writeObjects(l1, keysOf("a", n), LAYOUT);
  l1.touch(keysOf("a", 1));
  heard.length = 0;
  assertEquals(statuses(l1.reserveWrite(keysOf("a", 4, 5), LAYOUT)), ["success", "success"]);
  assertEquals(heard, ["evicted 2", "evicted 3"]);
  assertEquals([residentsOf(l1, "a"), residentsOf(l1, "b")], [[1], [0]]);
  assertEquals(l1.usedBytesOf("a"), 3 * SIZE);
});

Deno.test("a batch beyond a quota is refused as a whole, and evicts nothing", () => {
  const { l1, heard } = withQuota(3);
  writeObjects(l1, keysOf("a", 1, 2), LAYOUT);
  heard.length = 0;
  const batch = [...keysOf("b", 9), ...keysOf("a", 3, 4, 5, 6)];
  assertEquals(new Set(statuses(l1.reserveWrite(batch, LAYOUT))), new Set(["quota-exceeded"]));
  l1.markDirty(keysOf("a", 1, 2));
  assertEquals(statuses(l1.reserveWrite(keysOf("a", 3, 4), LAYOUT)), [
    "quota-exceeded",
    "quota-exceeded",
  ]);
  assertEquals(statuses(l1.reserveWrite(keysOf("a", 3), LAYOUT)), ["success"]);
  assertEquals(heard, []);
  assertEquals(pick(l1, "quotaExceededCount", "outOfMemoryCount", "usedBytes"), [2, 0, 3 * SIZE]);
});

Deno.test("a quota of 0 accepts nothing, and other salts have no limit", () => {
  const { l1 } = withQuota(0);
  assertEquals(statuses(l1.reserveWrite(keysOf("a", 0), LAYOUT)), ["quota-exceeded"]);
  writeObjects(l1, keysOf("b", 0, 1, 2, 3), LAYOUT);
  assertEquals(l1.usedBytesOf("b"), 4 * SIZE);
});

Deno.test("a quota counts what is staged, but not what has expired", async () => {
  const { l1, clock } = withQuota(2);
  l1.reserveWrite(keysOf("a", 0, 1), LAYOUT, { writer: "gone" });
  assertEquals(statuses(l1.reserveWrite(keysOf("a", 2), LAYOUT)), ["quota-exceeded"]);
  await clock.advance(WRITE_TTL_MS);
  assertEquals(statuses(l1.reserveWrite(keysOf("a", 2), LAYOUT)), ["success"]);
  assertEquals(l1.usedBytesOf("a"), SIZE);
});

Deno.test("a quota does not evict what the batch names", () => {
  const { l1 } = withQuota(2);
  writeObjects(l1, keysOf("a", 0, 1), LAYOUT);
  assertEquals(statuses(l1.reserveWrite(keysOf("a", 0, 2), LAYOUT)), [
    "already-present",
    "success",
  ]);
  assertEquals(residentsOf(l1, "a"), [0]);
  assertEquals(statuses(l1.reserveWrite(keysOf("a", 0, 3), LAYOUT)), [
    "quota-exceeded",
    "quota-exceeded",
  ]);
});

Deno.test("a quota evicts nothing for a batch for which there is no memory", () => {
  const { l1, heard } = withQuota(2, 4);
  writeObjects(l1, keysOf("a", 0, 1), LAYOUT);
  writeObjects(l1, keysOf("b", 2, 3), LAYOUT);
  l1.markDirty(keysOf("b", 2, 3));
  heard.length = 0;
  const batch = [...keysOf("a", 4, 5), ...keysOf("b", 6)];
  assertEquals(statuses(l1.reserveWrite(batch, LAYOUT))[0], "out-of-memory");
  assertEquals(heard, []);
});

Deno.test("memory pressure evicts in the order of the policy, whatever the quotas", () => {
  const { l1, heard } = withQuota(3, 4);
  writeObjects(l1, keysOf("b", 0), LAYOUT);
  for (const n of [1, 2, 3]) writeObjects(l1, keysOf("a", n), LAYOUT);
  heard.length = 0;
  l1.reserveWrite(keysOf("c", 4), LAYOUT);
  assertEquals(heard, ["evicted 0"]);
});

Deno.test("a quota that was lowered counts at the next reservation", () => {
  const quotas = new Map([["a", 4 * SIZE]]);
  const { l1, heard } = setUp(8, { quotaOf: (salt) => quotas.get(salt) });
  writeObjects(l1, keysOf("a", 0, 1, 2, 3), LAYOUT);
  heard.length = 0;
  quotas.set("a", 2 * SIZE);
  assertEquals(l1.usedBytesOf("a"), 4 * SIZE);
  l1.reserveWrite(keysOf("a", 4), LAYOUT);
  assertEquals(heard, ["evicted 3", "evicted 2", "evicted 1"]);
});

Deno.test("L1Cache.evictSalt() evicts one salt's objects down to a size", async () => {
  const { l1, clock, heard } = setUp(16);
  l1.reserveWrite(keysOf("a", 9), LAYOUT, { writer: "gone" });
  await clock.advance(WRITE_TTL_MS);
  writeObjects(l1, keysOf("b", 0), LAYOUT);
  for (const n of [1, 2, 3]) writeObjects(l1, keysOf("a", n), LAYOUT);
  l1.markDirty(keysOf("a", 1));
  heard.length = 0;
  assertEquals(l1.evictSalt("a", 4 * SIZE), 0);
  assertEquals(l1.evictSalt("a", 2 * SIZE), 2 * SIZE, "the expired one first");
  assertEquals(heard, ["evicted 2"]);
  assertEquals(l1.evictSalt("a", 0), SIZE);
  assertEquals(l1.evictSalt("unused", 0), 0);
  assertEquals([residentsOf(l1, "a"), residentsOf(l1, "b")], [[1], [0]]);
  assert(l1.usedBytesOf("b") === SIZE);
});
