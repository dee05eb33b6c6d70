import { assert, assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import type { L1Cache, L1Pin } from "../../../src/l1/l1_cache.ts";
import type { L2Adapter } from "../../../src/l2/adapter.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import type { MemoryDevice } from "../../../src/memory/memory_device.ts";
import { StagingPool } from "../../../src/memory/staging_pool.ts";
import { WebGpuDevice } from "../../../src/memory/webgpu_device.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import {
  PrefetchController,
  type PrefetchOptions,
  type PrefetchResult,
} from "../../../src/tiering/prefetch_controller.ts";
import { deviceTest, gpuTest } from "../../support/devices.ts";
import { assertNoLocks, assertRanges, lruL1, writeObjects } from "../../support/l1.ts";
import { testKey, testKeys, testLayout } from "../../support/objects.ts";
import { gate, guardAll, RecordingAdapter } from "../../support/recording_adapter.ts";

const LAYOUT = testLayout(1024);
const BLOCK_BYTES = 4096;

interface SetUp extends Disposable {
  readonly clock: ManualClock;
  readonly l1: L1Cache;
  readonly scratch: StagingPool<Uint8Array<ArrayBuffer>>;
  readonly prefetch: PrefetchController;
  /** Prefetches and gives the pins back: how many objects were served, and how many from L1. */
  count(keys: readonly ObjectKey[], options?: PrefetchOptions): Promise<[number, number]>;
  release(result: PrefetchResult): void;
}

function setUp(
  device: MemoryDevice,
  adapters: readonly L2Adapter[],
  options: { capacityBytes?: number; scratchBlocks?: number; writeTtlMs?: number } = {},
): SetUp {
  const { capacityBytes = 64 * 1024, scratchBlocks = 16, writeTtlMs = 600_000 } = options;
  const clock = new ManualClock();
  const l1 = lruL1(device, clock, capacityBytes, { writeTtlMs });
  const scratch = new StagingPool({
    blockBytes: BLOCK_BYTES,
    capacityBytes: scratchBlocks * BLOCK_BYTES,
    create: () => new Uint8Array(BLOCK_BYTES),
    destroy: () => {},
  });
  const guards = guardAll(adapters, clock);
  const prefetch = new PrefetchController({ l1, adapters: guards, scratch, clock });
  const release = ({ pins }: PrefetchResult): void => void l1.finishRead(pins);
  return {
    clock,
    l1,
    scratch,
    prefetch,
    release,
    async count(keys, options = {}) {
      const result = await prefetch.prefetch(keys, LAYOUT, options);
      release(result);
      return [result.pins.length, result.l1Objects];
    },
    [Symbol.dispose]() {
      assertNoLocks(l1);
      assertEquals(prefetch.reportStatus().inFlightRequests, 0, "requests");
      assertEquals(scratch.lentBytes, 0, "scratch");
      assertEquals(clock.pendingTimers, 0, "timers");
      for (const adapter of adapters) {
        if (adapter instanceof RecordingAdapter) assertEquals(adapter.lockCount, 0, "L2 locks");
      }
      l1[Symbol.dispose]();
      scratch[Symbol.dispose]();
    },
  };
}

/** Lets everything run that does not wait for time. */
async function settle(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve));
}

function ranges({ pins }: { pins: readonly L1Pin[] }): L1Pin["range"][] {
  return pins.map(({ range }) => range);
}

function residents(l1: L1Cache, keys: readonly ObjectKey[]): boolean[] {
  return keys.map((key) => l1.has(key));
}

Deno.test("PrefetchController.prefetch() of no keys is an empty hit", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  assertEquals(await t.count([]), [0, 0]);
  assertEquals(adapter.lookups, []);
});

Deno.test("PrefetchController.prefetch() asks no adapter for what is in L1", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(4);
  writeObjects(t.l1, keys, LAYOUT);

  const hit = await t.prefetch.prefetch(keys, LAYOUT);
  assertEquals([hit.pins.length, hit.l1Objects], [4, 4]);
  assertEquals(adapter.lookups, []);
  assertEquals(t.l1.delete(keys), keys.map(() => "key-is-locked"));
  t.release(hit);
});

