import { assert, assertEquals } from "@std/assert";
import {
  LAYOUT,
  lease,
  pick,
  READ_TTL_MS,
  residents,
  setUp,
  SIZE,
  stage,
  statuses,
  writeObjects,
} from "../../support/l1.ts";
import { testKey, testKeys } from "../../support/objects.ts";

// markDirty(), markClean()

Deno.test("L1Cache.markDirty() says which objects are resident, and therefore marked", () => {
  const { l1 } = setUp();
  writeObjects(l1, testKeys(2), LAYOUT);
  l1.reserveWrite([testKey(2)], LAYOUT);
  assertEquals(l1.markDirty(testKeys(4)).toString(), "1100");
  assertEquals(pick(l1, "heldCount", "heldBytes"), [2, 2 * SIZE]);
  l1.markClean(testKeys(4));
  assertEquals(pick(l1, "heldCount", "heldBytes"), [0, 0]);
});

Deno.test("a dirty object is not evicted, deleted, cleared or released", async () => {
  const { l1, clock, heard } = setUp(2);
  writeObjects(l1, testKeys(2), LAYOUT);
  l1.markDirty([testKey(1)]);
  await clock.advance(READ_TTL_MS * 10);
  heard.length = 0;
  assertEquals(statuses(l1.reserveWrite([testKey(5)], LAYOUT)), ["success"]);
  assertEquals(statuses(l1.reserveWrite([testKey(6)], LAYOUT)), ["out-of-memory"]);
  assertEquals(l1.delete([testKey(1)]), ["key-is-locked"]);
  l1.clear();
  l1.release([testKey(1)]);
  assertEquals(l1.evictTo(0), 0);
  assertEquals(l1.evictSalt("", 0), 0);
  assertEquals(heard, ["evicted 0"], "it was the last to leave");
  l1.markClean([testKey(1)]);
  assertEquals(statuses(l1.reserveWrite([testKey(6)], LAYOUT)), ["success"]);
  assertEquals(heard, ["evicted 0", "evicted 1"]);
});

Deno.test("an object that is marked twice is clean after two markClean() calls", () => {
  const { l1 } = setUp();
  writeObjects(l1, testKeys(1), LAYOUT);
  l1.markDirty([testKey(0), testKey(0)]);
  l1.markClean(testKeys(1));
  assertEquals(l1.delete(testKeys(1)), ["key-is-locked"]);
  assertEquals(pick(l1, "heldCount"), [1]);
  l1.markClean(testKeys(1));
  assertEquals(l1.delete(testKeys(1)), ["success"]);
});

Deno.test("L1Cache.markClean() of a clean object changes nothing", () => {
  const { l1 } = setUp();
  writeObjects(l1, testKeys(1), LAYOUT);
  l1.markClean(testKeys(3));
  l1.markDirty(testKeys(1));
  assertEquals(l1.delete(testKeys(1)), ["key-is-locked"]);
});

Deno.test("a dirty mark belongs to the object, not to its successor under the same key", () => {
  const { l1 } = setUp();
  writeObjects(l1, testKeys(1), LAYOUT);
  l1.markDirty(testKeys(1));
  l1.forget(() => true);
  writeObjects(l1, testKeys(1), LAYOUT);
  assertEquals(pick(l1, "heldCount"), [0]);
  assertEquals(l1.delete(testKeys(1)), ["success"]);
});

Deno.test("a dirty transient object outlives its last lease", () => {
  const { l1 } = setUp();
  writeObjects(l1, testKeys(1), LAYOUT, { transient: true });
  l1.markDirty(testKeys(1));
  l1.finishRead([lease(l1, 0)]);
  assert(l1.has(testKey(0)));
  l1.markClean(testKeys(1));
  l1.finishRead([lease(l1, 0)]);
  assert(!l1.has(testKey(0)));
});

// pin(), unpin()

