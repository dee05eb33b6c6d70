import { assert, assertEquals, assertExists, assertThrows } from "@std/assert";
import type { StagedObject } from "../../../src/l1/l1_cache.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import type { Slab } from "../../../src/memory/memory_device.ts";
import { WebGpuDevice } from "../../../src/memory/webgpu_device.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { deviceTest, gpuTest } from "../../support/devices.ts";
import {
  assertNoLocks,
  assertRanges,
  finishAndRead,
  LAYOUT,
  lease,
  leasesOf,
  lruL1,
  nameOf,
  pick,
  READ_TTL_MS,
  residents,
  setUp,
  SIZE,
  stage,
  stagedOf,
  statuses,
  WRITE_TTL_MS,
  writeObjects,
} from "../../support/l1.ts";
import { testKey, testKeys, testLayout } from "../../support/objects.ts";

deviceTest("objects that were written can be read, byte for byte", async (device) => {
  using l1 = lruL1(device, new ManualClock(), 8 * SIZE);
  const keys = testKeys(5);
  writeObjects(l1, keys, LAYOUT);
  await l1.filled();
  const leases = leasesOf(l1.reserveRead(keys));
  assertEquals(leases.map(({ key }) => key.id), keys.map(({ id }) => id));
  assertEquals(leases.map(({ layout }) => layout), keys.map(() => LAYOUT));
  await assertRanges(device, leases.map(({ range }) => range), keys);
  assertEquals(l1.finishRead(leases), keys.map(() => "success"));
  assertNoLocks(l1);
});

// reserveWrite()

Deno.test("L1Cache.reserveWrite() reserves a range of the layout's size for each key", () => {
  const { l1 } = setUp();
  const reservations = l1.reserveWrite(testKeys(3), LAYOUT);
  const staged = stagedOf(reservations);
  assertEquals(staged.map(({ key }) => key.id), testKeys(3).map(({ id }) => id));
  assertEquals(staged.map(({ layout }) => layout), Array(3).fill(LAYOUT));
  assertEquals(staged.map(({ range }) => range.byteLength), [SIZE, SIZE, SIZE]);
  assertEquals(new Set(staged.map(({ range }) => range.byteOffset)).size, 3);
  assertEquals(pick(l1, "stagingObjectCount", "stagingBytes", "writeLockedCount"), [
    3,
    3 * SIZE,
    3,
  ]);
});

Deno.test("L1Cache.reserveWrite() of no key does nothing", () => {
  const { l1 } = setUp();
  assertEquals(l1.reserveWrite([], LAYOUT), []);
  assertEquals(pick(l1, "usedBytes", "outOfMemoryCount"), [0, 0]);
});

Deno.test("what is staged is invisible", () => {
  const { l1 } = setUp();
  l1.reserveWrite(testKeys(1), LAYOUT);
  assertEquals(statuses(l1.reserveRead(testKeys(1))), ["key-not-exist"]);
  assert(!l1.has(testKey(0)));
});

Deno.test("L1Cache.reserveWrite() refuses what is resident, leased or not", () => {
  const { l1 } = setUp();
  writeObjects(l1, testKeys(2), LAYOUT);
  lease(l1, 1);
  assertEquals(statuses(l1.reserveWrite(testKeys(3), LAYOUT)), [
    "already-present",
    "already-present",
    "success",
  ]);
});

Deno.test("L1Cache.reserveWrite() refuses what the same writer has staged", () => {
  const { l1 } = setUp();
  assertEquals(statuses(l1.reserveWrite(testKeys(1), LAYOUT)), ["success"]);
  assertEquals(statuses(l1.reserveWrite(testKeys(2), LAYOUT)), ["already-present", "success"]);
});

Deno.test("L1Cache.reserveWrite() gives a key that a batch names twice one range", () => {
  const { l1 } = setUp();
  const reservations = l1.reserveWrite([testKey(0), testKey(1), testKey(0)], LAYOUT);
  assertEquals(statuses(reservations), ["success", "success", "already-present"]);
  assertEquals(pick(l1, "usedBytes", "stagingObjectCount"), [2 * SIZE, 2]);
  assertEquals(l1.finishWrite(stagedOf(reservations.slice(0, 2))), ["success", "success"]);
  l1.clear();
  assertEquals(pick(l1, "usedBytes"), [0]);
});