Deno.test("PrefetchController.prefetch() without adapters serves what is in L1", async () => {
  using t = setUp(new HostDevice(), []);
  writeObjects(t.l1, testKeys(2), LAYOUT);
  writeObjects(t.l1, testKeys(1, 3), LAYOUT);
  assertEquals(await t.count(testKeys(4)), [2, 2]);
});

deviceTest("PrefetchController.prefetch() loads what an adapter has", async (device) => {
  const adapter = new RecordingAdapter();
  using t = setUp(device, [adapter]);
  const keys = testKeys(30);
  adapter.seed(keys, LAYOUT);
  let written = 0;
  t.l1.addListener({ written: (objects) => written += objects.length });

  const hit = await t.prefetch.prefetch(keys, LAYOUT);
  assertEquals(hit.l1Objects, 0);
  await assertRanges(device, ranges(hit), keys);
  assertEquals(t.l1.reportStatus().readLockedCount, 30);
  t.release(hit);

  assertEquals(await t.count(keys), [30, 30]);
  assertEquals(adapter.lookups.length, 1, "the second time all of it was in L1");
  assertEquals(written, 0, "nothing that was loaded is to be stored again");
  const { l1Objects, l2Objects, requestedObjects } = t.prefetch.reportStatus();
  assertEquals([l1Objects, l2Objects, requestedObjects], [30, 30, 60]);
});

deviceTest("PrefetchController.prefetch() joins L1 and an adapter", async (device) => {
  const adapter = new RecordingAdapter();
  using t = setUp(device, [adapter]);
  const keys = testKeys(6);
  writeObjects(t.l1, [...keys.slice(0, 2), ...keys.slice(4, 5)], LAYOUT);
  adapter.seed(keys, LAYOUT);

  const hit = await t.prefetch.prefetch(keys, LAYOUT);
  assertEquals(hit.l1Objects, 3);
  await assertRanges(device, ranges(hit), keys);
  t.release(hit);
  assertEquals(adapter.loads.flat().length, 3);
});

for (const adapterCount of [1, 2]) {
  Deno.test(`PrefetchController.prefetch() stops at a gap with ${adapterCount} adapter(s)`, async () => {
    const adapters = Array.from({ length: adapterCount }, () => new RecordingAdapter());
    using t = setUp(new HostDevice(), adapters);
    const keys = testKeys(5);
    for (const adapter of adapters) adapter.seed(keys.toSpliced(2, 1), LAYOUT);

    assertEquals(await t.count(keys), [2, 0]);
    assertEquals(
      adapters.flatMap(({ loads }) => loads.flat()),
      keys.slice(0, 2).map(({ id }) => id),
    );
    assertEquals(residents(t.l1, keys), [true, true, false, false, false]);
  });
}

Deno.test("PrefetchController.prefetch() gives back pins beyond a gap", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(5);
  adapter.seed(keys.slice(0, 2), LAYOUT);
  writeObjects(t.l1, keys.slice(3), LAYOUT);

  const hit = await t.prefetch.prefetch(keys, LAYOUT);
  assertEquals([hit.pins.length, hit.l1Objects], [2, 0]);
  assertEquals(t.l1.delete(keys.slice(3)), ["success", "success"]);
  t.release(hit);
});

Deno.test("PrefetchController.prefetch() loads nothing if the first object is missing", async () => {
  const adapters = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp(new HostDevice(), adapters);
  const keys = testKeys(4);
  for (const adapter of adapters) adapter.seed(keys.slice(1), LAYOUT);
  writeObjects(t.l1, keys.slice(3), LAYOUT);

  assertEquals(await t.count(keys), [0, 0]);
  assertEquals(adapters.flatMap(({ loads }) => loads), []);
});

