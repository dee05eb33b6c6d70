import { assertEquals } from "@std/assert";
import type { L1Cache } from "../../../src/l1/l1_cache.ts";
import { concatParts, type L2Adapter } from "../../../src/l2/adapter.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import type { MemoryDevice, ReadBack, ReadBackRequest } from "../../../src/memory/memory_device.ts";
import { WebGpuDevice } from "../../../src/memory/webgpu_device.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { StoreController } from "../../../src/tiering/store_controller.ts";
import { deviceTest, gpuTest } from "../../support/devices.ts";
import { assertNoLocks, lruL1, writeObjects } from "../../support/l1.ts";
import { testKey, testKeys, testLayout } from "../../support/objects.ts";
import { gate, guardAll, RecordingAdapter } from "../../support/recording_adapter.ts";
import { sealedObject } from "../../support/sealed_objects.ts";

const LAYOUT = testLayout(1024);
const MIB = 2 ** 20;

/** Host memory that counts the read-backs that nobody has given back. */
class WatchedDevice extends HostDevice {
  openReadBacks = 0;

  override async readBack(requests: readonly ReadBackRequest[]): Promise<ReadBack> {
    const { objects, abandon } = await super.readBack(requests);
    this.openReadBacks++;
    return { objects, abandon, [Symbol.dispose]: () => void this.openReadBacks-- };
  }
}

interface SetUp extends Disposable {
  readonly clock: ManualClock;
  readonly l1: L1Cache;
  readonly store: StoreController;
}

function setUp(
  device: MemoryDevice,
  adapters: readonly L2Adapter[],
  options: { flushBytes?: number; capacityBytes?: number; readTtlMs?: number } = {},
): SetUp {
  const { flushBytes = 64 * 1024, capacityBytes = 64 * 1024, readTtlMs = 300_000 } = options;
  const clock = new ManualClock();
  const l1 = lruL1(device, clock, capacityBytes, { readTtlMs });
  const guards = guardAll(adapters, clock);
  const store = new StoreController({ l1, adapters: guards, clock, flushBytes, idleMs: 50 });
  return {
    clock,
    l1,
    store,
    [Symbol.dispose]() {
      const { pendingObjects, pendingBytes, inFlightObjects } = store.reportStatus();
      assertEquals({ pendingObjects, pendingBytes, inFlightObjects }, {
        pendingObjects: 0,
        pendingBytes: 0,
        inFlightObjects: 0,
      });
      assertNoLocks(l1);
      assertEquals(clock.pendingTimers, 0, "timers");
      if (device instanceof WatchedDevice) assertEquals(device.openReadBacks, 0, "read-backs");
      l1[Symbol.dispose]();
    },
  };
}

deviceTest("StoreController.flush() stores what was written in every adapter", async (device) => {
  const adapters = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp(device, adapters);
  const keys = testKeys(5);

  writeObjects(t.l1, keys, LAYOUT);
  await t.store.flush();

  for (const adapter of adapters) {
    assertEquals(adapter.stores, [keys.map(({ id }) => id)]);
    for (const key of keys) {
      assertEquals(adapter.held.get(key.id), concatParts(sealedObject(key, LAYOUT).parts));
    }
  }
  assertEquals(t.store.reportStatus().batches, 1);
});

Deno.test("StoreController.flush() resolves when there is nothing to write", async () => {
  using t = setUp(new WatchedDevice(), [new RecordingAdapter()]);
  await t.store.flush();
  assertEquals(t.store.reportStatus().batches, 0);
});

Deno.test("StoreController writes what is queued when it was quiet for a while", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new WatchedDevice(), [adapter]);
  const [first, second] = [testKeys(1), testKeys(1, 1)];

  writeObjects(t.l1, first, LAYOUT);
  await t.clock.advance(49);
  writeObjects(t.l1, second, LAYOUT);
  await t.clock.advance(49);
  assertEquals(adapter.stores, [], "not quiet for long enough");
  assertEquals(t.store.reportStatus().pendingBytes, 2 * LAYOUT.byteLength);

  await t.clock.advance(1);
  assertEquals(adapter.stores, [[...first, ...second].map(({ id }) => id)]);
});

