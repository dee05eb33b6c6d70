import { assert, assertEquals } from "@std/assert";
import {
  LAYOUT,
  lease,
  nameOf,
  pick,
  READ_TTL_MS,
  residents,
  setUp,
  SIZE,
  statuses,
  WRITE_TTL_MS,
  writeObjects,
} from "../../support/l1.ts";
import { testKey, testKeys, testLayout } from "../../support/objects.ts";

Deno.test("a batch that cannot fit evicts nothing", () => {
  const { l1, heard } = setUp(4);
  for (const key of testKeys(4)) writeObjects(l1, [key], LAYOUT);
  const held = lease(l1, 3);
  heard.length = 0;
  assertEquals(statuses(l1.reserveWrite(testKeys(4, 10), LAYOUT))[0], "out-of-memory");
  assertEquals(
    statuses(l1.reserveWrite([testKey(10)], testLayout(3 * SIZE + 4)))[0],
    "out-of-memory",
  );
  assertEquals(heard, []);
  assertEquals(residents(l1), [0, 1, 2, 3]);
  assertEquals(statuses(l1.reserveWrite(testKeys(3, 10), LAYOUT))[0], "success");
  l1.finishRead([held]);
});

Deno.test("expired leases count as evictable when a batch is planned", async () => {
  const { l1, clock } = setUp(4);
  writeObjects(l1, testKeys(4), LAYOUT);
  const leases = [0, 1, 2, 3].map((n) => lease(l1, n));
  assertEquals(statuses(l1.reserveWrite(testKeys(4, 10), LAYOUT))[0], "out-of-memory");
  await clock.advance(READ_TTL_MS - 1);
  lease(l1, 0);
  await clock.advance(1);
  assertEquals(statuses(l1.reserveWrite(testKeys(4, 10), LAYOUT))[0], "out-of-memory");
  assertEquals(residents(l1), [0, 1, 2, 3]);
  assertEquals(statuses(l1.reserveWrite(testKeys(3, 10), LAYOUT))[0], "success");
  assertEquals(residents(l1), [0]);
  assert(l1.isLeased(leases[0] as (typeof leases)[0]), "the younger lease keeps it");
  await clock.advance(READ_TTL_MS);
  assertEquals(statuses(l1.reserveWrite([testKey(20)], LAYOUT))[0], "success");
});

Deno.test("a batch that fails because of fragmentation reserves nothing", () => {
  const { l1 } = setUp(4);
  writeObjects(l1, testKeys(4), LAYOUT);
  const held = lease(l1, 1);
  assertEquals(held.range.byteOffset, SIZE);
  const batch = testKeys(2, 10);
  assertEquals(statuses(l1.reserveWrite(batch, testLayout(SIZE * 3 / 2))), [
    "out-of-memory",
    "out-of-memory",
  ]);
  assertEquals(pick(l1, "usedBytes", "stagingObjectCount"), [SIZE, 0]);
});

Deno.test("a batch evicts nothing that it names", () => {
  const { l1, heard } = setUp(3);
  for (const key of testKeys(3)) writeObjects(l1, [key], LAYOUT);
  heard.length = 0;
  assertEquals(statuses(l1.reserveWrite([testKey(0), testKey(5)], LAYOUT)), [
    "already-present",
    "success",
  ]);
  assertEquals(heard, ["evicted 1"]);
  const batch = [testKey(0), testKey(2), testKey(6)];
  assertEquals(statuses(l1.reserveWrite(batch, LAYOUT))[0], "out-of-memory");
  assertEquals(heard, ["evicted 1"]);
});

Deno.test("L1Cache.evictTo() evicts in the policy's order down to a size", () => {
  const { l1, heard } = setUp(8);
  for (const key of testKeys(5)) writeObjects(l1, [key], LAYOUT);
  const held = lease(l1, 1);
  heard.length = 0;
  assertEquals(l1.evictTo(5 * SIZE), 0);
  assertEquals(l1.evictTo(3 * SIZE + 1), 2 * SIZE);
  assertEquals(heard, ["evicted 0", "evicted 2"]);
  assertEquals(l1.evictTo(0), 2 * SIZE);
  assertEquals([residents(l1), l1.usedBytes], [[1], SIZE]);
  assertEquals(pick(l1, "evictedCount"), [4]);
  l1.finishRead([held]);
});

Deno.test("L1Cache.evictTo() frees expired reservations before it evicts", async () => {
  const { l1, clock, heard } = setUp(8);
  l1.reserveWrite(testKeys(2, 20), LAYOUT, { writer: "gone" });
  await clock.advance(WRITE_TTL_MS);
  writeObjects(l1, testKeys(2), LAYOUT);
  heard.length = 0;
  assertEquals(l1.evictTo(2 * SIZE), 2 * SIZE);
  assertEquals(heard, []);
});

Deno.test("L1Cache.evictionCandidates() lists what would be evicted next, dirty or not, without evicting", () => {
  const { l1, heard } = setUp(8);
  for (const key of testKeys(6)) writeObjects(l1, [key], LAYOUT);
  l1.markDirty([testKey(0)]);
  const held = lease(l1, 1);
  l1.pin([testKey(2)]);
  l1.touch([testKey(3)]);
  heard.length = 0;
  const candidates = (bytes: number): string[] =>
    l1.evictionCandidates(bytes).map(({ key }) => nameOf(key));
  assertEquals(candidates(0), []);
  assertEquals(candidates(1), ["0"]);
  assertEquals(candidates(2 * SIZE), ["0", "4"]);
  assertEquals(candidates(100 * SIZE), ["0", "4", "5", "3"]);
  assertEquals(l1.evictionCandidates(1).map(({ layout }) => layout), [LAYOUT]);
  assertEquals([heard, residents(l1)], [[], [0, 1, 2, 3, 4, 5]]);
  assertEquals(candidates(2 * SIZE), ["0", "4"], "the same again");
  l1.finishRead([held]);
  assertEquals(candidates(2 * SIZE), ["0", "1"]);
});

Deno.test("L1Cache tells its capacity and its use", () => {
  const { l1 } = setUp(8);
  writeObjects(l1, testKeys(2), LAYOUT);
  l1.reserveWrite([testKey(2)], testLayout(100));
  assertEquals([l1.capacityBytes, l1.usedBytes], [8 * SIZE, 2 * SIZE + 256]);
});