deviceTest("PrefetchController.prefetch() joins what adapters have apart", async (device) => {
  const adapters = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp(device, adapters);
  const keys = testKeys(8);
  for (const [a, adapter] of adapters.entries()) {
    adapter.seed(keys.filter((_, i) => i % 2 === a), LAYOUT);
  }

  const hit = await t.prefetch.prefetch(keys, LAYOUT);
  await assertRanges(device, ranges(hit), keys);
  t.release(hit);
  assertEquals(adapters.map(({ loads }) => loads.flat().length), [4, 4]);
});

Deno.test("PrefetchController.prefetch() loads from the first adapter that has an object", async () => {
  const adapters = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp(new HostDevice(), adapters);
  const keys = testKeys(4);
  adapters[0]?.seed(keys.slice(0, 2), LAYOUT);
  adapters[1]?.seed(keys, LAYOUT);

  assertEquals(await t.count(keys), [4, 0]);
  const ids = keys.map(({ id }) => id);
  assertEquals(adapters.map(({ loads }) => loads.flat()), [ids.slice(0, 2), ids.slice(2)]);
});

deviceTest(
  "PrefetchController.prefetch() ends before an object that fails to load",
  async (device) => {
    const adapter = new RecordingAdapter();
    using t = setUp(device, [adapter]);
    const keys = testKeys(6);
    adapter.seed(keys, LAYOUT);
    adapter.beforeLoad = () => void adapter.held.delete(keys[3]?.id ?? "");

    const hit = await t.prefetch.prefetch(keys, LAYOUT);
    await assertRanges(device, ranges(hit), keys.slice(0, 3));
    t.release(hit);
    assertEquals(t.l1.has(keys[3] as ObjectKey), false);
  },
);

Deno.test("PrefetchController.prefetch() stops loading behind an object that fails to load", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(48);
  adapter.seed(keys, LAYOUT);
  adapter.beforeLoad = () => void adapter.held.delete(keys[3]?.id ?? "");

  assertEquals(await t.count(keys), [3, 0]);
  assertEquals(adapter.loads.length, 2, "of four batches, two were under way");
});

Deno.test("PrefetchController.prefetch() ends before an object that is damaged", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(4);
  adapter.seed(keys, LAYOUT);
  const bytes = adapter.held.get(keys[1]?.id ?? "") as Uint8Array;
  bytes[17] = (bytes[17] ?? 0) ^ 1;

  assertEquals(await t.count(keys), [1, 0]);
  assertEquals(t.l1.has(keys[1] as ObjectKey), false);
});

Deno.test("PrefetchController.prefetch() survives an adapter that claims what it cannot load", async () => {
  const liar = new RecordingAdapter();
  using t = setUp(new HostDevice(), [liar]);
  const keys = testKeys(4);
  liar.seed(keys, LAYOUT);
  for (const failure of [new Error("broken"), undefined]) {
    liar.beforeLoad = () => Promise.reject(failure);
    assertEquals(await t.count(keys), [0, 0]);
    assertEquals(residents(t.l1, keys), keys.map(() => false));
  }
  // It is not left out for ever.
  liar.beforeLoad = () => {};
  assertEquals(await t.count(keys), [4, 0]);
});

Deno.test("PrefetchController.prefetch() does without an adapter whose lookup fails", async () => {
  const adapters = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp(new HostDevice(), adapters);
  const keys = testKeys(4);
  for (const adapter of adapters) adapter.seed(keys, LAYOUT);
  (adapters[0] as RecordingAdapter).beforeLookup = () => {
    throw new Error("broken");
  };
  assertEquals(await t.count(keys), [4, 0]);
  assertEquals(adapters[0]?.loads, []);
});

deviceTest(
  "PrefetchController.prefetch() of a prompt larger than L1 serves its head",
  async (device) => {
    const adapter = new RecordingAdapter();
    using t = setUp(device, [adapter], { capacityBytes: 4 * LAYOUT.byteLength });
    const keys = testKeys(9);
    adapter.seed(keys, LAYOUT);

    const hit = await t.prefetch.prefetch(keys, LAYOUT);
    await assertRanges(device, ranges(hit), keys.slice(0, 4));
    assertEquals(t.prefetch.reportStatus().outOfMemory, 1);
    t.release(hit);
  },
);

