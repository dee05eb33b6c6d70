import { assert, assertEquals } from "@std/assert";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import type { L1Cache } from "../../../src/l1/l1_cache.ts";
import { Bitmap, concatParts, type L2Adapter } from "../../../src/adapter/contract.ts";
import { AdapterGuard } from "../../../src/l2/adapter_guard.ts";
import { DEFAULT_ADAPTER_TIMEOUTS } from "../../../src/l2/adapter_status.ts";
import { bytesWithTrailer } from "../../../src/adapter/object_trailer.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import type { MemoryDevice, ReadBack, ReadBackRequest } from "../../../src/memory/memory_device.ts";
import { WebGpuDevice } from "../../../src/memory/webgpu_device.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import type { AdapterSet } from "../../../src/l2/adapter_set.ts";
import { onEvict, skipL1, type StorePolicy } from "../../../src/store/store_policy.ts";
import type { StoreController } from "../../../src/store/store_controller.ts";
import type { StoreControllerOptions } from "../../../src/store/store_types.ts";
import { adapterSet, storeController } from "../../support/controllers.ts";
import { deviceTest, gpuTest } from "../../support/devices.ts";
import {
  assertNoLocks,
  finishAndRead,
  lease,
  lruL1,
  residents,
  stage,
  writeObjects,
} from "../../support/l1.ts";
import { testKey, testKeys, testLayout } from "../../support/objects.ts";
import { gate, RecordingAdapter } from "../../support/recording_adapter.ts";
import { sealedObject } from "../../support/sealed_objects.ts";
import { STAGING_BLOCK_BYTES } from "../../../src/memory/staging_pool.ts";

const LAYOUT = testLayout(1024);
const MIB = 2 ** 20;

/** Host memory that can be lost while it is read back. */
class LosableDevice extends HostDevice {
  override isLost = false;
  beforeReadBackEnds = (): void => {};

  override async readBack(requests: readonly ReadBackRequest[]): Promise<ReadBack> {
    const readBack = await super.readBack(requests);
    this.beforeReadBackEnds();
    return readBack;
  }
}

/** Host memory that counts the read-backs that have not been returned. */
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
  readonly adapters: AdapterSet;
  readonly guards: readonly AdapterGuard[];
  readonly store: StoreController;
  /** Drops, as reported. */
  readonly dropped: string[];
}

interface SetUpOptions extends Partial<StoreControllerOptions> {
  readonly capacityBytes?: number;
  readonly readTtlMs?: number;
}

/** A controller with one attempt for each object; anything it leaves behind fails the test. */
function setUp(
  device: MemoryDevice,
  adapters: readonly L2Adapter[],
  { capacityBytes = 64 * 1024, readTtlMs = 300_000, ...options }: SetUpOptions = {},
): SetUp {
  const clock = new ManualClock();
  const l1 = lruL1(device, clock, capacityBytes, { readTtlMs });
  const set = adapterSet(adapters, clock);
  const dropped: string[] = [];
  const store = storeController({
    l1,
    adapters: set,
    clock,
    attempts: 1,
    onDropped: (count, reason) => dropped.push(`${count} ${reason}`),
    ...options,
  });
  return {
    clock,
    l1,
    adapters: set,
    guards: set.all,
    store,
    dropped,
    [Symbol.dispose]() {
      const { unsavedObjects, pendingObjects, pendingBytes, inFlightObjects } = store
        .reportStatus();
      assertEquals({ unsavedObjects, pendingObjects, pendingBytes, inFlightObjects }, {
        unsavedObjects: 0,
        pendingObjects: 0,
        pendingBytes: 0,
        inFlightObjects: 0,
      });
      assertNoLocks(l1);
      assertEquals(l1.reportStatus().heldCount, 0, "holds");
      assertEquals(clock.pendingTimers, 0, "timers");
      if (device instanceof WatchedDevice) assertEquals(device.openReadBacks, 0, "read-backs");
      l1[Symbol.dispose]();
    },
  };
}

/** Whether a promise has settled after all pending work has run. */
async function hasSettled(t: SetUp, promise: Promise<void>): Promise<boolean> {
  let isSettled = false;
  promise.then(() => isSettled = true);
  await t.clock.advance(0);
  return isSettled;
}

/** Counters of objects that adapters did not get. */
function losses({ store }: SetUp): [failed: number, dropped: number, lost: number] {
  const { failedObjects, droppedObjects, lostObjects } = store.reportStatus();
  return [failedObjects, droppedObjects, lostObjects];
}

function ids(keys: readonly ObjectKey[]): string[] {
  return keys.map(({ id }) => id);
}