Deno.test("a call that finishes an object twice finishes it once", () => {
  const { l1 } = setUp();
  const twice = (): StagedObject[] => {
    const [staged] = stage(l1, testKeys(1)) as [StagedObject];
    return [staged, staged];
  };
  assertEquals(l1.finishWriteAndDelete(twice()), ["success", "key-not-exist"]);
  const reservations = finishAndRead(l1, twice());
  assertEquals(statuses(reservations), ["success", "key-not-exist"]);
  l1.finishRead(leasesOf(reservations.slice(0, 1)));
  assertNoLocks(l1);
  assertEquals(l1.delete(testKeys(1)), ["success"]);
  assertEquals(l1.finishWrite(twice()), ["success", "key-not-exist"]);
  assertEquals(l1.delete([testKey(0), testKey(0)]), ["success", "key-not-exist"]);
  assertEquals(pick(l1, "usedBytes", "totalObjectCount"), [0, 0]);
});

Deno.test("L1Cache.reserveWrite() reserves all of a batch or nothing", () => {
  const { l1 } = setUp(4);
  l1.reserveWrite(testKeys(2), LAYOUT, { writer: "other" });
  const batch = testKeys(3, 10);
  assertEquals(statuses(l1.reserveWrite(batch, LAYOUT)), [
    "out-of-memory",
    "out-of-memory",
    "out-of-memory",
  ]);
  assertEquals(pick(l1, "usedBytes", "stagingObjectCount", "outOfMemoryCount"), [2 * SIZE, 2, 1]);
  assertEquals(statuses(l1.reserveWrite(batch.slice(0, 2), LAYOUT)), ["success", "success"]);
});

Deno.test("an object that is larger than the cache evicts nothing", () => {
  const { l1 } = setUp(4);
  writeObjects(l1, testKeys(4), LAYOUT);
  assertEquals(l1.maxObjectBytes, 4 * SIZE);
  const tooLarge = testLayout(4 * SIZE + 4);
  assertEquals(statuses(l1.reserveWrite([testKey(9)], tooLarge)), ["out-of-memory"]);
  assertEquals(residents(l1), [0, 1, 2, 3]);
});

Deno.test("the largest object finds room, whatever lay there before", () => {
  const { l1 } = setUp(8, { slabBytes: 2 * SIZE });
  writeObjects(l1, testKeys(7), LAYOUT);
  writeObjects(l1, [testKey(9)], testLayout(l1.maxObjectBytes));
  assertEquals(residents(l1), [9]);
  writeObjects(l1, testKeys(1), LAYOUT);
  assertEquals(residents(l1), [0]);
});

// Several writers

deviceTest("writers stage the same key at a time, each in a range of its own", async (device) => {
  using l1 = lruL1(device, new ManualClock(), 8 * SIZE);
  const keys = testKeys(1);
  const [a] = stage(l1, keys, LAYOUT, { writer: "a" }) as [StagedObject];
  const [b] = stage(l1, keys, LAYOUT, { writer: "b" }) as [StagedObject];
  assert(a.range.byteOffset !== b.range.byteOffset);
  device.upload(b.range, [new Uint8Array(SIZE).fill(0xbb)]);
  assertEquals(l1.finishWriteAndDelete([b]), ["success"]);
  writeObjects(l1, keys, LAYOUT);
  assertEquals(l1.finishWrite([a]), ["success"], "the first one's bytes stay");
  await l1.filled();
  await assertRanges(device, leasesOf(l1.reserveRead(keys)).map(({ range }) => range), keys);
  assertEquals(pick(l1, "totalObjectCount", "usedBytes"), [1, SIZE]);
});

Deno.test("objects of another origin cannot be finished", () => {
  const { l1 } = setUp();
  const [{ key, layout, range }] = stage(l1, testKeys(1)) as [StagedObject];
  const { l1: other } = setUp();
  for (const foreign of [...stage(other, testKeys(1)), { key, layout, range }]) {
    assert(!l1.isReserved(foreign));
    assertEquals(l1.finishWrite([foreign]), ["key-not-exist"]);
    assertEquals(statuses(finishAndRead(l1, [foreign])), ["key-not-exist"]);
    assertEquals(l1.finishWriteAndDelete([foreign]), ["key-not-exist"]);
  }
  other.forget(() => true);
  assertEquals(pick(l1, "stagingObjectCount", "usedBytes"), [1, SIZE]);
});

Deno.test("an object doomed in another cache is freed only there", () => {
  const [{ l1 }, { l1: other }] = [setUp(), setUp()];
  const staged = stage(other, testKeys(1));
  other.forget(() => true);
  assertEquals(l1.finishWrite(staged), ["key-not-exist"]);
  assertEquals(pick(other, "leavingCount", "usedBytes"), [1, SIZE]);
  assertEquals(other.finishWrite(staged), ["key-not-exist"]);
  assertEquals(pick(other, "leavingCount", "usedBytes"), [0, 0]);
});

