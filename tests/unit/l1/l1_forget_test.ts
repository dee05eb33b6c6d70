import { assert, assertEquals, assertThrows } from "@std/assert";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import type { L1Cache, StagedObject } from "../../../src/l1/l1_cache.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { deviceTest } from "../../support/devices.ts";
import {
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
  statuses,
  WRITE_TTL_MS,
  writeObjects,
} from "../../support/l1.ts";
import { testKey, testKeys, testLayout } from "../../support/objects.ts";

function all(): boolean {
  return true;
}

function numbered(...numbers: number[]): (key: ObjectKey) => boolean {
  return (key) => numbers.includes(Number(nameOf(key)));
}

function leaving(l1: L1Cache): number[] {
  return pick(l1, "leavingCount", "leavingBytes") as number[];
}

Deno.test("L1Cache.forget() removes what passes the test, and counts it", () => {
  const { l1, heard } = setUp();
  writeObjects(l1, testKeys(3), testLayout(1000));
  const staged = stage(l1, testKeys(2, 3), testLayout(500));
  heard.length = 0;
  assertEquals(l1.forget(numbered(0, 2, 4, 9)), { objects: 3, bytes: 2500 });
  assertEquals(heard, ["forgotten 0", "forgotten 2"]);
  assertEquals(residents(l1), [1]);
  assertEquals(pick(l1, "usedBytes", "stagingObjectCount"), [1024 + 512 + 512, 1]);
  assertEquals(leaving(l1), [1, 512]);
  assertEquals(l1.forget(numbered(0, 4)), { objects: 0, bytes: 0 }, "they are gone already");
  assertEquals(l1.finishWrite(staged), ["success", "key-not-exist"]);
  assertEquals(leaving(l1), [0, 0]);
});

Deno.test("a test that throws forgets nothing", () => {
  const { l1 } = setUp();
  writeObjects(l1, testKeys(3), LAYOUT);
  const test = (key: ObjectKey): boolean => {
    if (nameOf(key) === "2") throw new Error("broken");
    return true;
  };
  assertThrows(() => l1.forget(test), Error, "broken");
  assertEquals(residents(l1), [0, 1, 2]);
});

Deno.test("L1Cache.forget() removes dirty, pinned and transient objects", () => {
  const { l1 } = setUp();
  writeObjects(l1, testKeys(2), LAYOUT);
  writeObjects(l1, [testKey(2)], LAYOUT, { transient: true });
  l1.markDirty([testKey(0)]);
  l1.pin([testKey(1)]);
  assertEquals(l1.forget(all), { objects: 3, bytes: 3 * SIZE });
  assertEquals(pick(l1, "usedBytes", "totalObjectCount", "heldCount", "leavingCount"), [
    0,
    0,
    0,
    0,
  ]);
});

deviceTest("an object forgotten while leased keeps its bytes for its readers", async (device) => {
  using l1 = lruL1(device, new ManualClock(), 4 * SIZE);
  writeObjects(l1, testKeys(2), LAYOUT);
  await l1.filled();
  const leases = leasesOf(l1.reserveRead(testKeys(2)));
  l1.forget(all);
  assertEquals(statuses(l1.reserveRead(testKeys(2))), ["key-not-exist", "key-not-exist"]);
  writeObjects(l1, testKeys(2, 10), LAYOUT);
  assertEquals(statuses(l1.reserveWrite(testKeys(3, 20), LAYOUT))[0], "out-of-memory");
  for (let n = 20; n < 30; n++) writeObjects(l1, [testKey(n)], LAYOUT);
  assert(l1.areLeased(leases) && leases.every((each) => l1.isLeased(each)));
  await assertRanges(device, leases.map(({ range }) => range), testKeys(2));
  assertEquals(l1.finishRead(leases), ["success", "success"]);
  assertEquals(statuses(l1.reserveWrite(testKeys(3, 40), LAYOUT)), [
    "success",
    "success",
    "success",
  ]);
});

Deno.test("an object forgotten while leased is freed with its last lease", () => {
  const { l1, heard } = setUp();
  writeObjects(l1, testKeys(1), LAYOUT);
  const leases = [lease(l1, 0), lease(l1, 0)];
  heard.length = 0;
  l1.forget(all);
  assertEquals(heard, ["forgotten 0"]);
  assertEquals(l1.finishRead(leases.slice(0, 1)), ["success"]);
  assertEquals(pick(l1, "usedBytes", "totalObjectCount"), [SIZE, 0]);
  assertEquals(leaving(l1), [1, SIZE]);
  assertEquals(l1.finishRead(leases), ["key-in-wrong-state", "success"]);
  assertEquals([leaving(l1), pick(l1, "usedBytes")], [[0, 0], [0]]);
  assertEquals(heard, ["forgotten 0"], "told once");
  assertEquals(l1.finishRead(leases), ["key-not-exist", "key-not-exist"]);
});

Deno.test("the memory of a doomed object is reused when its leases have expired", async () => {
  const { l1, clock } = setUp(1);
  writeObjects(l1, testKeys(1), LAYOUT);
  const held = lease(l1, 0);
  l1.forget(all);
  await clock.advance(READ_TTL_MS - 1);
  assertEquals(statuses(l1.reserveWrite([testKey(1)], LAYOUT)), ["out-of-memory"]);
  await clock.advance(1);
  assert(!l1.isLeased(held));
  assertEquals(leaving(l1), [1, SIZE]);
  assertEquals(statuses(l1.reserveWrite([testKey(1)], LAYOUT)), ["success"]);
  assertEquals(leaving(l1), [0, 0]);
  assertEquals(l1.finishRead([held]), ["key-not-exist"]);
});