deviceTest("StoreController.flush() stores what was written in every adapter", async (device) => {
  const adapters = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp(device, adapters);
  const keys = testKeys(5);

  writeObjects(t.l1, keys, LAYOUT);
  await t.store.flush();

  for (const adapter of adapters) {
    assertEquals(adapter.stores, [ids(keys)]);
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

Deno.test("StoreController stores a smaller batch after the idle time", async () => {
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
  assertEquals(adapter.stores, [ids([...first, ...second])]);
});

Deno.test("StoreController stores at once when a batch is full", async () => {
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
  assertEquals(adapter.stores.flat(), ids(keys));
  assertEquals(t.store.reportStatus().batches, 4);
});

gpuTest("StoreController cuts batches to what can be read back at a time", async (gpuDevice) => {
  using device = WebGpuDevice.adopt(gpuDevice, { stagingBytes: 2 * STAGING_BLOCK_BYTES });
  const adapter = new RecordingAdapter();
  using t = setUp(device, [adapter], { flushBytes: 64 * MIB, capacityBytes: 16 * MIB });

  writeObjects(t.l1, testKeys(5), testLayout(3 * MIB));
  await t.store.flush();

  assertEquals(adapter.stores.map(({ length }) => length), [2, 2, 1]);
  assertEquals(adapter.count(testKeys(5)), 5);
});

Deno.test("StoreController writes once what was forgotten and written again", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new WatchedDevice(), [adapter]);
  const keys = testKeys(2);

  writeObjects(t.l1, keys, LAYOUT);
  t.l1.forget(() => true);
  writeObjects(t.l1, keys, LAYOUT);
  await t.store.flush();

  assertEquals(adapter.stores, [ids(keys)]);
  assertEquals(losses(t), [0, 0, 2]);
  assertEquals(t.dropped, ["1 lost", "1 lost"]);
});

Deno.test("StoreController reads a batch back while another is stored, and no third", async () => {
  const adapter = new RecordingAdapter();
  const { promise, open } = gate();
  adapter.beforeStore = () => promise;
  const device = new WatchedDevice();
  using t = setUp(device, [adapter], { flushBytes: 2 * LAYOUT.byteLength });

  writeObjects(t.l1, testKeys(7), LAYOUT);
  const flushed = t.store.flush();
  await t.clock.advance(0);
  assertEquals(adapter.stores.map(({ length }) => length), [2, 2]);
  assertEquals(device.openReadBacks, 2);
  assertEquals(t.store.reportStatus().inFlightObjects, 4);
  open();
  await flushed;
  assertEquals(adapter.stores.map(({ length }) => length), [2, 2, 2, 1]);
});

Deno.test("StoreController loses no object written just as a flush ends", async () => {
  // The last turn of a flush may be any turn of the microtask queue: all are tried.
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

Deno.test("StoreController keeps objects dirty until every adapter has answered", async () => {
  const [fast, slow] = [new RecordingAdapter(), new RecordingAdapter()];
  const { promise, open } = gate();
  slow.beforeStore = () => promise;
  using t = setUp(new WatchedDevice(), [fast, slow], { capacityBytes: 2 * LAYOUT.byteLength });
  const keys = testKeys(2);

  writeObjects(t.l1, keys, LAYOUT);
  const outOfMemory = [{ status: "out-of-memory" }];
  assertEquals(t.l1.reserveWrite([testKey(2)], LAYOUT), outOfMemory, "while they are queued");
  const flushed = t.store.flush();
  await t.clock.advance(0);
  assertEquals(fast.count(keys), 2);
  assertNoLocks(t.l1);
  assertEquals(t.l1.reserveWrite([testKey(2)], LAYOUT), outOfMemory, "while one stores them");
  assertEquals(t.l1.delete(keys), ["key-is-locked", "key-is-locked"]);
  t.l1.evictTo(0);
  t.l1.clear();
  assertEquals(keys.map((key) => t.l1.has(key)), [true, true]);
  assertEquals(t.store.reportStatus().unsavedObjects, 2);

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
    // Not an async function, so the call itself throws.
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

Deno.test("StoreController works while an adapter hangs", async () => {
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
  // It may still read the buffers, which are a copy: the objects are clean, the buffers are not
  // reused.
  assertEquals(device.openReadBacks, 1);
  assertEquals(t.l1.reportStatus().heldCount, 0);
  assertEquals(losses(t), [2, 0, 0]);

  writeObjects(t.l1, testKeys(2, 2), LAYOUT);
  await t.store.flush();
  assertEquals(good.count(testKeys(4)), 4);
  assertEquals(hung.stores.length, 1, "a hung adapter gets no more buffers");

  open();
  await t.clock.advance(0);
  assertEquals(device.openReadBacks, 0);
});

Deno.test("StoreController stores nothing that was read back after it was forgotten", async () => {
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
  t.l1.forget(() => true);
  await t.clock.advance(10_000);
  // Its memory goes to another object before it is read.
  writeObjects(t.l1, testKeys(1, 1), LAYOUT);
  open();
  await flushed;
  await t.store.flush();
  assertEquals(adapter.stores, [ids(testKeys(1, 1))]);
  assertEquals(losses(t), [0, 0, 1]);
});

Deno.test("StoreController stores nothing that came from a lost device", async () => {
  const adapter = new RecordingAdapter();
  const device = new LosableDevice();
  using t = setUp(device, [adapter], { attempts: 3 });
  writeObjects(t.l1, testKeys(2), LAYOUT);
  const flushed = t.store.flush();
  // Some devices let a read-back in flight succeed, and notify L1 later.
  device.beforeReadBackEnds = () => device.isLost = true;
  await t.clock.advance(0);
  assertEquals(adapter.stores, []);

  t.l1.detach();
  await flushed;
  assertEquals(losses(t), [0, 0, 2]);
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
  },
  { stagingBytes: 2 * STAGING_BLOCK_BYTES },
);

deviceTest(
  "StoreController does not reuse buffers that a hung adapter still reads",
  async (device) => {
    const hung = new RecordingAdapter();
    const { promise, open } = gate();
    hung.beforeStore = () => promise;
    const keys = testKeys(4);
    // L1 has room for these objects only: others evict them.
    using t = setUp(device, [hung], { capacityBytes: 4 * LAYOUT.byteLength });

    writeObjects(t.l1, keys, LAYOUT);
    const flushed = t.store.flush();
    while (hung.stores.length === 0) await new Promise((resolve) => setTimeout(resolve));
    await t.clock.advance(60_000);
    await flushed;
    writeObjects(t.l1, testKeys(4, 9), LAYOUT);
    assertEquals(t.l1.has(testKey(0)), false);

    open();
    while (hung.count(keys) < 4) await new Promise((resolve) => setTimeout(resolve));
    await t.store.flush();
    for (const key of keys) {
      assertEquals(hung.held.get(key.id), concatParts(sealedObject(key, LAYOUT).parts));
    }
  },
);

Deno.test("StoreController never stores transient objects", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new WatchedDevice(), [adapter]);
  writeObjects(t.l1, testKeys(2), LAYOUT, { transient: true });
  await t.clock.advance(1_000);
  await t.store.flush();
  assertEquals(adapter.stores, []);
});

Deno.test("StoreController never stores what came from an adapter", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new WatchedDevice(), [adapter]);
  const keys = testKeys(2);
  const staged = stage(t.l1, keys, LAYOUT, { writer: "prefetch" });
  const reservations = finishAndRead(t.l1, staged);
  t.l1.finishRead(reservations.flatMap((r) => r.status === "success" ? [r.lease] : []));
  await t.clock.advance(1_000);
  await t.store.flush();
  assertEquals(adapter.stores, []);
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
  assertEquals(losses(t), [2, 0, 0]);
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

// Attempts.

Deno.test("StoreController retries with doubling delays and jitter", async () => {
  const adapter = new RecordingAdapter();
  adapter.beforeStore = () => Promise.reject(new Error("broken"));
  // Half of the nominal delay, then three quarters, then the maximum.
  const jitters = [0, 64, 255];
  const random = { bytes: () => new Uint8Array([jitters.shift() ?? 0]) };
  using t = setUp(new WatchedDevice(), [], { attempts: 4, backOffMs: 1_000, random });
  const breaker = { failures: 100 };
  t.adapters.add(
    new AdapterGuard(adapter, {
      id: 0,
      type: "broken",
      clock: t.clock,
      timeouts: DEFAULT_ADAPTER_TIMEOUTS,
      breaker,
    }),
  );
  const keys = testKeys(2);

  writeObjects(t.l1, keys, LAYOUT);
  const flushed = t.store.flush();
  const calls = [1, 2, 3, 4];
  for (const [i, ms] of [0, 500, 1_500, 4_000 * (0.5 + 255 / 256)].entries()) {
    if (ms > 0) await t.clock.advance(ms - 1);
    assertEquals(adapter.stores.length, i, `before attempt ${calls[i]}`);
    assertEquals(t.l1.reportStatus().heldCount, 2);
    await t.clock.advance(ms > 0 ? 1 : 0);
    assertEquals(adapter.stores.length, calls[i]);
  }
  await flushed;
  assertEquals(losses(t), [2, 0, 0]);
  assertEquals(t.store.reportStatus().retriedObjects, 6);
  assertEquals(t.dropped, ["1 failed", "1 failed"]);
  assertEquals(t.l1.delete(keys), ["success", "success"]);
});

Deno.test("StoreController retries only what an adapter did not store", async () => {
  const adapter = new RecordingAdapter();
  const [first, second] = testKeys(2) as [ObjectKey, ObjectKey];
  const store = adapter.store.bind(adapter);
  adapter.store = async (batch, options) => {
    if (batch.length === 1) return await store(batch, options);
    adapter.stores.push(batch.map(({ key }) => key.id));
    return { stored: Bitmap.of(batch.length, [0]), bytes: 0 };
  };
  using t = setUp(new WatchedDevice(), [adapter], { attempts: 2, backOffMs: 100 });

  writeObjects(t.l1, [first, second], LAYOUT);
  const flushed = t.store.flush();
  await t.clock.advance(0);
  await t.clock.advance(100);
  await flushed;
  assertEquals(adapter.stores, [[first.id, second.id], [second.id]]);
  assertEquals(losses(t), [0, 0, 0]);
});

Deno.test("StoreController lets a new object overtake one that is backing off", async () => {
  const adapter = new RecordingAdapter();
  let isBroken = true;
  adapter.beforeStore = () => {
    if (isBroken) throw new Error("broken");
  };
  using t = setUp(new WatchedDevice(), [adapter], { attempts: 2, backOffMs: 1_000 });

  writeObjects(t.l1, testKeys(1), LAYOUT);
  await t.clock.advance(50);
  isBroken = false;
  writeObjects(t.l1, testKeys(1, 1), LAYOUT);
  await t.clock.advance(50);
  assertEquals([adapter.count(testKeys(1)), adapter.count(testKeys(1, 1))], [0, 1]);
  await t.clock.advance(1_000);
  assertEquals(adapter.count(testKeys(2)), 2);
});

// Full queues.

Deno.test("StoreController does not queue what exceeds a queue (drop_new)", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new WatchedDevice(), [adapter], {
    whenFull: "drop_new",
    maxQueuedBytes: 2 * LAYOUT.byteLength,
  });

  writeObjects(t.l1, testKeys(3), LAYOUT);
  assertEquals(losses(t), [0, 1, 0]);
  assertEquals(t.dropped, ["1 full"]);
  assertEquals(t.l1.delete(testKeys(3)), ["key-is-locked", "key-is-locked", "success"]);
  await t.store.flush();
  assertEquals(adapter.stores, [ids(testKeys(2))]);
});

Deno.test("StoreController drops the oldest objects of a full queue (drop_oldest)", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new WatchedDevice(), [adapter], {
    whenFull: "drop_oldest",
    maxQueuedBytes: 2 * LAYOUT.byteLength,
  });

  writeObjects(t.l1, testKeys(3), LAYOUT);
  assertEquals(losses(t), [0, 1, 0]);
  assertEquals(t.l1.delete(testKeys(3)), ["success", "key-is-locked", "key-is-locked"]);
  writeObjects(t.l1, testKeys(1, 3), testLayout(4 * 1024));
  assertEquals(losses(t), [0, 2, 0], "what can never fit costs no others");
  await t.store.flush();
  assertEquals(adapter.stores, [ids(testKeys(2, 1))]);
});