Deno.test("StoreController writes at once when enough bytes are queued", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new WatchedDevice(), [adapter], { flushBytes: 3 * LAYOUT.byteLength });

  writeObjects(t.l1, testKeys(2), LAYOUT);
  await t.clock.advance(0);
  assertEquals(adapter.stores.length, 0);

  writeObjects(t.l1, testKeys(1, 2), LAYOUT);
  await t.clock.advance(0);
  assertEquals(adapter.stores.map(({ length }) => length), [3]);
});

Deno.test("StoreController cuts batches by bytes, in the order of writing", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new WatchedDevice(), [adapter], { flushBytes: 2 * LAYOUT.byteLength });
  const keys = testKeys(7);

  writeObjects(t.l1, keys, LAYOUT);
  await t.store.flush();

  assertEquals(adapter.stores.map(({ length }) => length), [2, 2, 2, 1]);
  assertEquals(adapter.stores.flat(), keys.map(({ id }) => id));
  assertEquals(t.store.reportStatus().batches, 4);
});

gpuTest("StoreController cuts batches to what can be read back at a time", async (gpuDevice) => {
  const MIB = 2 ** 20;
  using device = WebGpuDevice.adopt(gpuDevice, { stagingBytes: 8 * MIB });
  const adapter = new RecordingAdapter();
  using t = setUp(device, [adapter], { flushBytes: 64 * MIB, capacityBytes: 16 * MIB });

  writeObjects(t.l1, testKeys(5), testLayout(3 * MIB));
  await t.store.flush();

  assertEquals(adapter.stores.map(({ length }) => length), [2, 2, 1]);
  assertEquals(adapter.count(testKeys(5)), 5);
});

Deno.test("StoreController writes an object once, however often it was queued", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new WatchedDevice(), [adapter]);
  const keys = testKeys(2);

  writeObjects(t.l1, keys, LAYOUT);
  t.l1.delete(keys);
  writeObjects(t.l1, keys, LAYOUT);
  await t.store.flush();

  assertEquals(adapter.stores, [keys.map(({ id }) => id)]);
});

Deno.test("StoreController writes two batches that overlap in time", async () => {
  const adapter = new RecordingAdapter();
  const { promise, open } = gate();
  adapter.beforeStore = () => promise;
  using t = setUp(new WatchedDevice(), [adapter]);

  writeObjects(t.l1, testKeys(2), LAYOUT);
  const flushed = t.store.flush();
  await t.clock.advance(0);
  writeObjects(t.l1, testKeys(2, 2), LAYOUT);
  assertEquals(t.store.reportStatus().inFlightObjects, 2);
  open();
  await flushed;

  assertEquals(adapter.stores.map(({ length }) => length), [2, 2]);
});

Deno.test("StoreController loses nothing that is written just when a flush ends", async () => {
  // Which turn of the microtask queue is the last of a flush, is its own affair: all are tried.
  for (let turns = 0; turns < 40; turns++) {
    const adapter = new RecordingAdapter();
    using t = setUp(new WatchedDevice(), [adapter]);
    const stored = gate();
    adapter.beforeStore = () => stored.open();

    writeObjects(t.l1, testKeys(1), LAYOUT);
    const flushed = t.store.flush();
    await stored.promise;
    for (let turn = 0; turn < turns; turn++) await Promise.resolve();
    writeObjects(t.l1, testKeys(1, 1), LAYOUT);
    await t.store.flush();

    assertEquals(adapter.count(testKeys(2)), 2, `written after ${turns} turns`);
    await flushed;
  }
});

Deno.test("StoreController keeps a read lock until every adapter has answered", async () => {
  const [fast, slow] = [new RecordingAdapter(), new RecordingAdapter()];
  const { promise, open } = gate();
  slow.beforeStore = () => promise;
  using t = setUp(new WatchedDevice(), [fast, slow]);
  const keys = testKeys(2);

  writeObjects(t.l1, keys, LAYOUT);
  const flushed = t.store.flush();
  await t.clock.advance(0);
  assertEquals(fast.count(keys), 2);
  assertEquals(t.l1.reportStatus().readLockedCount, 2);
  assertEquals(t.l1.delete(keys), ["key-is-locked", "key-is-locked"]);

  open();
  await flushed;
  assertEquals(t.l1.delete(keys), ["success", "success"]);
});

