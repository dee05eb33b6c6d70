import { assert, assertEquals } from "@std/assert";
import { FragileDevice } from "../../support/fragile_device.ts";
import {
  LAYOUT,
  leasesOf,
  pick,
  residents,
  setUp,
  SIZE,
  stage,
  statuses,
  WRITE_TTL_MS,
  writeObjects,
} from "../../support/l1.ts";
import { testKey, testKeys } from "../../support/objects.ts";

const { promise: never } = Promise.withResolvers<boolean>();

Deno.test("an object is visible when the device is known to have filled it", async () => {
  const { l1, heard } = setUp();
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const staged = stage(l1, testKeys(2));
  assertEquals(l1.finishWrite(staged, promise), ["success", "success"]);
  assertEquals([residents(l1), heard], [[], []]);
  assertEquals(statuses(l1.reserveRead(testKeys(1))), ["key-not-exist"]);
  assertEquals(pick(l1, "fillingObjectCount", "fillingBytes", "totalObjectCount"), [
    2,
    2 * SIZE,
    2,
  ]);
  resolve(true);
  await l1.whenFilled(testKey(0));
  assertEquals([residents(l1), heard], [[0, 1], ["written 0 1"]]);
  assertEquals([l1.whenFilled(testKey(0)), l1.filled()], [undefined, undefined]);
  assertEquals(pick(l1, "fillingObjectCount", "fillingBytes"), [0, 0]);
});

for (const [what, answer] of [["refuses", false], ["fails", new Error("lost")]] as const) {
  Deno.test(`what the device ${what} to fill was never visible, and its memory is free`, async () => {
    const { l1, heard } = setUp();
    const isFilled = answer === false ? Promise.resolve(false) : Promise.reject(answer);
    l1.finishWrite(stage(l1, testKeys(2)), isFilled);
    await l1.filled();
    assertEquals([residents(l1), heard], [[], []]);
    assertEquals(pick(l1, "usedBytes", "unfilledCount"), [0, 2]);
    writeObjects(l1, testKeys(2), LAYOUT);
    assertEquals(residents(l1), [0, 1], "the next one may");
  });
}

Deno.test("an object that the device refuses at once is discarded at once", () => {
  const { l1 } = setUp();
  l1.finishWrite(stage(l1, testKeys(1)), false);
  assertEquals([residents(l1), ...pick(l1, "usedBytes", "unfilledCount")], [[], 0, 1]);
});

Deno.test("a filling object cannot be staged again or removed", () => {
  const { l1 } = setUp(2);
  l1.finishWrite(stage(l1, testKeys(1)), never);
  for (const writer of ["store", "prefetch"]) {
    assertEquals(statuses(l1.reserveWrite(testKeys(1), LAYOUT, { writer })), ["already-present"]);
  }
  assertEquals(l1.delete(testKeys(1)), ["key-is-locked"]);
  l1.clear();
  assertEquals(l1.evictTo(0), 0);
  assertEquals(statuses(l1.reserveWrite(testKeys(2, 5), LAYOUT))[0], "out-of-memory");
  assertEquals(l1.markDirty(testKeys(1)).toString(), "0");
  assertEquals(pick(l1, "fillingObjectCount"), [1]);
});

Deno.test("of two writers of a key, the one that is confirmed first is served", async () => {
  const { l1, heard } = setUp();
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const [late] = stage(l1, testKeys(1), LAYOUT, { writer: "late" });
  const [second] = stage(l1, testKeys(1), LAYOUT, { writer: "second" });
  const [known] = stage(l1, testKeys(1), LAYOUT, { writer: "known" });
  assert(late !== undefined && second !== undefined && known !== undefined);
  l1.finishWrite([late], promise);
  l1.finishWrite([second], promise);
  assertEquals(pick(l1, "fillingObjectCount", "usedBytes"), [1, 2 * SIZE], "one at a time");
  l1.finishWrite([known]);
  resolve(true);
  await l1.filled();
  const [lease] = leasesOf(l1.reserveRead(testKeys(1)));
  assertEquals(lease?.range, known.range);
  assertEquals([heard, ...pick(l1, "usedBytes")], [["written 0"], SIZE]);
});

Deno.test("a forgotten filling object never becomes resident, and its memory is free", async () => {
  const { l1, heard } = setUp();
  const { promise, resolve } = Promise.withResolvers<boolean>();
  l1.finishWrite(stage(l1, testKeys(2)), promise);
  assertEquals(l1.forget(() => true, testKeys(1)), { objects: 1, bytes: SIZE });
  assertEquals(pick(l1, "usedBytes"), [SIZE]);
  resolve(true);
  await l1.filled();
  assertEquals([residents(l1), heard], [[1], ["written 1"]]);
});

Deno.test("the memory of an object that is never confirmed is reused after its lock expires", async () => {
  const { l1, clock } = setUp(1);
  const { promise, resolve } = Promise.withResolvers<boolean>();
  l1.finishWrite(stage(l1, testKeys(1)), promise);
  await clock.advance(WRITE_TTL_MS);
  const again = stage(l1, testKeys(1));
  resolve(true);
  await l1.filled();
  assertEquals(residents(l1), [], "the late answer is about room that is another's");
  l1.finishWrite(again);
  assertEquals(residents(l1), [0]);
});

Deno.test("the loss of the device ends every wait for it", async () => {
  const { l1 } = setUp(8, { device: new FragileDevice({ answersLate: true }) });
  l1.finishWrite(stage(l1, testKeys(1)), never);
  const waiting = [l1.whenFilled(testKey(0)), l1.filled()];
  const loaded = l1.finishWriteAndReserveRead(stage(l1, [testKey(1)]));
  l1.detach();
  await Promise.all(waiting);
  assertEquals(statuses(await loaded), ["device-lost"]);
  assertEquals(pick(l1, "fillingObjectCount", "usedBytes"), [0, 0]);
});

Deno.test("an upload into a new slab is leased once the slab is confirmed", async () => {
  const device = new FragileDevice({ answersLate: true });
  const { l1, heard } = setUp(8, { device, slabBytes: 2 * SIZE });
  const staged = stage(l1, testKeys(4));
  const loaded = l1.finishWriteAndReserveRead(staged);
  assertEquals(residents(l1), []);
  const [first, second] = device.slabs;
  assert(first !== undefined && second !== undefined);
  device.answer(first, true);
  device.answer(second, false);
  assertEquals(statuses(await loaded), ["success", "success", "key-not-exist", "key-not-exist"]);
  assertEquals([residents(l1), heard], [[0, 1], []]);
  assertEquals(pick(l1, "readLockedCount"), [2]);
  l1.finishRead(leasesOf((await loaded).slice(0, 2)));
  const next = l1.finishWriteAndReserveRead(stage(l1, [testKey(7)]));
  assert(Array.isArray(next), "once that is known, at once");
});

Deno.test("an object is as old as its last use when the device answers late", async () => {
  const { l1, heard } = setUp(3);
  const { promise, resolve } = Promise.withResolvers<boolean>();
  l1.finishWrite(stage(l1, [testKey(1)]), promise);
  writeObjects(l1, [testKey(0), testKey(2)], LAYOUT);
  l1.touch([testKey(0), testKey(1)]);
  resolve(true);
  await l1.filled();
  heard.length = 0;
  l1.evictTo(0);
  assertEquals(heard, ["evicted 2", "evicted 1", "evicted 0"]);
});