Deno.test("the slower of two writers drops its copy, and still succeeds", () => {
  const { l1, heard } = setUp();
  const stageFor = (writer: string): StagedObject[] => stage(l1, testKeys(2), LAYOUT, { writer });
  const [a, b, c] = [stageFor("a"), stageFor("b"), stageFor("c")];
  assertEquals(l1.finishWrite(a), ["success", "success"]);
  assertEquals(l1.finishWrite(b), ["success", "success"]);
  const leases = leasesOf(finishAndRead(l1, c));
  assertEquals(pick(l1, "usedBytes", "stagingObjectCount", "readLockedCount"), [2 * SIZE, 0, 2]);
  assertEquals(heard, ["written 0 1"], "written through once");
  l1.finishRead(leases);
});

// finishWrite(), finishWriteAndReserveRead(), finishWriteAndDelete()

Deno.test("L1Cache.finishWrite() reports each object: staged, finished before", () => {
  const { l1 } = setUp();
  const staged = stage(l1, testKeys(2));
  assertEquals(l1.finishWrite(staged.slice(0, 1)), ["success"]);
  assertEquals(l1.finishWrite(staged), ["key-not-exist", "success"]);
  assertEquals(residents(l1), [0, 1]);
});

Deno.test("a resident object is not discarded by its writer", () => {
  const { l1 } = setUp();
  const staged = stage(l1, testKeys(1));
  l1.finishWrite(staged);
  const held = lease(l1, 0);
  assertEquals(l1.finishWriteAndDelete(staged), ["key-not-exist"]);
  l1.forget(() => true);
  assertEquals(l1.finishWrite(staged), ["key-not-exist"]);
  assertEquals([l1.isLeased(held), ...pick(l1, "usedBytes")], [true, SIZE]);
});

Deno.test("L1Cache.finishWriteAndReserveRead() makes objects resident and leases them", () => {
  const { l1, heard } = setUp(2);
  const staged = stage(l1, testKeys(2), LAYOUT, { writer: "prefetch:1" });
  const leases = leasesOf(finishAndRead(l1, staged));
  assert(leases.every((each) => l1.isLeased(each)));
  assertEquals(statuses(l1.reserveWrite([testKey(5)], LAYOUT)), ["out-of-memory"]);
  assertEquals(heard, [], "what came from an adapter is not written through again");
  l1.finishRead(leases);
  assertEquals(statuses(l1.reserveWrite([testKey(5)], LAYOUT)), ["success"]);
  assertEquals(heard, ["evicted 1"], "the tail first");
});

Deno.test("L1Cache.finishWriteAndDelete() frees what was never visible, without notifying listeners", () => {
  const { l1, heard } = setUp();
  const staged = stage(l1, testKeys(2));
  assertEquals(l1.finishWriteAndDelete(staged), ["success", "success"]);
  assertEquals(pick(l1, "usedBytes", "totalObjectCount"), [0, 0]);
  assertEquals(statuses(l1.reserveRead(testKeys(1))), ["key-not-exist"]);
  assertEquals(l1.finishWriteAndDelete(staged), ["key-not-exist", "key-not-exist"]);
  assertEquals(heard, []);
});

// Write locks that expire

Deno.test("L1Cache.finishWrite() is refused once the write lock has expired", async () => {
  const { l1, clock, heard } = setUp();
  const [first, second] = stage(l1, testKeys(2)) as [StagedObject, StagedObject];
  await clock.advance(WRITE_TTL_MS - 1);
  assertEquals(l1.finishWrite([first]), ["success"]);
  await clock.advance(1);
  assertEquals(l1.finishWrite([second]), ["key-in-wrong-state"]);
  assertEquals(statuses(finishAndRead(l1, [second])), ["key-in-wrong-state"]);
  assert(!l1.has(testKey(1)));
  assertEquals(heard, ["written 0"]);
  assertEquals(l1.finishWriteAndDelete([second]), ["success"]);
  assertEquals(pick(l1, "stagingObjectCount", "usedBytes"), [0, SIZE]);
});

Deno.test("an expired reservation is handed over to the same writer, with a lock of its own", async () => {
  const { l1, clock } = setUp(1);
  const expired = stage(l1, testKeys(1));
  await clock.advance(WRITE_TTL_MS);
  assertEquals(pick(l1, "writeLockedCount", "stagingObjectCount"), [0, 1]);
  const live = stage(l1, testKeys(1));
  assertEquals(pick(l1, "writeLockedCount", "stagingObjectCount"), [1, 1]);
  await clock.advance(WRITE_TTL_MS - 1);
  assertEquals([...expired, ...live].map((each) => l1.isReserved(each)), [false, true]);
  assertEquals(l1.finishWrite(expired), ["key-not-exist"], "the room is another's");
  assertEquals(l1.finishWriteAndDelete(expired), ["key-not-exist"]);
  assertEquals(residents(l1), []);
  assertEquals(l1.finishWrite(live), ["success"]);
});