Deno.test("StoreController counts objects that are backing off as queued", async () => {
  const adapter = new RecordingAdapter();
  adapter.beforeStore = () => Promise.reject(new Error("broken"));
  using t = setUp(new WatchedDevice(), [adapter], {
    attempts: 2,
    whenFull: "drop_oldest",
    maxQueuedBytes: 2 * LAYOUT.byteLength,
  });

  writeObjects(t.l1, testKeys(2), LAYOUT);
  await t.clock.advance(50);
  assertEquals(t.store.reportStatus().pendingObjects, 2);
  writeObjects(t.l1, testKeys(1, 2), LAYOUT);
  assertEquals(t.store.reportStatus().pendingObjects, 2);
  assertEquals(losses(t), [0, 1, 0]);
  await t.clock.advance(1_000);
  assertEquals(losses(t), [2, 1, 0]);
});

Deno.test("StoreController drops objects only for the adapter whose queue is full", async () => {
  const [slow, fast] = [new RecordingAdapter(), new RecordingAdapter()];
  const { promise, open } = gate();
  slow.beforeStore = () => promise;
  using t = setUp(new WatchedDevice(), [slow, fast], {
    maxQueuedBytes: LAYOUT.byteLength,
    flushBytes: LAYOUT.byteLength,
  });

  for (let n = 0; n < 5; n++) {
    writeObjects(t.l1, testKeys(1, n), LAYOUT);
    await t.clock.advance(0);
  }
  assertEquals(fast.count(testKeys(5)), 5);
  assertEquals(t.dropped, ["1 full", "1 full"], "two are being written, one waits");
  open();
  await t.store.flush();
  assertEquals(slow.count(testKeys(5)), 3);
});