Deno.test("PrefetchController.prefetch() gives up the tail in L1 for a head that is not", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter], { capacityBytes: 4 * LAYOUT.byteLength });
  const keys = testKeys(6);
  adapter.seed(keys, LAYOUT);
  writeObjects(t.l1, keys.slice(2), LAYOUT);

  const hit = await t.prefetch.prefetch(keys, LAYOUT);
  await assertRanges(t.l1.device, ranges(hit), keys.slice(0, 4));
  t.release(hit);
});

Deno.test("PrefetchController.prefetch() evicts what nobody reads, never what somebody does", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter], { capacityBytes: 4 * LAYOUT.byteLength });
  writeObjects(t.l1, testKeys(4), LAYOUT);
  const read = await t.prefetch.prefetch(testKeys(2), LAYOUT);
  adapter.seed(testKeys(4, 10), LAYOUT);

  assertEquals(await t.count(testKeys(4, 10)), [2, 0]);
  await assertRanges(t.l1.device, ranges(read), testKeys(2));
  t.release(read);
});

deviceTest("PrefetchController serves the same keys to many at a time", async (device) => {
  const adapter = new RecordingAdapter();
  using t = setUp(device, [adapter], { capacityBytes: 128 * 1024 });
  const keys = testKeys(10);
  adapter.seed(keys, LAYOUT);

  const hits = await Promise.all(
    Array.from({ length: 6 }, () => t.prefetch.prefetch(keys, LAYOUT)),
  );
  for (const hit of hits) await assertRanges(device, ranges(hit), keys);
  for (const hit of hits) t.release(hit);
  assertEquals(t.l1.reportStatus().totalObjectCount, 10);
});

Deno.test("PrefetchController finishes more requests than fit into its scratch", async () => {
  const adapter = new RecordingAdapter();
  // One object fills one of the two blocks.
  const layout = testLayout(BLOCK_BYTES - 64);
  using t = setUp(new HostDevice(), [adapter], { capacityBytes: 2 ** 20, scratchBlocks: 2 });
  const prompts = Array.from({ length: 20 }, (_, i) => testKeys(5, i * 5));
  adapter.seed(prompts.flat(), layout);
  let open = 0;
  let most = 0;
  adapter.beforeLoad = async (batch) => {
    most = Math.max(most, open += batch.length);
    await Promise.resolve();
    open -= batch.length;
  };

  const hits = await Promise.all(prompts.map((keys) => t.prefetch.prefetch(keys, layout)));
  for (const [i, hit] of hits.entries()) {
    await assertRanges(t.l1.device, ranges(hit), prompts[i] ?? []);
  }
  for (const hit of hits) t.release(hit);
  assertEquals(most, 2, "objects in flight");
});

Deno.test("PrefetchController.prefetch() serves the same key twice in a chain as one gap at most", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const [a, b] = testKeys(2);
  const chain = [a, b, a, b] as ObjectKey[];
  adapter.seed(chain, LAYOUT);
  const hit = await t.prefetch.prefetch(chain, LAYOUT);
  await assertRanges(t.l1.device, ranges(hit), chain.slice(0, hit.pins.length));
  assert(hit.pins.length >= 2);
  t.release(hit);
  assertEquals(await t.count(chain), [4, 4]);
});

Deno.test("PrefetchController.prefetch() misses a resident object of another layout", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(3);
  writeObjects(t.l1, keys.slice(1, 2), testLayout(512));
  assertEquals(await t.count(keys.slice(1)), [0, 0]);

  // The adapter has the layout that is asked for, but there is one place for a key in L1.
  adapter.seed(keys, LAYOUT);
  const hit = await t.prefetch.prefetch(keys, LAYOUT);
  assertEquals(hit.pins.map(({ layout }) => layout.byteLength), [1024]);
  t.release(hit);
});