const failures: Record<string, () => void | Promise<void>> = {
  throws: () => {
    throw new Error("broken");
  },
  rejects: () => Promise.reject(new Error("broken")),
  "rejects with what is no error": () => Promise.reject(undefined),
};
for (const [name, fail] of Object.entries(failures)) {
  Deno.test(`StoreController does without an adapter that ${name}`, async () => {
    const [broken, good] = [new RecordingAdapter(), new RecordingAdapter()];
    // Not an async function: what it throws is thrown by the call itself.
    broken.store = () => fail() as never;
    using t = setUp(new WatchedDevice(), [broken, good]);

    for (const first of [0, 2]) {
      writeObjects(t.l1, testKeys(2, first), LAYOUT);
      await t.store.flush();
      assertNoLocks(t.l1);
    }
    assertEquals(good.count(testKeys(4)), 4);
  });
}

Deno.test("StoreController goes on without an adapter that hangs, and gives back what it held", async () => {
  const [hung, good] = [new RecordingAdapter(), new RecordingAdapter()];
  const { promise, open } = gate();
  hung.beforeStore = () => promise;
  const device = new WatchedDevice();
  using t = setUp(device, [hung, good]);

  writeObjects(t.l1, testKeys(2), LAYOUT);
  const flushed = t.store.flush();
  await t.clock.advance(0);
  await t.clock.advance(60_000);
  await flushed;
  // It may still read the buffers: neither they nor the objects are free.
  assertEquals(device.openReadBacks, 1);
  assertEquals(t.l1.reportStatus().readLockedCount, 2);

  writeObjects(t.l1, testKeys(2, 2), LAYOUT);
  await t.store.flush();
  assertEquals(good.count(testKeys(4)), 4);
  assertEquals(hung.stores.length, 1, "a hung adapter gets no more buffers");

  open();
  await t.clock.advance(0);
  assertNoLocks(t.l1);
});

Deno.test("StoreController stores nothing that was read back after its pin expired", async () => {
  const adapter = new RecordingAdapter();
  const { promise, open } = gate();
  const device = new WatchedDevice();
  const readBack = device.readBack.bind(device);
  device.readBack = async (requests) => {
    await promise;
    return await readBack(requests);
  };
  const capacityBytes = LAYOUT.byteLength;
  using t = setUp(device, [adapter], { capacityBytes, readTtlMs: 10_000 });
  writeObjects(t.l1, testKeys(1), LAYOUT);
  const flushed = t.store.flush();
  await t.clock.advance(0);
  await t.clock.advance(10_000);
  // Its room goes to another object before it is read.
  writeObjects(t.l1, testKeys(1, 1), LAYOUT);
  open();
  await flushed;
  assertEquals([adapter.count(testKeys(1)), adapter.count(testKeys(1, 1))], [0, 1]);
  assertEquals(t.store.reportStatus().droppedObjects, 1);
});

deviceTest(
  "StoreController does not wait for read-back buffers that a hung adapter keeps",
  async (device) => {
    const [hung, good] = [new RecordingAdapter(), new RecordingAdapter()];
    const { promise, open } = gate();
    hung.beforeStore = () => promise;
    // One object takes more than half of the read-back buffers.
    const layout = testLayout(5 * MIB);
    using t = setUp(device, [hung, good], { capacityBytes: 16 * MIB });
    writeObjects(t.l1, testKeys(1), layout);
    const flushed = t.store.flush();
    while (hung.stores.length === 0) await new Promise((resolve) => setTimeout(resolve));
    await t.clock.advance(60_000);
    await flushed;

    writeObjects(t.l1, testKeys(1, 1), layout);
    await t.store.flush();
    assertEquals(good.count(testKeys(2)), 2);
    open();
    await t.clock.advance(0);
    assertNoLocks(t.l1);
  },
  { stagingBytes: 8 * MIB },
);