Deno.test("StoreController queues beyond its limit, and slows producers that await ready() (wait)", async () => {
  const adapter = new RecordingAdapter();
  const gates = [gate(), gate(), gate(), gate(), gate()];
  let calls = 0;
  adapter.beforeStore = () => gates[calls++]?.promise;
  using t = setUp(new WatchedDevice(), [adapter], {
    whenFull: "wait",
    maxQueuedBytes: 2 * LAYOUT.byteLength,
    flushBytes: LAYOUT.byteLength,
  });

  assertEquals(await hasSettled(t, t.store.ready()), true);
  writeObjects(t.l1, testKeys(5), LAYOUT);
  const ready = t.store.ready();
  assertEquals(await hasSettled(t, ready), false, "3 of them wait");
  gates[0]?.open();
  assertEquals(await hasSettled(t, ready), false, "2 of them wait");
  gates[1]?.open();
  assertEquals(await hasSettled(t, ready), true);
  for (const { open } of gates) open();
  await t.store.flush();
  assertEquals(adapter.count(testKeys(5)), 5);
  assertEquals(losses(t), [0, 0, 0]);
});

Deno.test("StoreController.ready() waits for no adapter that does not work", async () => {
  const [broken, good] = [new RecordingAdapter(), new RecordingAdapter()];
  broken.beforeStore = () => Promise.reject(new Error("broken"));
  using t = setUp(new WatchedDevice(), [broken, good], {
    whenFull: "wait",
    maxQueuedBytes: 2 * LAYOUT.byteLength,
    attempts: 5,
  });
  // Its circuit opens with the third failure.
  for (let n = 0; n < 3; n++) {
    writeObjects(t.l1, testKeys(1, n), LAYOUT);
    await t.clock.advance(50);
  }
  assertEquals(t.guards[0]?.isStoring, false);
  assertEquals(await hasSettled(t, t.store.ready()), true);
  assertEquals(good.count(testKeys(3)), 3);
  writeObjects(t.l1, testKeys(3, 3), LAYOUT);
  assertEquals(t.dropped, ["1 full", "1 full", "1 full"], "its queue is bounded now");
  await t.clock.advance(60_000);
  assertEquals(losses(t), [3, 3, 0]);
});

