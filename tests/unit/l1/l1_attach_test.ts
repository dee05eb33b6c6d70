import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { WebGpuDevice } from "../../../src/memory/webgpu_device.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { gpuTest } from "../../support/devices.ts";
import { FragileDevice, microtasks } from "../../support/fragile_device.ts";
import {
  assertRanges,
  finishAndRead,
  LAYOUT,
  leasesOf,
  lruL1,
  pick,
  residents,
  setUp,
  SIZE,
  stage,
  statuses,
  writeObjects,
} from "../../support/l1.ts";
import { testKey, testKeys } from "../../support/objects.ts";

Deno.test("L1Cache.detach() drops every object and invalidates every lease", () => {
  const device = new FragileDevice();
  const { l1, heard } = setUp(8, { device });
  writeObjects(l1, testKeys(3), LAYOUT);
  const staged = stage(l1, [testKey(3)]);
  const forgotten = stage(l1, [testKey(4)]);
  const leases = leasesOf(l1.reserveRead(testKeys(2)));
  l1.forget(({ id }) => id === testKey(1).id || id === testKey(4).id);
  l1.markDirty([testKey(2)]);
  heard.length = 0;
  device.isLost = true;
  l1.detach("the driver was reset");
  assertEquals(heard, ["device-lost 0", "device-lost 2"]);
  assertEquals(
    pick(l1, "usedBytes", "slabBytes", "totalObjectCount", "leavingCount", "heldCount"),
    [0, 0, 0, 0, 0],
  );
  assertEquals([...l1.usageBySalt()], []);
  assertEquals(device.slabs.size, 0);
  l1.attach(new HostDevice());
  writeObjects(l1, testKeys(2), LAYOUT);
  assert(!leases.some((each) => l1.isLeased(each)) && !l1.areLeased(leases));
  assertEquals(l1.finishRead(leases), ["key-not-exist", "key-not-exist"]);
  assertEquals(l1.finishWrite(staged), ["key-not-exist"], "reserved on the other device");
  assertEquals(l1.finishWrite(forgotten), ["key-not-exist"]);
  assertEquals(residents(l1), [0, 1]);
});

Deno.test("a detached cache says so until it has a device again", () => {
  const { l1, heard } = setUp();
  writeObjects(l1, testKeys(1), LAYOUT);
  const staged = stage(l1, [testKey(1)]);
  l1.detach();
  heard.length = 0;
  l1.detach();
  assertEquals(heard, [], "told once");
  assertEquals(statuses(l1.reserveWrite(testKeys(1), LAYOUT)), ["device-lost"]);
  assertEquals(statuses(l1.reserveRead(testKeys(1))), ["device-lost"]);
  assertEquals(l1.finishWrite(staged), ["device-lost"]);
  assertEquals(statuses(finishAndRead(l1, staged)), ["device-lost"]);
  assertEquals(l1.finishWriteAndDelete(staged), ["key-not-exist"]);
  assertEquals(l1.markDirty(testKeys(1)).toString(), "0");
  assertEquals([l1.evictTo(0), l1.evictionCandidates(SIZE), l1.forget(() => true)], [0, [], {
    objects: 0,
    bytes: 0,
  }]);
  l1.release(testKeys(1));
  l1.clear();
  assertEquals(pick(l1, "isHealthy"), [false]);
  const device = new HostDevice();
  l1.attach(device);
  assertStrictEquals(l1.device, device);
  assertEquals(pick(l1, "isHealthy"), [true]);
  writeObjects(l1, testKeys(8), LAYOUT);
  assertEquals(residents(l1).length, 8, "as much room as before");
});

Deno.test("pinned keys stay pinned on another device", () => {
  const { l1 } = setUp();
  l1.pin(testKeys(1));
  l1.detach();
  l1.attach(new HostDevice());
  writeObjects(l1, testKeys(2), LAYOUT);
  l1.clear();
  assertEquals(residents(l1), [0]);
});

Deno.test("L1Cache.attach() replaces only a lost device", () => {
  const device = new FragileDevice();
  const { l1, heard } = setUp(8, { device });
  assertThrows(() => l1.attach(new HostDevice()), Error, "detach it first");
  writeObjects(l1, testKeys(1), LAYOUT);
  heard.length = 0;
  device.isLost = true;
  assertThrows(() => setUp(8).l1.attach(device), Error, "detach it first");
  l1.attach(new HostDevice());
  assertEquals(heard, ["device-lost 0"], "it was detached first");
  assertThrows(() => l1.attach(new HostDevice()), Error, "detach it first");
  l1[Symbol.dispose]();
  assertThrows(() => l1.attach(new HostDevice()), Error, "closed");
});

Deno.test("L1Cache.maxObjectBytes is that of the device", () => {
  const { l1 } = setUp(8, { device: new FragileDevice({ maxSlabBytes: 4 * SIZE }) });
  assertEquals(l1.maxObjectBytes, 4 * SIZE);
  l1.detach();
  l1.attach(new FragileDevice({ maxSlabBytes: 2 * SIZE }));
  assertEquals(l1.maxObjectBytes, 2 * SIZE);
});

Deno.test("a slab of an old device that fails late takes nothing from the new one", async () => {
  const old = new FragileDevice({ answersLate: true });
  const { l1, heard } = setUp(8, { device: old, slabBytes: 2 * SIZE });
  writeObjects(l1, testKeys(4), LAYOUT);
  const [first, second] = [...old.slabs];
  assert(first !== undefined && second !== undefined);
  old.answer(first, false);
  await microtasks();
  assertEquals(pick(l1, "failedSlabCount", "isHealthy"), [1, false]);
  l1.detach();
  l1.attach(new FragileDevice());
  assertEquals(pick(l1, "failedSlabCount", "isHealthy"), [0, true]);
  writeObjects(l1, testKeys(8), LAYOUT);
  heard.length = 0;
  old.answer(second, false);
  await microtasks();
  assertEquals(heard, []);
  assertEquals(residents(l1).length, 8);
  assertEquals(pick(l1, "failedSlabCount", "isHealthy"), [0, true]);
});

Deno.test("a slab that fails also takes doomed staged objects", async () => {
  const device = new FragileDevice({ answersLate: true });
  const { l1 } = setUp(8, { device, slabBytes: 4 * SIZE });
  const staged = stage(l1, [testKey(1)]);
  l1.forget(() => true);
  assertEquals(pick(l1, "leavingCount"), [1]);
  for (const slab of device.slabs) device.answer(slab, false);
  await microtasks();
  assertEquals(pick(l1, "usedBytes", "slabs", "leavingCount"), [0, 0, 0]);
  assertEquals(l1.finishWrite(staged), ["key-not-exist"]);
});

gpuTest("L1 works again on another device when its own is lost", async (gpuDevice) => {
  const clock = new ManualClock();
  const lost = await WebGpuDevice.request();
  assert(lost !== null);
  using l1 = lruL1(lost, clock, 8 * SIZE);
  writeObjects(l1, testKeys(2), LAYOUT);
  lost.gpuDevice.destroy();
  const { message } = await lost.lost;
  l1.detach(message);
  lost[Symbol.dispose]();
  using device = WebGpuDevice.adopt(gpuDevice);
  l1.attach(device);
  writeObjects(l1, testKeys(3), LAYOUT);
  await l1.filled();
  const leases = leasesOf(l1.reserveRead(testKeys(3)));
  await assertRanges(device, leases.map(({ range }) => range), testKeys(3));
  l1.detach();
});