Deno.test("PrefetchController.prefetch() misses an object whose layout became another meanwhile", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(2);
  adapter.seed(keys, LAYOUT);
  adapter.beforeLoad = () => writeObjects(t.l1, keys, testLayout(512));
  assertEquals(await t.count(keys), [0, 0]);
});

Deno.test("PrefetchController.prefetch() at its deadline serves what is there: in a lookup", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(4);
  adapter.seed(keys, LAYOUT);
  writeObjects(t.l1, keys.slice(0, 2), LAYOUT);
  const { promise, open } = gate();
  adapter.beforeLookup = () => promise;

  const pending = t.count(keys, { deadlineMs: 100 });
  await t.clock.advance(99);
  assertEquals(t.prefetch.reportStatus().deadlines, 0);
  await t.clock.advance(1);
  assertEquals(await pending, [2, 2]);
  assertEquals(t.prefetch.reportStatus().deadlines, 1);

  open(); // What it locks now is unlocked, and nothing is loaded.
  await settle();
  assertEquals(adapter.loads, []);
});

Deno.test("PrefetchController.prefetch() at its deadline serves what is there: in a load", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(30);
  adapter.seed(keys, LAYOUT);
  const { promise, open } = gate();
  // The first batch of twelve comes in time.
  adapter.beforeLoad = () => adapter.loads.length === 1 ? undefined : promise;

  const pending = t.prefetch.prefetch(keys, LAYOUT, { deadlineMs: 100 });
  await settle();
  await t.clock.advance(100);
  const hit = await pending;
  await assertRanges(t.l1.device, ranges(hit), keys.slice(0, 12));
  t.release(hit);
  assertEquals(t.l1.reportStatus().readLockedCount, 0);
  assert(t.scratch.lentBytes > 0, "buffers stay with the adapter");

  open(); // What comes late is worth keeping, but nobody holds it.
  await settle();
  assert(residents(t.l1, keys.slice(12, 24)).every((isResident) => isResident));
  assertNoLocks(t.l1);
});

Deno.test("PrefetchController.prefetch() at its deadline serves what is there: waiting for scratch", async () => {
  const adapter = new RecordingAdapter();
  // The load of one object fills the scratch.
  const layout = testLayout(2 * BLOCK_BYTES - 64);
  using t = setUp(new HostDevice(), [adapter], { scratchBlocks: 2 });
  const [first, second] = [testKeys(1), testKeys(1, 1)];
  adapter.seed([...first, ...second], layout);
  const { promise, open } = gate();
  adapter.beforeLoad = () => promise;

  const loading = t.prefetch.prefetch(first, layout);
  const waiting = t.prefetch.prefetch(second, layout, { deadlineMs: 100 });
  await settle();
  assertEquals(t.l1.reportStatus().stagingObjectCount, 1, "who waits holds no device memory");
  await t.clock.advance(100);
  assertEquals((await waiting).pins, []);

  open();
  t.release(await loading);
  await settle();
  assertEquals(adapter.loads, [first.map(({ id }) => id)], "nobody waits for the second");
});

Deno.test("PrefetchController.prefetch() that is answered in time leaves no deadline behind", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  adapter.seed(testKeys(2), LAYOUT);
  assertEquals(await t.count(testKeys(2), { deadlineMs: 100 }), [2, 0]);
  assertEquals(t.clock.pendingTimers, 0);
  assertEquals(t.prefetch.reportStatus().deadlines, 0);
});

deviceTest(
  "PrefetchController never writes into room that it has held for too long",
  async (device) => {
    const adapter = new RecordingAdapter();
    const capacityBytes = LAYOUT.byteLength;
    using t = setUp(device, [adapter], { capacityBytes, writeTtlMs: 10_000 });
    const [key, other] = [testKey(0), testKey(1)];
    adapter.seed([key], LAYOUT);
    const { promise, open } = gate();
    adapter.beforeLoad = () => promise;
    const waiting = t.count([key]);
    await settle();
    await t.clock.advance(10_000);
    // The only room there is goes to another object before the load ends.
    writeObjects(t.l1, [other], LAYOUT);
    open();
    assertEquals(await waiting, [0, 0]);

    const hit = await t.prefetch.prefetch([other], LAYOUT);
    await assertRanges(device, ranges(hit), [other]);
    t.release(hit);
  },
);