// Lanes.

Deno.test("StoreController gives a slow adapter two batches, and others theirs", async () => {
  const [slow, fast] = [new RecordingAdapter(), new RecordingAdapter()];
  const { promise, open } = gate();
  slow.beforeStore = () => promise;
  const device = new WatchedDevice();
  using t = setUp(device, [slow, fast], { flushBytes: 2 * LAYOUT.byteLength });

  for (let n = 0; n < 20; n += 2) {
    writeObjects(t.l1, testKeys(2, n), LAYOUT);
    await t.clock.advance(0);
    assertEquals(fast.count(testKeys(20)), n + 2);
    assert(device.openReadBacks <= 2, `${device.openReadBacks} batches of buffers are lent`);
  }
  assertEquals(slow.stores.map(({ length }) => length), [2, 2]);
  assertEquals(t.l1.reportStatus().heldCount, 20);
  open();
  await t.store.flush();
  assertEquals(slow.count(testKeys(20)), 20);
});

Deno.test("StoreController gives an adapter its share of the buffers, no more", async () => {
  const [slow, fast] = [new RecordingAdapter(), new RecordingAdapter()];
  const { promise, open } = gate();
  slow.beforeStore = () => promise;
  const device = new WatchedDevice();
  // One object is more than half of the share of an adapter.
  const maxInFlightBytes = 3 * LAYOUT.byteLength;
  using t = setUp(device, [slow, fast], { flushBytes: LAYOUT.byteLength, maxInFlightBytes });

  for (let n = 0; n < 4; n++) {
    writeObjects(t.l1, testKeys(1, n), LAYOUT);
    await t.clock.advance(0);
    assertEquals(fast.count(testKeys(4)), n + 1);
    assertEquals(device.openReadBacks, 1);
  }
  open();
  await t.store.flush();
  assertEquals(slow.count(testKeys(4)), 4);
});

Deno.test("StoreController cuts batches to an adapter's share of the buffers", async () => {
  const adapters = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp(new WatchedDevice(), adapters, { maxInFlightBytes: 8 * LAYOUT.byteLength });

  writeObjects(t.l1, testKeys(5), LAYOUT);
  await t.store.flush();
  for (const { stores } of adapters) assertEquals(stores.map(({ length }) => length), [2, 2, 1]);
});

Deno.test("StoreController does not restart the idle time when an adapter answers", async () => {
  const adapters = [new RecordingAdapter(), new RecordingAdapter()];
  const [busy, quiet] = adapters as [RecordingAdapter, RecordingAdapter];
  const policy: StorePolicy = {
    name: "by layout",
    writes: "at-once",
    keepsInL1: true,
    targets: ({ layout }, targets) =>
      targets.filter(({ id }) => id === (layout === LAYOUT ? 0 : 1)),
  };
  using t = setUp(new WatchedDevice(), adapters, { policy, attempts: 9, backOffMs: 10 });
  let failures = 0;
  busy.beforeStore = () => {
    if (failures++ < 2) throw new Error("broken");
  };
  writeObjects(t.l1, testKeys(1), LAYOUT);
  await t.clock.advance(50);
  writeObjects(t.l1, testKeys(1, 1), testLayout(512));
  await t.clock.advance(49);
  assertEquals([busy.stores.length, quiet.stores.length], [3, 0]);
  await t.clock.advance(1);
  assertEquals(quiet.stores.length, 1);
});

// Policies.

Deno.test("StoreController writes what L1 will evict, above a watermark (on_evict)", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new WatchedDevice(), [adapter], {
    policy: onEvict,
    capacityBytes: 10 * LAYOUT.byteLength,
    watermark: { high: 0.8, low: 0.5 },
  });
  const keys = testKeys(9);

  writeObjects(t.l1, keys.slice(0, 8), LAYOUT);
  t.l1.touch(keys.slice(0, 1));
  await t.clock.advance(1_000);
  assertEquals(adapter.stores, [], "not beyond the watermark");
  assertEquals(t.l1.reportStatus().heldCount, 8);

  writeObjects(t.l1, keys.slice(8), LAYOUT);
  await t.clock.advance(50);
  const [candidates, others] = [
    adapter.stores.flat(),
    keys.filter((key) => !adapter.held.has(key.id)),
  ];
  assertEquals(candidates.length, 4, "down to the low one");
  assert(!candidates.includes(testKey(0).id), "not what was used lately");
  assertEquals(t.l1.reportStatus().heldCount, 5);
  t.l1.evictTo(0);
  assertEquals(keys.filter((key) => t.l1.has(key)), others, "nothing leaves unwritten");

  await t.store.flush();
  assertEquals(adapter.count(keys), 9);
});