Deno.test("the memory of expired reservations is used before anything is evicted", async () => {
  const { l1, clock } = setUp(3);
  const gone = stage(l1, testKeys(2), LAYOUT, { writer: "gone" });
  await clock.advance(WRITE_TTL_MS);
  writeObjects(l1, [testKey(7)], LAYOUT);
  assertEquals(statuses(l1.reserveWrite(testKeys(2, 8), LAYOUT)), ["success", "success"]);
  assertEquals(residents(l1), [7]);
  assertEquals(l1.finishWrite(gone), ["key-not-exist", "key-not-exist"]);
});

Deno.test("a live reservation is never reclaimed", async () => {
  const { l1, clock } = setUp(2);
  const staged = stage(l1, testKeys(1));
  await clock.advance(WRITE_TTL_MS - 1);
  assertEquals(statuses(l1.reserveWrite(testKeys(2, 5), LAYOUT)), [
    "out-of-memory",
    "out-of-memory",
  ]);
  l1.clear();
  assertEquals(l1.delete(testKeys(1)), ["key-is-locked"]);
  assertEquals(l1.finishWrite(staged), ["success"]);
});

Deno.test("the lifetimes of locks and leases are configurable", async () => {
  const { l1, clock } = setUp(2, { writeTtlMs: 10, readTtlMs: 5 });
  assertEquals(pick(l1, "writeTtlMs", "readTtlMs"), [10, 5]);
  const [first, second] = stage(l1, testKeys(2)) as [StagedObject, StagedObject];
  await clock.advance(9);
  assertEquals(l1.finishWrite([first]), ["success"]);
  const held = lease(l1, 0);
  await clock.advance(1);
  assertEquals(l1.finishWrite([second]), ["key-in-wrong-state"]);
  await clock.advance(4);
  assert(!l1.isLeased(held));
});

// reserveRead(), finishRead(), leases

Deno.test("L1Cache.reserveRead() reports each key: resident, staged, missing", () => {
  const { l1 } = setUp();
  writeObjects(l1, testKeys(1), LAYOUT);
  l1.reserveWrite([testKey(1)], LAYOUT);
  assertEquals(statuses(l1.reserveRead(testKeys(3))), [
    "success",
    "key-not-exist",
    "key-not-exist",
  ]);
});

Deno.test("an object stays leased until every lease has ended", () => {
  const { l1 } = setUp();
  writeObjects(l1, testKeys(1), LAYOUT);
  const leases = [lease(l1, 0), lease(l1, 0), lease(l1, 0)];
  for (const each of leases) {
    assertEquals(l1.delete(testKeys(1)), ["key-is-locked"]);
    assert(l1.isLeased(each));
    assertEquals(l1.finishRead([each]), ["success"]);
    assert(!l1.isLeased(each));
  }
  assertEquals(l1.delete(testKeys(1)), ["success"]);
});

Deno.test("a lease can be ended once: a second time does not end another lease", () => {
  const { l1 } = setUp();
  writeObjects(l1, testKeys(1), LAYOUT);
  const [first, second] = [lease(l1, 0), lease(l1, 0)];
  assertEquals(l1.finishRead([first, first]), ["success", "key-in-wrong-state"]);
  assert(l1.isLeased(second));
  assertEquals(l1.delete(testKeys(1)), ["key-is-locked"]);
});

Deno.test("a lease that the cache did not create is not valid", () => {
  const { l1 } = setUp();
  writeObjects(l1, testKeys(1), LAYOUT);
  const { key, layout, range } = lease(l1, 0);
  assertEquals(l1.finishRead([{ key, layout, range }]), ["key-not-exist"]);
  assert(!l1.isLeased({ key, layout, range }));
  assertEquals(pick(l1, "readLockedCount"), [1]);
});

Deno.test("a lease is valid for its lifetime, and no longer", async () => {
  const { l1, clock } = setUp(1);
  writeObjects(l1, testKeys(1), LAYOUT);
  const held = lease(l1, 0);
  await clock.advance(READ_TTL_MS - 1);
  assert(l1.isLeased(held));
  assertEquals(statuses(l1.reserveWrite([testKey(1)], LAYOUT)), ["out-of-memory"]);
  await clock.advance(1);
  assert(!l1.isLeased(held));
  assertEquals(pick(l1, "readLockedCount"), [0]);
  assertEquals(l1.finishRead([held]), ["key-in-wrong-state"]);
  assertEquals(statuses(l1.reserveWrite([testKey(1)], LAYOUT)), ["success"]);
  assertEquals(l1.finishRead([held]), ["key-not-exist"]);
});