Deno.test("a forgotten key can be stored again beside its doomed object", () => {
  const { l1 } = setUp();
  writeObjects(l1, testKeys(1), LAYOUT);
  const old = lease(l1, 0);
  l1.forget(all);
  writeObjects(l1, testKeys(1), LAYOUT);
  const fresh = lease(l1, 0);
  assert(old.range.byteOffset !== fresh.range.byteOffset);
  assertEquals(l1.finishRead([old]), ["success"]);
  assert(l1.isLeased(fresh) && l1.has(testKey(0)));
  assertEquals(pick(l1, "usedBytes"), [SIZE]);
});

Deno.test("an object whose lease has expired is freed at once", async () => {
  const { l1, clock } = setUp();
  writeObjects(l1, testKeys(1), LAYOUT);
  lease(l1, 0);
  await clock.advance(READ_TTL_MS);
  l1.forget(all);
  assertEquals(pick(l1, "usedBytes", "leavingCount"), [0, 0]);
});

Deno.test("L1Cache.forget() of keys examines no other objects, in any state", () => {
  const { l1 } = setUp();
  writeObjects(l1, testKeys(3), LAYOUT);
  stage(l1, testKeys(2, 10));
  const looked: string[] = [];
  const test = (key: ObjectKey): boolean => looked.push(nameOf(key)) > 0;
  const keys = [testKey(1), testKey(10), testKey(1), testKey(30)];
  assertEquals(l1.forget(test, keys), { objects: 2, bytes: 2 * SIZE });
  assertEquals([looked, residents(l1)], [["1", "10"], [0, 2]]);
});

// Forgotten while staged

const finishes: Record<string, (l1: L1Cache, staged: StagedObject[]) => string[]> = {
  finishWrite: (l1, staged) => l1.finishWrite(staged),
  finishWriteAndReserveRead: (l1, staged) => statuses(finishAndRead(l1, staged)),
  finishWriteAndDelete: (l1, staged) => l1.finishWriteAndDelete(staged),
};
for (const [name, finish] of Object.entries(finishes)) {
  Deno.test(`L1Cache.${name}() of what was forgotten frees it, and says that it is gone`, () => {
    const { l1, heard } = setUp();
    const staged = stage(l1, testKeys(1));
    l1.forget(all);
    assert(!staged.some((each) => l1.isReserved(each)));
    assertEquals(pick(l1, "usedBytes", "stagingObjectCount"), [SIZE, 0]);
    assertEquals(finish(l1, staged), ["key-not-exist"]);
    assertEquals([pick(l1, "usedBytes"), residents(l1)], [[0], []]);
    finish(l1, staged);
    assertEquals([pick(l1, "usedBytes"), residents(l1)], [[0], []], "freed once");
    assertEquals(heard, [], "it was never visible");
  });
}

Deno.test("the memory of an object forgotten while staged is not reused", async () => {
  const { l1, clock } = setUp(2);
  const staged = stage(l1, testKeys(2), LAYOUT, { writer: "slow" });
  l1.forget(numbered(0));
  assertEquals(statuses(l1.reserveWrite([testKey(5)], LAYOUT)), ["out-of-memory"]);
  l1.clear();
  assertEquals(leaving(l1), [1, SIZE]);
  await clock.advance(WRITE_TTL_MS);
  assertEquals(statuses(l1.reserveWrite([testKey(5)], LAYOUT)), ["success"]);
  assertEquals(leaving(l1), [0, 0]);
  assertEquals(l1.finishWrite(staged.slice(0, 1)), ["key-not-exist"]);
});

Deno.test("an expired reservation is freed when it is forgotten", async () => {
  const { l1, clock } = setUp();
  l1.reserveWrite(testKeys(1), LAYOUT);
  await clock.advance(WRITE_TTL_MS);
  assertEquals(l1.forget(all), { objects: 1, bytes: SIZE });
  assertEquals(pick(l1, "usedBytes"), [0]);
});

Deno.test("a forgotten key can be reserved again at once, by the same writer too", () => {
  const { l1 } = setUp();
  for (const finishesFirst of ["forgotten", "again"]) {
    const forgotten = stage(l1, testKeys(1));
    l1.forget(all);
    const again = stage(l1, testKeys(1));
    assertEquals(leaving(l1), [1, SIZE]);
    const finish: Record<string, () => void> = {
      forgotten: () => assertEquals(l1.finishWrite(forgotten), ["key-not-exist"]),
      again: () => assertEquals(l1.finishWrite(again), ["success"]),
    };
    const order = finishesFirst === "forgotten" ? ["forgotten", "again"] : ["again", "forgotten"];
    for (const user of order) {
      assertEquals(again.map((each) => l1.isReserved(each)), [!l1.has(testKey(0))]);
      finish[user]?.();
    }
    assertEquals([residents(l1), leaving(l1), pick(l1, "usedBytes")], [[0], [0, 0], [SIZE]]);
    l1.clear();
  }
});

Deno.test("a reservation survives the forget of an earlier one", () => {
  const { l1 } = setUp();
  const forgotten = stage(l1, testKeys(1));
  l1.forget(all);
  const again = stage(l1, testKeys(1));
  assertEquals(l1.finishWriteAndDelete(forgotten), ["key-not-exist"]);
  assertEquals(pick(l1, "usedBytes"), [SIZE]);
  assertEquals(l1.finishWrite(again), ["success"]);
  assertEquals(residents(l1), [0]);
});