deviceTest(
  "PrefetchController never lends buffers that an adapter may still write to",
  async (device) => {
    const [slow, good] = [new RecordingAdapter(), new RecordingAdapter()];
    using t = setUp(device, [slow, good]);
    const [slowKeys, goodKeys] = [testKeys(10), testKeys(60, 100)];
    slow.seed(slowKeys, LAYOUT);
    good.seed(goodKeys.slice(0, 40), LAYOUT);
    const { promise, open } = gate();
    slow.beforeLoad = async (batch) => {
      await promise;
      for (const { parts } of batch) for (const part of parts) part.fill(0xee);
    };
    const waiting = t.count(slowKeys, { deadlineMs: 100 });
    await settle();
    await t.clock.advance(100);
    assertEquals(await waiting, [0, 0]);
    // The adapter's own deadline passes as well, and still it has not let go.
    await t.clock.advance(30_000);

    // The adapter that is late writes while another's objects wait to be verified and uploaded.
    const load = good.load.bind(good);
    good.load = async (...args) => {
      const loaded = await load(...args);
      open();
      await settle();
      return loaded;
    };
    const hit = await t.prefetch.prefetch(goodKeys, LAYOUT);
    await assertRanges(device, ranges(hit), goodKeys.slice(0, 40));
    t.release(hit);
    await settle();
    assertEquals(residents(t.l1, slowKeys), slowKeys.map(() => false));
  },
);

Deno.test("PrefetchController goes on without an adapter that hangs for ever", async () => {
  const [hung, good] = [new RecordingAdapter(), new RecordingAdapter()];
  // A single load of the hung adapter takes all there is of scratch.
  const layout = testLayout(2 * BLOCK_BYTES - 64);
  using t = setUp(new HostDevice(), [hung, good], { scratchBlocks: 2 });
  const keys = testKeys(3);
  hung.seed(keys, layout);
  good.seed(keys, layout);
  const { promise, open } = gate();
  hung.beforeLoad = () => promise;

  const pending = t.prefetch.prefetch(keys, layout);
  await t.clock.advance(0);
  await t.clock.advance(30_000);
  assertEquals((await pending).pins, []);

  const hit = await t.prefetch.prefetch(keys, layout);
  await assertRanges(t.l1.device, ranges(hit), keys);
  t.release(hit);
  await t.prefetch.idle();

  open();
  await settle();
});

Deno.test("PrefetchController.prefetch() rejects when the caller aborts", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(4);
  adapter.seed(keys, LAYOUT);
  writeObjects(t.l1, keys.slice(0, 1), LAYOUT);
  const signal = AbortSignal.abort(new Error("before"));
  await assertRejects(() => t.prefetch.prefetch(keys, LAYOUT, { signal }), Error, "before");
  assertEquals(adapter.lookups, []);

  for (const phase of ["beforeLookup", "beforeLoad"] as const) {
    const { promise, open } = gate();
    const reached = gate();
    adapter[phase] = () => {
      reached.open();
      return promise;
    };
    const controller = new AbortController();
    const pending = t.prefetch.prefetch(keys, LAYOUT, {
      signal: controller.signal,
      deadlineMs: 100,
    });
    await reached.promise;
    controller.abort(new Error(phase));
    await assertRejects(() => pending, Error, phase);
    assertEquals(t.l1.reportStatus().readLockedCount, 0);
    open();
    await settle();
    assertNoLocks(t.l1);
    assertEquals(t.clock.pendingTimers, 0);
    adapter[phase] = () => {};
  }
});