Deno.test("a new lease extends the earlier ones", async () => {
  const { l1, clock } = setUp();
  writeObjects(l1, testKeys(1), LAYOUT);
  const first = lease(l1, 0);
  await clock.advance(READ_TTL_MS - 1);
  const second = lease(l1, 0);
  await clock.advance(READ_TTL_MS - 1);
  assert(l1.isLeased(first) && l1.isLeased(second));
  assertEquals(l1.finishRead([first, second]), ["success", "success"]);
});

Deno.test("ending an expired lease does not end another one", async () => {
  const { l1, clock } = setUp(1);
  writeObjects(l1, testKeys(1), LAYOUT);
  const expired = [lease(l1, 0), lease(l1, 0)];
  await clock.advance(READ_TTL_MS);
  const live = lease(l1, 0);
  assertEquals(l1.finishRead(expired), ["key-in-wrong-state", "key-in-wrong-state"]);
  assert(!expired.some((each) => l1.isLeased(each)));
  assert(l1.isLeased(live));
  assertEquals(statuses(l1.reserveWrite([testKey(1)], LAYOUT)), ["out-of-memory"]);
  assertEquals(l1.finishRead([live]), ["success"]);
  assertEquals(l1.delete(testKeys(1)), ["success"]);
});

Deno.test("a lease on a removed object does not apply to its successor", async () => {
  const { l1, clock } = setUp(1);
  writeObjects(l1, testKeys(1), LAYOUT);
  const old = lease(l1, 0);
  await clock.advance(READ_TTL_MS);
  assertEquals(l1.delete(testKeys(1)), ["success"]);
  writeObjects(l1, testKeys(1), LAYOUT);
  const live = lease(l1, 0);
  assert(!l1.isLeased(old));
  assertEquals(l1.finishRead([old]), ["key-not-exist"]);
  assert(l1.isLeased(live));
});

// Transient objects

Deno.test("a transient object leaves L1 with its last lease, not before", () => {
  const { l1, heard } = setUp();
  writeObjects(l1, testKeys(1), LAYOUT, { transient: true });
  assertEquals(pick(l1, "temporaryCount"), [1]);
  const leases = [lease(l1, 0), lease(l1, 0)];
  l1.finishRead(leases.slice(0, 1));
  assert(l1.has(testKey(0)));
  l1.finishRead(leases.slice(1));
  assert(!l1.has(testKey(0)));
  assertEquals(pick(l1, "usedBytes", "temporaryCount"), [0, 0]);
  assertEquals(heard, ["temporary 0"], "never written through");
  assertEquals(l1.finishRead(leases), ["key-not-exist", "key-not-exist"]);
});

Deno.test("a transient object is evicted like any other while it is not leased", async () => {
  const { l1, clock, heard } = setUp(1);
  writeObjects(l1, testKeys(1), LAYOUT, { transient: true });
  lease(l1, 0);
  await clock.advance(READ_TTL_MS);
  writeObjects(l1, [testKey(1)], LAYOUT);
  assertEquals(heard, ["evicted 0", "written 1"]);
});

Deno.test("a transient object whose leases expired leaves L1 with the next lease", async () => {
  const { l1, clock } = setUp();
  writeObjects(l1, testKeys(1), LAYOUT, { transient: true });
  lease(l1, 0);
  await clock.advance(READ_TTL_MS);
  l1.finishRead([lease(l1, 0)]);
  assert(!l1.has(testKey(0)));
});

// Eviction

Deno.test("L1Cache.reserveWrite() evicts the least recently used objects, and no more than needed", () => {
  const { l1, heard } = setUp(4);
  for (const key of testKeys(4)) writeObjects(l1, [key], LAYOUT);
  l1.touch([testKey(0)]);
  heard.length = 0;
  l1.reserveWrite([testKey(10)], LAYOUT);
  assertEquals(heard, ["evicted 1"]);
  l1.reserveWrite(testKeys(2, 11), LAYOUT);
  assertEquals(heard, ["evicted 1", "evicted 2", "evicted 3"]);
  assertEquals(residents(l1), [0]);
  assertEquals(pick(l1, "evictedCount", "outOfMemoryCount"), [3, 0]);
});