Deno.test("L1Cache.pin() pins keys, resident or not", () => {
  const { l1 } = setUp(3);
  l1.pin([testKey(0), testKey(1), testKey(0)]);
  assertEquals(pick(l1, "protectedCount"), [2]);
  assertEquals([0, 1, 2].map((n) => l1.pinned.has(testKey(n).id)), [true, true, false]);
  writeObjects(l1, testKeys(3), LAYOUT);
  assertEquals(statuses(l1.reserveWrite(testKeys(2, 5), LAYOUT)), [
    "out-of-memory",
    "out-of-memory",
  ]);
  assertEquals(residents(l1), [0, 1, 2]);
  assertEquals([l1.evictTo(0), l1.evictSalt("", 0)], [SIZE, 0]);
  l1.clear();
  l1.release(testKeys(3));
  assertEquals(residents(l1), [0, 1]);
  l1.unpin([testKey(1), testKey(9)]);
  assertEquals([l1.evictTo(0), pick(l1, "protectedCount")], [SIZE, [1]]);
  assertEquals(residents(l1), [0]);
});

Deno.test("a pinned object can be deleted and forgotten, and its key stays pinned", () => {
  const { l1, heard } = setUp();
  l1.pin(testKeys(2));
  writeObjects(l1, testKeys(2), LAYOUT);
  heard.length = 0;
  assertEquals(l1.delete([testKey(0)]), ["success"]);
  assertEquals(l1.forget(() => true), { objects: 1, bytes: SIZE });
  assertEquals(heard, ["deleted 0", "forgotten 1"]);
  writeObjects(l1, testKeys(2), LAYOUT);
  l1.clear();
  assertEquals(residents(l1), [0, 1]);
});

Deno.test("pins of resident objects take effect at once", () => {
  const { l1 } = setUp(2);
  writeObjects(l1, testKeys(2), LAYOUT);
  l1.pin([testKey(1)]);
  assertEquals(statuses(l1.reserveWrite([testKey(5)], LAYOUT)), ["success"]);
  assertEquals(residents(l1), [1]);
  assertEquals(statuses(l1.reserveWrite([testKey(6)], LAYOUT)), ["out-of-memory"]);
  l1.unpin([testKey(1)]);
  assertEquals(statuses(l1.reserveWrite([testKey(6)], LAYOUT)), ["success"]);
});

Deno.test("a pinned transient object outlives its last lease", () => {
  const { l1 } = setUp();
  l1.pin(testKeys(1));
  writeObjects(l1, testKeys(1), LAYOUT, { transient: true });
  l1.finishRead([lease(l1, 0)]);
  assert(l1.has(testKey(0)));
});

// release()

Deno.test("L1Cache.release() removes objects that are not in use, and notifies listeners", () => {
  const { l1, heard } = setUp();
  writeObjects(l1, testKeys(3), LAYOUT);
  l1.markDirty([testKey(1)]);
  l1.pin([testKey(2)]);
  heard.length = 0;
  l1.release(testKeys(5));
  assertEquals(heard, ["released 0"]);
  assertEquals(residents(l1), [1, 2]);
  assertEquals(pick(l1, "temporaryCount"), [0]);
});

Deno.test("L1Cache.release() removes a leased object with its last lease", () => {
  const { l1, heard } = setUp();
  writeObjects(l1, testKeys(1), LAYOUT);
  const leases = [lease(l1, 0), lease(l1, 0)];
  heard.length = 0;
  l1.release(testKeys(1));
  assertEquals(residents(l1), [0]);
  assertEquals(pick(l1, "temporaryCount"), [1]);
  l1.finishRead(leases.slice(1));
  assert(leases.slice(0, 1).every((each) => l1.isLeased(each)));
  l1.finishRead(leases.slice(0, 1));
  assertEquals(heard, ["temporary 0"]);
  assertEquals(pick(l1, "usedBytes"), [0]);
});

Deno.test("L1Cache.release() ignores staged objects", () => {
  const { l1 } = setUp();
  const staged = stage(l1, testKeys(1));
  l1.release(testKeys(1));
  assertEquals(l1.finishWrite(staged), ["success"]);
  assertEquals(pick(l1, "temporaryCount"), [0]);
});