Deno.test("StoreController.flush() drops nothing, however much there is (on_evict)", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new WatchedDevice(), [adapter], {
    policy: onEvict,
    whenFull: "drop_new",
    maxQueuedBytes: LAYOUT.byteLength,
  });
  writeObjects(t.l1, testKeys(5), LAYOUT);
  await t.store.flush();
  assertEquals(adapter.count(testKeys(5)), 5);
  assertEquals(losses(t), [0, 0, 0]);
});

Deno.test("StoreController.relieve() stores eviction candidates (on_evict)", async () => {
  const adapter = new RecordingAdapter();
  const capacityBytes = 4 * LAYOUT.byteLength;
  using t = setUp(new WatchedDevice(), [adapter], { policy: onEvict, capacityBytes });
  const keys = testKeys(4);

  writeObjects(t.l1, keys, LAYOUT);
  assertEquals(t.l1.reserveWrite([testKey(9)], LAYOUT), [{ status: "out-of-memory" }]);
  t.store.relieve(2 * LAYOUT.byteLength);
  await t.clock.advance(0);
  assertEquals(adapter.count(keys), 2);
  writeObjects(t.l1, testKeys(1, 9), LAYOUT);
  await t.store.flush();
});

Deno.test("StoreController.relieve() writes what is queued", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new WatchedDevice(), [adapter], { capacityBytes: 2 * LAYOUT.byteLength });

  writeObjects(t.l1, testKeys(2), LAYOUT);
  t.store.relieve(LAYOUT.byteLength);
  await t.clock.advance(0);
  writeObjects(t.l1, testKeys(2, 2), LAYOUT);
  await t.store.flush();
  assertEquals(adapter.count(testKeys(4)), 4);
});

Deno.test("StoreController lets an object leave L1 once it is stored (skip_l1)", async () => {
  const [fast, slow] = [new RecordingAdapter(), new RecordingAdapter()];
  const { promise, open } = gate();
  slow.beforeStore = () => promise;
  using t = setUp(new WatchedDevice(), [fast, slow], { policy: skipL1 });
  const keys = testKeys(3);

  writeObjects(t.l1, keys, LAYOUT);
  const reader = lease(t.l1, 2);
  const flushed = t.store.flush();
  await t.clock.advance(0);
  assertEquals(residents(t.l1), [0, 1, 2], "not before all have answered");
  open();
  await flushed;
  assertEquals(residents(t.l1), [2], "a reader keeps its object");
  t.l1.finishRead([reader]);
  assertEquals(residents(t.l1), []);
  assertEquals([fast.count(keys), slow.count(keys)], [3, 3]);
});

Deno.test("StoreController keeps an object in L1 that no adapter has (skip_l1)", async () => {
  const [broken, good] = [new RecordingAdapter(), new RecordingAdapter()];
  broken.beforeStore = () => Promise.reject(new Error("broken"));
  good.store = (batch) => Promise.resolve({ stored: Bitmap.of(batch.length, [1]), bytes: 0 });
  using t = setUp(new WatchedDevice(), [broken, good], { policy: skipL1 });

  writeObjects(t.l1, testKeys(2), LAYOUT);
  await t.store.flush();
  assertEquals(residents(t.l1), [0]);
  assertEquals(losses(t), [3, 0, 0]);
});

Deno.test("StoreController asks a policy which adapters get an object", async () => {
  const adapters = [new RecordingAdapter(), new RecordingAdapter()];
  const seen: string[] = [];
  const policy: StorePolicy = {
    name: "by hand",
    writes: "at-once",
    keepsInL1: true,
    targets({ key, layout }, targets) {
      assertEquals(layout, LAYOUT);
      seen.push(targets.map(({ id, type }) => `${id} ${type}`).join());
      // The first object goes to the second adapter, the second to both, the third to none.
      const wanted = [[1], [0, 1], []][testKeys(3).findIndex(({ id }) => id === key.id)];
      return targets.filter(({ id }) => wanted?.includes(id));
    },
  };
  using t = setUp(new WatchedDevice(), adapters, { policy });

  writeObjects(t.l1, testKeys(3), LAYOUT);
  assertEquals(t.l1.delete([testKey(2)]), ["success"], "an object for no adapter is not dirty");
  await t.store.flush();
  assertEquals(adapters.map(({ stores }) => stores), [[ids(testKeys(1, 1))], [ids(testKeys(2))]]);
  assertEquals(seen, Array(3).fill("0 adapter0,1 adapter1"));
  assertEquals(t.store.reportStatus().policy, "by hand");
});