Deno.test("the tail of a prefix is evicted before its head", () => {
  const { l1 } = setUp(5);
  writeObjects(l1, testKeys(5), LAYOUT);
  l1.reserveWrite(testKeys(2, 10), LAYOUT);
  assertEquals(residents(l1), [0, 1, 2]);
  l1.touch(testKeys(3));
  l1.reserveWrite([testKey(12)], LAYOUT);
  assertEquals(residents(l1), [0, 1]);
});

Deno.test("a lease does not count as a use", () => {
  const { l1 } = setUp(3);
  for (const key of testKeys(3)) writeObjects(l1, [key], LAYOUT);
  l1.finishRead([lease(l1, 0)]);
  l1.reserveWrite([testKey(10)], LAYOUT);
  assertEquals(residents(l1), [1, 2]);
});

Deno.test("leased objects are never evicted; others go instead", () => {
  const { l1 } = setUp(4);
  for (const key of testKeys(4)) writeObjects(l1, [key], LAYOUT);
  const leases = [lease(l1, 0), lease(l1, 2)];
  assertEquals(statuses(l1.reserveWrite(testKeys(2, 10), LAYOUT)), ["success", "success"]);
  assertEquals(residents(l1), [0, 2]);
  assertEquals(statuses(l1.reserveWrite([testKey(12)], LAYOUT)), ["out-of-memory"]);
  assert(leases.every((each) => l1.isLeased(each)));
});

Deno.test("an object of another size evicts as many as necessary", () => {
  const { l1 } = setUp(6);
  for (const key of testKeys(6)) writeObjects(l1, [key], LAYOUT);
  assertEquals(statuses(l1.reserveWrite([testKey(10)], testLayout(3 * SIZE))), ["success"]);
  assertEquals(residents(l1), [3, 4, 5]);
});

deviceTest("leased objects keep their bytes while others come and go", async (device) => {
  using l1 = lruL1(device, new ManualClock(), 8 * SIZE);
  const kept = testKeys(3);
  writeObjects(l1, kept, LAYOUT);
  await l1.filled();
  const leases = leasesOf(l1.reserveRead(kept));
  for (let n = 10; n < 40; n++) {
    writeObjects(l1, [testKey(n)], testLayout(256 * (1 + n % 8)));
  }
  await assertRanges(device, leases.map(({ range }) => range), kept);
  l1.finishRead(leases);
});

// Listeners

Deno.test("listeners hear of written objects in one call, in the order of the keys", () => {
  const { l1, heard } = setUp();
  const [a, b, c] = stage(l1, testKeys(3)) as [StagedObject, StagedObject, StagedObject];
  const transient = stage(l1, [testKey(3)], LAYOUT, { transient: true });
  l1.finishWriteAndDelete([b]);
  l1.finishWrite([c, b, ...transient, a]);
  assertEquals(heard, ["written 2 0"]);
  l1.finishWrite([b]);
  assertEquals(heard, ["written 2 0"], "nothing was written");
});

Deno.test("every listener hears what left and why", () => {
  const { l1, heard } = setUp(2);
  const alsoHeard: string[] = [];
  l1.addListener({ removed: (key, reason) => alsoHeard.push(`${reason} ${nameOf(key)}`) });
  writeObjects(l1, testKeys(2), LAYOUT);
  const staged = stage(l1, [testKey(2)]);
  l1.delete([testKey(0)]);
  l1.finishWrite(staged);
  l1.clear();
  const expected = ["evicted 1", "deleted 0", "deleted 2"];
  assertEquals(alsoHeard, expected);
  assertEquals(heard.filter((line) => !line.startsWith("written")), expected);
});

Deno.test("listeners are told when a call has done all its work, and may call the cache", () => {
  const { l1 } = setUp(4);
  const states: (readonly number[])[] = [];
  l1.addListener({
    written: () => states.push(residents(l1)),
    removed: () => {
      states.push(residents(l1));
      l1.reserveRead(testKeys(1));
      l1.delete(testKeys(4));
    },
  });
  writeObjects(l1, testKeys(3), LAYOUT);
  l1.delete(testKeys(3));
  assertEquals(states.splice(0), [[0, 1, 2], [], [], []]);
  writeObjects(l1, testKeys(3), LAYOUT);
  l1.clear();
  assertEquals(states.splice(0), [[0, 1, 2], [], [], []]);
  writeObjects(l1, testKeys(2), LAYOUT, { transient: true });
  l1.finishRead([lease(l1, 0), lease(l1, 1)]);
  assertEquals(states.splice(0), [[], []]);
  assertEquals(pick(l1, "usedBytes", "totalObjectCount"), [0, 0]);
  writeObjects(l1, testKeys(4, 20), LAYOUT);
  states.length = 0;
  l1.reserveWrite(testKeys(3, 30), LAYOUT);
  assertEquals(states.splice(0), [[20], [20], [20]]);
});