deviceTest("StoreController leaves bytes alone that a hung adapter still reads", async (device) => {
  const hung = new RecordingAdapter();
  const { promise, open } = gate();
  hung.beforeStore = () => promise;
  const keys = testKeys(4);
  // No more room than for these objects: others must evict something, or fail.
  using t = setUp(device, [hung], { capacityBytes: 4 * LAYOUT.byteLength });

  writeObjects(t.l1, keys, LAYOUT);
  const flushed = t.store.flush();
  while (hung.stores.length === 0) await new Promise((resolve) => setTimeout(resolve));
  await t.clock.advance(60_000);
  await flushed;
  const [reservation] = t.l1.reserveWrite([testKey(9)], LAYOUT);
  assertEquals(reservation?.status, "out-of-memory");

  open();
  while (hung.count(keys) < 4) await new Promise((resolve) => setTimeout(resolve));
  await t.clock.advance(0);
  for (const key of keys) {
    assertEquals(hung.held.get(key.id), concatParts(sealedObject(key, LAYOUT).parts));
  }
});

Deno.test("StoreController never stores temporary objects", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new WatchedDevice(), [adapter]);
  writeObjects(t.l1, testKeys(2), LAYOUT, { temporary: true });
  await t.clock.advance(1_000);
  await t.store.flush();
  assertEquals(adapter.stores, []);
});

Deno.test("StoreController never stores what came from an adapter", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new WatchedDevice(), [adapter]);
  const keys = testKeys(2);
  t.l1.reserveWrite(keys, LAYOUT, { writer: "prefetch" });
  const reservations = t.l1.finishWriteAndReserveRead(keys, { writer: "prefetch" });
  t.l1.finishRead(reservations.flatMap((r) => r.status === "success" ? [r.pin] : []));
  await t.clock.advance(1_000);
  await t.store.flush();
  assertEquals(adapter.stores, []);
});

Deno.test("StoreController counts objects that were evicted before they could be stored", async () => {
  const adapter = new RecordingAdapter();
  const capacityBytes = 2 * LAYOUT.byteLength;
  using t = setUp(new WatchedDevice(), [adapter], { capacityBytes });

  writeObjects(t.l1, testKeys(2), LAYOUT);
  writeObjects(t.l1, testKeys(2, 2), LAYOUT);
  await t.store.flush();

  assertEquals(adapter.stores, [testKeys(2, 2).map(({ id }) => id)]);
  assertEquals(t.store.reportStatus().droppedObjects, 2);
});

Deno.test("StoreController queues nothing where there is no adapter", async () => {
  using t = setUp(new WatchedDevice(), []);
  writeObjects(t.l1, testKeys(3), LAYOUT);
  assertEquals(t.store.reportStatus().pendingObjects, 0);
  assertEquals(t.clock.pendingTimers, 0);
  assertNoLocks(t.l1);
  await t.store.flush();
});

Deno.test("StoreController counts a batch that could not be read back, and goes on", async () => {
  const adapter = new RecordingAdapter();
  const device = new WatchedDevice();
  using t = setUp(device, [adapter]);
  const readBack = device.readBack.bind(device);
  device.readBack = () => Promise.reject(new Error("broken"));

  writeObjects(t.l1, testKeys(2), LAYOUT);
  await t.store.flush();
  assertEquals(adapter.stores, []);
  assertEquals(t.store.reportStatus().failedReadBacks, 1);
  assertNoLocks(t.l1);

  device.readBack = readBack;
  writeObjects(t.l1, testKeys(1, 2), LAYOUT);
  await t.store.flush();
  assertEquals(adapter.count(testKeys(3)), 1);
});

gpuTest(
  "StoreController survives the loss of the device while it reads back",
  async (gpuDevice) => {
    using device = WebGpuDevice.adopt(gpuDevice);
    const adapter = new RecordingAdapter();
    using t = setUp(device, [adapter]);
    device.lost.then(() => t.l1[Symbol.dispose]());

    writeObjects(t.l1, testKeys(2), LAYOUT);
    const flushed = t.store.flush();
    // The flush has begun to read back when its own first turn is over.
    await t.clock.advance(0);
    gpuDevice.destroy();
    await flushed;

    assertEquals(adapter.stores, []);
    assertEquals(t.store.reportStatus().failedReadBacks, 1);
    writeObjectsFails(t.l1);
    await t.store.flush();
  },
);

function writeObjectsFails(l1: L1Cache): void {
  assertEquals(l1.reserveWrite(testKeys(1, 5), LAYOUT), [{ status: "device-lost" }]);
}