Deno.test("StoreController gives no adapter an object that it does not take", async () => {
  const [small, large] = [new RecordingAdapter(), new RecordingAdapter()];
  const [first] = testKeys(1) as [ObjectKey];
  const capabilities = { maxObjectBytes: bytesWithTrailer(first, LAYOUT) };
  Object.defineProperty(small, "capabilities", { value: capabilities });
  using t = setUp(new WatchedDevice(), [small, large]);

  writeObjects(t.l1, [first], LAYOUT);
  writeObjects(t.l1, testKeys(1, 1), testLayout(LAYOUT.byteLength + 4));
  await t.store.flush();
  assertEquals(small.stores, [[first.id]]);
  assertEquals(large.count(testKeys(2)), 2);
  assertEquals(losses(t), [0, 0, 0]);
});

// Objects and adapters that are removed.

Deno.test("StoreController.settle() waits for writes of what was forgotten meanwhile", async () => {
  const adapter = new RecordingAdapter();
  const { promise, open } = gate();
  adapter.beforeStore = () => promise;
  using t = setUp(new WatchedDevice(), [adapter], { flushBytes: 2 * LAYOUT.byteLength });
  const keys = testKeys(5);

  writeObjects(t.l1, keys, LAYOUT);
  const flushed = t.store.flush();
  await t.clock.advance(0);
  const isForgotten = ({ id }: ObjectKey): boolean => id === keys[0]?.id || id === keys[4]?.id;
  t.l1.forget(isForgotten);
  assertEquals(losses(t), [0, 0, 1], "the one that waited");
  const settled = t.store.settle({ matches: isForgotten });
  assertEquals(await hasSettled(t, settled), false);
  open();
  await Promise.all([settled, flushed]);
  assertEquals(adapter.count(keys), 4, "the one that was being written may be stored");
  assertEquals(losses(t), [0, 0, 1]);
  await t.store.settle({ matches: isForgotten });
});

Deno.test("StoreController.settle() writes what its test chooses", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new WatchedDevice(), [adapter], { policy: onEvict });
  const [first, second] = testKeys(2) as [ObjectKey, ObjectKey];

  writeObjects(t.l1, [first, second], LAYOUT);
  await t.store.settle({ matches: ({ id }) => id === second.id });
  assertEquals(adapter.stores, [[second.id]]);
  await t.store.flush();
});

Deno.test("StoreController counts an object as lost that left while its store failed", async () => {
  const adapter = new RecordingAdapter();
  const { promise, open } = gate();
  adapter.beforeStore = async () => {
    await promise;
    throw new Error("broken");
  };
  using t = setUp(new WatchedDevice(), [adapter], { attempts: 3 });
  writeObjects(t.l1, testKeys(2), LAYOUT);
  const flushed = t.store.flush();
  await t.clock.advance(0);
  t.l1.forget(() => true);
  assertEquals(losses(t), [0, 0, 0], "it may be stored yet");
  open();
  await flushed;
  assertEquals(losses(t), [0, 0, 2]);
});

Deno.test("StoreController loses queued objects with the device, but no later ones", async () => {
  const [slow, failing] = [new RecordingAdapter(), new RecordingAdapter()];
  const { promise, open } = gate();
  slow.beforeStore = () => promise;
  failing.beforeStore = () => Promise.reject(new Error("broken"));
  using t = setUp(new WatchedDevice(), [slow, failing], { attempts: 3 });

  // The first object is being stored in one adapter and backing off for the other; the second is
  // queued for both.
  writeObjects(t.l1, testKeys(1), LAYOUT);
  const flushed = t.store.flush();
  await t.clock.advance(0);
  writeObjects(t.l1, testKeys(1, 1), LAYOUT);
  t.l1.detach();
  assertEquals(losses(t), [0, 0, 3]);
  t.l1.attach(new HostDevice());
  failing.beforeStore = () => {};
  writeObjects(t.l1, testKeys(2), LAYOUT);
  assertEquals(t.store.reportStatus().unsavedObjects, 2);
  open();
  await flushed;
  await t.store.flush();
  assertEquals([slow.count(testKeys(2)), failing.count(testKeys(2))], [2, 2]);
  assertEquals(losses(t), [0, 0, 3]);
});

Deno.test("StoreController counts what is lost before it is queued (on_evict)", async () => {
  const adapters = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp(new WatchedDevice(), adapters, { policy: onEvict });
  writeObjects(t.l1, testKeys(2), LAYOUT);
  t.l1.forget(() => true);
  assertEquals(losses(t), [0, 0, 4]);
  assertEquals(t.dropped, ["2 lost", "2 lost"]);
  await t.store.flush();
});