// delete(), clear(), dispose

Deno.test("L1Cache.delete() reports each key: resident, leased, staged, missing", () => {
  const { l1, heard } = setUp();
  writeObjects(l1, testKeys(2), LAYOUT);
  lease(l1, 1);
  l1.reserveWrite([testKey(2)], LAYOUT);
  heard.length = 0;
  assertEquals(l1.delete(testKeys(4)), [
    "success",
    "key-is-locked",
    "key-is-locked",
    "key-not-exist",
  ]);
  assertEquals(residents(l1), [1]);
  assertEquals(heard, ["deleted 0"]);
});

Deno.test("L1Cache.delete() frees an expired reservation, and leaves live ones", async () => {
  const { l1, clock } = setUp();
  l1.reserveWrite(testKeys(2), LAYOUT, { writer: "gone" });
  await clock.advance(WRITE_TTL_MS);
  const live = stage(l1, [testKey(1)], LAYOUT, { writer: "live" });
  assertEquals(l1.delete(testKeys(2)), ["key-not-exist", "key-is-locked"]);
  assertEquals(pick(l1, "usedBytes", "stagingObjectCount"), [SIZE, 1]);
  assertEquals(l1.finishWrite(live), ["success"]);
});

Deno.test("L1Cache.delete() removes a resident object beside which another writer stages", () => {
  const { l1 } = setUp();
  const slow = stage(l1, testKeys(1), LAYOUT, { writer: "slow" });
  writeObjects(l1, testKeys(1), LAYOUT);
  assertEquals(l1.delete(testKeys(1)), ["success"]);
  assertEquals(l1.finishWrite(slow), ["success"]);
  assert(l1.has(testKey(0)));
});

Deno.test("L1Cache.clear() removes what is neither leased nor written, and expired reservations", async () => {
  const { l1, clock } = setUp();
  l1.reserveWrite([testKey(9)], LAYOUT, { writer: "gone" });
  await clock.advance(WRITE_TTL_MS);
  writeObjects(l1, testKeys(4), LAYOUT);
  const held = lease(l1, 1);
  const live = stage(l1, [testKey(8)]);
  l1.clear();
  assertEquals(residents(l1), [1]);
  assertEquals(pick(l1, "usedBytes", "stagingObjectCount"), [2 * SIZE, 1]);
  l1.finishRead([held]);
  l1.finishWriteAndDelete(live);
  l1.clear();
  assertEquals(pick(l1, "usedBytes", "totalObjectCount", "fragmentation"), [0, 0, 0]);
});

Deno.test("a disposed cache is empty, its leases are invalid, and every call says so", () => {
  const { l1, heard } = setUp();
  writeObjects(l1, testKeys(2), LAYOUT);
  const staged = stage(l1, [testKey(5)]);
  const leases = leasesOf(l1.reserveRead(testKeys(2)));
  heard.length = 0;
  l1[Symbol.dispose]();
  assertEquals(heard, ["device-lost 0", "device-lost 1"]);
  assert(!leases.some((each) => l1.isLeased(each)));
  assertEquals(l1.finishRead(leases), ["key-not-exist", "key-not-exist"]);
  assertEquals(statuses(l1.reserveWrite(testKeys(1), LAYOUT)), ["device-lost"]);
  assertEquals(l1.finishWrite(staged), ["device-lost"]);
  assertEquals(statuses(finishAndRead(l1, staged)), ["device-lost"]);
  assertEquals(statuses(l1.reserveRead(testKeys(1))), ["device-lost"]);
  assertEquals(l1.finishWriteAndDelete(staged), ["key-not-exist"]);
  assertEquals(l1.delete(testKeys(1)), ["key-not-exist"]);
  l1.touch(testKeys(1));
  l1.clear();
  l1[Symbol.dispose]();
  assertEquals(heard, ["device-lost 0", "device-lost 1"], "told once");
  assertEquals(pick(l1, "isHealthy", "totalObjectCount", "usedBytes", "slabBytes"), [
    false,
    0,
    0,
    0,
  ]);
});