Deno.test("PrefetchController.prefetch() answers once, whenever the caller aborts", async () => {
  let answers = 0;
  // Which turn of the microtask queue brings the answer, is its own affair: all are tried.
  for (let turns = 0; turns < 60; turns++) {
    const adapter = new RecordingAdapter();
    using t = setUp(new HostDevice(), [adapter]);
    const keys = testKeys(4);
    adapter.seed(keys, LAYOUT);
    const reached = gate();
    adapter.beforeLoad = () => reached.open();
    const controller = new AbortController();

    const outcome = t.prefetch.prefetch(keys, LAYOUT, {
      signal: controller.signal,
      deadlineMs: 100,
    }).catch(() => null);
    await reached.promise;
    for (let turn = 0; turn < turns; turn++) await Promise.resolve();
    controller.abort();
    const hit = await outcome;
    await settle();

    assertEquals(t.l1.reportStatus().readLockedCount, hit === null ? 0 : 4, `${turns} turns`);
    if (hit === null) continue;
    answers++;
    assert(hit.pins.length === 4 && hit.pins.every((pin) => t.l1.isPinned(pin)));
    t.release(hit);
  }
  assert(answers > 0 && answers < 60, "both outcomes were seen");
});

gpuTest(
  "PrefetchController.prefetch() serves nothing of a device that is lost meanwhile",
  async (gpuDevice) => {
    using device = WebGpuDevice.adopt(gpuDevice);
    const adapter = new RecordingAdapter();
    using t = setUp(device, [adapter]);
    device.lost.then(() => t.l1[Symbol.dispose]());
    const keys = testKeys(30);
    adapter.seed(keys, LAYOUT);
    adapter.beforeLoad = async () => {
      if (adapter.loads.length < 2) return;
      gpuDevice.destroy();
      await device.lost;
    };

    const hit = await t.prefetch.prefetch(keys, LAYOUT);
    assert(!hit.pins.some((pin) => t.l1.isPinned(pin)));
    t.release(hit);
    assertEquals(await t.count(keys), [0, 0]);
    assertEquals(adapter.count(keys), 30, "objects of the adapter");
  },
);

Deno.test("PrefetchController.prefetch() serves the longest prefix, whoever has what", async () => {
  const LENGTH = 30;
  const someOf = fc.uniqueArray(fc.nat(LENGTH - 1), { maxLength: LENGTH });
  const almostAll = someOf.map((absent) =>
    Array.from({ length: LENGTH }, (_, i) => i).filter((i) => !absent.slice(0, 3).includes(i))
  );
  const places = fc.oneof(someOf, almostAll);
  await fc.assert(
    fc.asyncProperty(places, places, places, someOf, async (inL1, inFirst, inSecond, faulty) => {
      const adapters = [new RecordingAdapter(), new RecordingAdapter()];
      using t = setUp(new HostDevice(), adapters);
      const keys = testKeys(LENGTH);
      const pick = (indices: number[]): ObjectKey[] =>
        indices.toSorted((a, b) => a - b).map((i) => keys[i] as ObjectKey);
      const broken = new Set(pick(faulty.slice(0, 2)).map(({ id }) => id));
      writeObjects(t.l1, pick(inL1), LAYOUT);
      for (const [a, indices] of [inFirst, inSecond].entries()) {
        const adapter = adapters[a] as RecordingAdapter;
        adapter.seed(pick(indices), LAYOUT);
        adapter.beforeLoad = (batch) => {
          for (const { key } of batch) if (broken.has(key.id)) adapter.held.delete(key.id);
        };
      }
      const isServed = (i: number): boolean =>
        inL1.includes(i) ||
        (inFirst.includes(i) || inSecond.includes(i)) && !broken.has(keys[i]?.id ?? "");
      const expected = keys.findIndex((_, i) => !isServed(i));

      const hit = await t.prefetch.prefetch(keys, LAYOUT);
      await assertRanges(
        t.l1.device,
        ranges(hit),
        keys.slice(0, expected < 0 ? LENGTH : expected),
      );
      t.release(hit);
    }),
    { numRuns: 60 },
  );
});