Deno.test("StoreController drops what is queued for a removed adapter", async () => {
  const [gone, kept] = [new RecordingAdapter(), new RecordingAdapter()];
  const { promise, open } = gate();
  gone.beforeStore = () => promise;
  using t = setUp(new WatchedDevice(), [gone, kept], {
    attempts: 3,
    flushBytes: LAYOUT.byteLength,
  });
  const [guard] = t.guards as [AdapterGuard];

  writeObjects(t.l1, testKeys(4), LAYOUT);
  await t.clock.advance(0);
  const emptied = t.store.emptied(guard);
  assertEquals(await hasSettled(t, emptied), false);
  t.adapters.remove(guard);
  assertEquals(losses(t), [0, 2, 0]);
  assertEquals(t.dropped, ["1 removed", "1 removed"]);
  assertEquals(t.l1.reportStatus().heldCount, 2, "what it is being given");
  assertEquals(t.store.reportStatus().inFlightObjects, 2);
  assertEquals(await hasSettled(t, emptied), false);
  // It does not answer any more: calls in flight fail, and are not retried.
  await guard.close();
  await emptied;
  assertEquals(losses(t), [0, 4, 0]);
  assertEquals(kept.count(testKeys(4)), 4);
  open();
  await t.clock.advance(0);
});

Deno.test("StoreController.emptied() resolves when an adapter has stored its queue", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new WatchedDevice(), [adapter]);
  const [guard] = t.guards as [AdapterGuard];
  await t.store.emptied(guard);
  writeObjects(t.l1, testKeys(2), LAYOUT);
  t.adapters.retire(guard);
  writeObjects(t.l1, testKeys(2, 2), LAYOUT);
  await t.store.emptied(guard);
  assertEquals(adapter.stores, [ids(testKeys(2))], "only what was queued for it before");
});

Deno.test("StoreController.emptied() resolves when what waited is forgotten", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new WatchedDevice(), [adapter]);
  const [guard] = t.guards as [AdapterGuard];
  writeObjects(t.l1, testKeys(2), LAYOUT);
  const emptied = t.store.emptied(guard);
  t.l1.forget(() => true);
  assertEquals(await hasSettled(t, emptied), true);
  assertEquals(losses(t), [0, 0, 2]);
});

Deno.test("StoreController's dispose drops everything and leaves nothing behind", async () => {
  const [slow, broken] = [new RecordingAdapter(), new RecordingAdapter()];
  const { promise, open } = gate();
  slow.beforeStore = () => promise;
  broken.beforeStore = () => Promise.reject(new Error("broken"));
  const device = new WatchedDevice();
  using t = setUp(device, [slow, broken], {
    attempts: 3,
    flushBytes: LAYOUT.byteLength,
    maxQueuedBytes: LAYOUT.byteLength,
    whenFull: "wait",
  });
  const [guard] = t.guards as [AdapterGuard];
  writeObjects(t.l1, testKeys(4), LAYOUT);
  const waiters = [t.store.flush(), t.store.emptied(guard), t.store.ready()];
  await t.clock.advance(0);
  assertEquals(await hasSettled(t, waiters[2] as Promise<void>), false);

  t.store[Symbol.dispose]();
  await Promise.all(waiters);
  assertEquals(t.l1.reportStatus().heldCount, 0);
  assertEquals(t.store.reportStatus().unsavedObjects, 0);
  await t.store.ready();
  writeObjects(t.l1, testKeys(1, 9), LAYOUT);
  assertEquals(t.store.reportStatus().unsavedObjects, 0, "nothing is taken charge of");

  open();
  await t.store.flush();
  await t.clock.advance(0);
  assertEquals(slow.count(testKeys(4)), 2, "no batch after those that were under way");
  assertEquals(device.openReadBacks, 0);
  // Two for the slow adapter; all of them for the broken one, whether backing off or queued.
  assertEquals(losses(t), [0, 6, 0]);
});

Deno.test("StoreController's dispose counts what was never queued (on_evict)", () => {
  using t = setUp(new WatchedDevice(), [new RecordingAdapter()], { policy: onEvict });
  writeObjects(t.l1, testKeys(3), LAYOUT);
  t.store[Symbol.dispose]();
  assertEquals(losses(t), [0, 3, 0]);
});

Deno.test("StoreController offers nothing that was read back when it was disposed", async () => {
  const adapter = new RecordingAdapter();
  const device = new LosableDevice();
  using t = setUp(device, [adapter]);
  device.beforeReadBackEnds = () => t.store[Symbol.dispose]();
  writeObjects(t.l1, testKeys(1), LAYOUT);
  await t.store.flush();
  await t.clock.advance(0);
  assertEquals(adapter.stores, []);
  assertEquals(losses(t), [0, 1, 0]);
});

Deno.test("StoreController reads nothing back for an adapter that is paused", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  adapter.beforeStore = () => Promise.reject(new Error("broken"));
  for (let n = 0; n < 3; n++) {
    writeObjects(t.l1, [testKey(n)], LAYOUT);
    await t.store.flush();
  }
  const { batches } = t.store.reportStatus();
  writeObjects(t.l1, [testKey(9)], LAYOUT);
  await t.store.flush();
  const { batches: after, failedObjects } = t.store.reportStatus();
  assertEquals([after, failedObjects], [batches, 4]);

  adapter.beforeStore = () => {};
  await t.clock.advance(5_000);
  writeObjects(t.l1, [testKey(10)], LAYOUT);
  await t.store.flush();
  assertEquals(adapter.count([testKey(10)]), 1, "it is tried again");
});