gpuTest(
  "a lost device invalidates all leases at once and accepts no objects",
  async (gpuDevice) => {
    using device = WebGpuDevice.adopt(gpuDevice);
    using l1 = lruL1(device, new ManualClock(), 8 * SIZE);
    writeObjects(l1, testKeys(1), LAYOUT);
    await l1.filled();
    const staged = stage(l1, [testKey(1)]);
    const held = lease(l1, 0);
    gpuDevice.destroy();
    await device.lost;
    assert(!l1.isLeased(held));
    assertEquals(l1.finishRead([held]), ["key-in-wrong-state"]);
    assertEquals(statuses(l1.reserveRead(testKeys(1))), ["device-lost"]);
    assertEquals(statuses(l1.reserveWrite([testKey(2)], LAYOUT)), ["device-lost"]);
    assertEquals(l1.finishWrite(staged), ["device-lost"]);
    assertEquals(pick(l1, "isHealthy"), [false]);
  },
);

// Memory that the device cannot allocate

/** Host memory that cannot allocate slab number `bad`. */
class PoorDevice extends HostDevice {
  readonly #bad: number;
  #created = 0;

  constructor(bad: number) {
    super();
    this.#bad = bad;
  }

  override createSlab(byteLength: number): Slab {
    const valid = Promise.resolve(this.#created++ !== this.#bad);
    return { ...super.createSlab(byteLength), valid };
  }
}

Deno.test("a slab that the device cannot allocate loses exactly its own objects", async () => {
  const options = { device: new PoorDevice(1), slabBytes: 2 * SIZE };
  const { l1, heard } = setUp(8, options);
  writeObjects(l1, testKeys(3), LAYOUT);
  const staged = stage(l1, [testKey(3)]);
  assertEquals([residents(l1), heard], [[], []], "nothing is known to be there");
  await l1.filled();
  assertEquals(residents(l1), [0, 1]);
  assertEquals(heard, ["written 0 1"], "what lay in the other slab was never visible");
  assertEquals(l1.finishWrite(staged), ["key-not-exist"]);
  assertEquals(
    pick(l1, "failedSlabCount", "isHealthy", "usedBytes", "slabs", "totalObjectCount"),
    [1, false, 2 * SIZE, 1, 2],
  );
  // The rest keeps working, within the memory that the device has.
  writeObjects(l1, testKeys(2, 10), LAYOUT);
  assertEquals(residents(l1), [10, 11]);
  assertEquals(statuses(l1.reserveWrite(testKeys(3, 20), LAYOUT))[0], "out-of-memory");
});

// Status

Deno.test("L1Cache.reportStatus() counts exactly", async () => {
  const { l1, clock } = setUp(16, { slabBytes: 8 * SIZE });
  l1.reserveWrite([testKey(0)], LAYOUT, { writer: "gone" });
  await clock.advance(WRITE_TTL_MS);
  writeObjects(l1, testKeys(3, 1), LAYOUT);
  writeObjects(l1, [testKey(4)], testLayout(1000), { transient: true });
  l1.reserveWrite(testKeys(2, 5), testLayout(512));
  l1.reserveWrite([testKey(1)], LAYOUT, { writer: "refused" });
  lease(l1, 1);
  lease(l1, 1);
  lease(l1, 4);
  l1.reserveWrite([testKey(30)], testLayout(64 * SIZE));
  assertEquals(l1.reportStatus(), {
    isHealthy: true,
    totalObjectCount: 7,
    writeLockedCount: 2,
    readLockedCount: 2,
    temporaryCount: 1,
    stagingObjectCount: 3,
    stagingBytes: 2 * SIZE,
    fillingObjectCount: 0,
    fillingBytes: 0,
    heldCount: 0,
    heldBytes: 0,
    protectedCount: 0,
    leavingCount: 0,
    leavingBytes: 0,
    usedBytes: 6 * SIZE,
    slabBytes: 8 * SIZE,
    capacityBytes: 16 * SIZE,
    largestFreeBytes: 2 * SIZE,
    slabs: 1,
    fragmentation: 0,
    usageRatio: 6 / 16,
    evictedCount: 0,
    outOfMemoryCount: 1,
    quotaExceededCount: 0,
    failedSlabCount: 0,
    unfilledCount: 0,
    writtenObjects: 3,
    writtenBytes: 3 * LAYOUT.byteLength,
    evictionPolicy: "LRU",
    invalidRankCount: 0,
    writeTtlMs: WRITE_TTL_MS,
    readTtlMs: READ_TTL_MS,
  });
});

Deno.test("L1Cache takes no memory before it needs any", () => {
  const { l1 } = setUp();
  assertEquals(pick(l1, "slabs", "slabBytes", "usageRatio"), [0, 0, 0]);
});

Deno.test("L1Cache refuses sizes that are not a multiple of 256", () => {
  assertThrows(() => setUp(1, { capacityBytes: 1000 }), RangeError, "capacityBytes");
  assertThrows(() => setUp(1, { slabBytes: 1000 }), RangeError, "slabBytes");
  assertExists(setUp(1).l1);
});
