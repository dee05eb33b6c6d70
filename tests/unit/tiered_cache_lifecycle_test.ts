import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import type { TieredCacheOptions } from "../../src/cache_options.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import { DeviceLostError } from "../../src/memory/memory_device.ts";
import { WebGpuDevice } from "../../src/memory/webgpu_device.ts";
import { ManualClock } from "../../src/testing/manual_clock.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import type { ForgetSelector } from "../../src/lifecycle/key_lifecycle.ts";
import { mapAdapter, moduleOf } from "../support/adapters.ts";
import { assertIdle, listen, LosableDevice, optionsOf, put } from "../support/caches.ts";
import { gpuTest } from "../support/devices.ts";
import { fileOf, objectFilesIn } from "../support/fs_adapter.ts";
import { countHits, putObjects } from "../support/fs_cache.ts";
import { testKey, testKeys, testLayout } from "../support/objects.ts";
import { settle } from "../support/prefetch.ts";
import { gate, RecordingAdapter } from "../support/recording_adapter.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { stagedOf } from "../support/l1.ts";

const LAYOUT = testLayout(1024);
const SEALED = 1024 + 64;

/** A cache with a directory, a recording adapter and one that can neither list nor delete. */
async function openTiers(options: TieredCacheOptions = {}): Promise<
  AsyncDisposable & {
    readonly cache: TieredCache;
    readonly clock: ManualClock;
    readonly directory: string;
    readonly recording: RecordingAdapter;
    readonly plain: Map<string, Uint8Array<ArrayBuffer>>;
  }
> {
  const directory = await tempDirectory();
  const recording = new RecordingAdapter();
  const plain = new Map<string, Uint8Array<ArrayBuffer>>();
  const clock = new ManualClock();
  const cache = await TieredCache.open({
    device: new HostDevice(),
    clock,
    l1: { capacityBytes: 64 * LAYOUT.byteLength },
    adapters: [moduleOf(() => recording, "recording"), moduleOf(() => mapAdapter(plain), "plain")],
    l2: [{ type: "fs", base_path: directory.path }, { type: "recording" }, { type: "plain" }],
    ...options,
  });
  return {
    cache,
    clock,
    directory: directory.path,
    recording,
    plain,
    async [Symbol.asyncDispose]() {
      await cache.close();
      await directory[Symbol.asyncDispose]();
      assertIdle(cache);
      assertEquals([recording.lockCount, clock.pendingTimers], [0, 0]);
    },
  };
}

// The device

Deno.test("TieredCache works again with a new device, which fills from the adapters", async () => {
  const adapter = new RecordingAdapter();
  const device = new LosableDevice();
  await using cache = await TieredCache.open(optionsOf({ a: adapter }, { device }));
  const heard = listen(cache.events, "devicelost", "deviceattached");
  const removed = listen(cache.events, "removed");
  await putObjects(cache, testKeys(3), LAYOUT);
  put(cache, testKeys(1, 10), LAYOUT);
  const reserved = stagedOf(cache.reserveWrite(testKeys(1, 20), LAYOUT));
  using hit = await cache.match(testKeys(3), LAYOUT);

  await device.lose("a driver was updated");
  assertEquals(heard, [["devicelost", { message: "a driver was updated" }]]);
  assertEquals(removed.map(([, { reason }]) => reason), Array(4).fill("device-lost"));
  assertThrows(() => hit.ranges(), DeviceLostError, "attachDevice");
  assertEquals(cache.reserveWrite(testKeys(1, 30), LAYOUT)[0]?.status, "device-lost");
  assertEquals(cache.finishWrite(reserved), ["device-lost"]);
  assertEquals((await cache.match(testKeys(3), LAYOUT)).length, 0);
  await cache.flush();
  assertIdle(cache);
  assertEquals(cache.reportStatus().problems, [
    "the GPU device is lost: call attachDevice() with a new one",
  ]);

  const next = new LosableDevice();
  await cache.attachDevice(next);
  assert(cache.device === next);
  assertEquals(heard.at(-1), ["deviceattached", { description: "host memory" }]);
  assertEquals(cache.reportStatus().problems, []);
  assertThrows(() => hit.ranges(), DeviceLostError, undefined, "what was pinned is gone");
  hit[Symbol.dispose]();
  using again = await cache.match(testKeys(3), LAYOUT);
  assertEquals([again.length, again.l1Objects], [3, 0]);
  again[Symbol.dispose]();
  assertEquals(await countHits(cache, testKeys(3), LAYOUT), 3);
  assertEquals(await countHits(cache, testKeys(1, 10), LAYOUT), 0, "only L1 had it");
  await putObjects(cache, testKeys(2, 40), LAYOUT);
  assertEquals(adapter.count(testKeys(2, 40)), 2);

  await next.lose();
  await cache.attachDevice(new LosableDevice());
  assertEquals(await countHits(cache, testKeys(3), LAYOUT), 3, "as often as it happens");
  assertEquals(heard.map(([type]) => type), [
    "devicelost",
    "deviceattached",
    "devicelost",
    "deviceattached",
  ]);
});

Deno.test("TieredCache.attachDevice() refuses a device where one works, or nothing is open", async () => {
  const device = new LosableDevice();
  const cache = await TieredCache.open(optionsOf({ a: new RecordingAdapter() }, { device }));
  const another = new LosableDevice();
  await assertRejects(() => cache.attachDevice(another), Error, "The device is not lost");
  await putObjects(cache, testKeys(2), LAYOUT);
  assertEquals(await countHits(cache, testKeys(2), LAYOUT), 2);
  assert(cache.device === device);
  await device.lose();
  await cache.close();
  await assertRejects(() => cache.attachDevice(another), Error, "Cache is closed");
});

Deno.test("TieredCache.attachDevice() takes the first of two devices at once", async () => {
  const device = new LosableDevice();
  await using cache = await TieredCache.open(optionsOf({ a: new RecordingAdapter() }, { device }));
  await device.lose();
  const [first, second] = [new LosableDevice(), new LosableDevice()];
  const outcomes = await Promise.allSettled([
    cache.attachDevice(first),
    cache.attachDevice(second),
  ]);
  assertEquals(outcomes.map(({ status }) => status), ["fulfilled", "rejected"]);
  assert(cache.device === first);
  await putObjects(cache, testKeys(2), LAYOUT);
  assertEquals(await countHits(cache, testKeys(2), LAYOUT), 2);
});

Deno.test("TieredCache.attachDevice() leaves a closed cache closed", async () => {
  const device = new LosableDevice();
  const cache = await TieredCache.open(optionsOf({ a: new RecordingAdapter() }, { device }));
  await device.lose();
  const attached = cache.attachDevice(new LosableDevice());
  const closed = cache.close();
  await assertRejects(() => attached, Error, "Cache is closed");
  await closed;
});

Deno.test("TieredCache checks objects against the device that it has", async () => {
  const device = new LosableDevice();
  await using cache = await TieredCache.open(optionsOf({ a: new RecordingAdapter() }, { device }));
  const layout = testLayout(8192);
  assertEquals(cache.reserveWrite(testKeys(1), layout)[0]?.status, "success");
  await device.lose();
  const small = new class extends LosableDevice {
    override readonly maxSlabBytes = 4096;
  }();
  await cache.attachDevice(small);
  assertEquals(cache.maxObjectBytes, 4096);
  assertThrows(() => cache.reserveWrite(testKeys(1), layout), RangeError, "must fit");
});

gpuTest(
  "TieredCache.attachDevice() requests a device if it gets none, and releases it",
  async () => {
    const cache = await TieredCache.open({ l1: { capacityBytes: 2 ** 20 } });
    const { device } = cache;
    assert(device instanceof WebGpuDevice);
    device.gpuDevice.destroy();
    await device.lost;
    await cache.attachDevice();
    const next = cache.device;
    assert(next instanceof WebGpuDevice && next !== device);
    await putObjects(cache, testKeys(2), LAYOUT);
    assertEquals(await countHits(cache, testKeys(2), LAYOUT), 2);
    await cache.close();
    assertEquals((await next.gpuDevice.lost).reason, "destroyed");
  },
);

// Status

Deno.test("TieredCache says in words what does not work", async () => {
  const adapter = new RecordingAdapter();
  const clock = new ManualClock();
  const device = new LosableDevice();
  const store = { attempts: 1 };
  const breaker = { failures: 2, coolDownMs: 60_000 };
  await using cache = await TieredCache.open(
    optionsOf({ a: adapter, b: new RecordingAdapter() }, { clock, device, store, breaker }),
  );
  adapter.beforeStore = () => Promise.reject(new Error("the disk is on fire"));
  for (let n = 0; n < 2; n++) await putObjects(cache, [testKey(n)], LAYOUT);
  const problem = "adapter 0 (a): store is paused for another 60 s: ";
  const [first = "", ...others] = cache.reportStatus().problems;
  assertStringIncludes(first, problem);
  assertStringIncludes(first, "the disk is on fire");
  assertEquals(others, []);
  assertEquals(cache.reportStatus().adapters[0]?.circuits.store.state, "open");
  assertEquals(cache.listAdapters().map(({ isHealthy }) => isHealthy), [false, true]);
  await device.lose();
  assertEquals(cache.reportStatus().problems.length, 2);
  assertEquals(cache.reportStatus().isHealthy, false);
  const status = cache.reportStatus();
  assertEquals(JSON.parse(JSON.stringify(status)).problems, status.problems);
});

// Pins

Deno.test("TieredCache.pin() keeps objects in L1 and in adapters that the cache bounds", async () => {
  const adapter = new RecordingAdapter();
  const eviction = {
    "max_capacity_gb": 6 * SEALED / 2 ** 30,
    "trigger_watermark": 1,
    "eviction_ratio": 0.5,
  };
  await using cache = await TieredCache.open(
    optionsOf({ a: adapter }, {
      l1: { capacityBytes: 6 * LAYOUT.byteLength },
      l2: [{ type: "a", eviction }],
    }),
  );
  const pinned = testKeys(2);
  // A pin applies to an object that is stored later.
  cache.pin(pinned);
  await putObjects(cache, pinned, LAYOUT);
  assertEquals([cache.reportStatus().lifecycle.pinned, cache.reportStatus().l1.protectedCount], [
    2,
    2,
  ]);
  for (let n = 10; n < 30; n++) {
    await putObjects(cache, [testKey(n)], LAYOUT);
    await settle();
  }
  assertEquals(adapter.count(pinned), 2, "the adapter has them");
  assert(adapter.held.size <= 6);
  cache.clearL1();
  adapter.beforeLookup = () => Promise.reject(new Error("not asked"));
  assertEquals(await countHits(cache, pinned, LAYOUT), 2, "L1 has them");

  cache.unpin(pinned);
  assertEquals(cache.reportStatus().lifecycle.pinned, 0);
  adapter.beforeLookup = () => {};
  for (let n = 30; n < 50; n++) {
    await putObjects(cache, [testKey(n)], LAYOUT);
    await settle();
  }
  assertEquals(adapter.count(pinned), 0);
  assertEquals(await countHits(cache, pinned, LAYOUT), 0);
});

// Times to live

Deno.test("TieredCache.ttl() removes objects from every tier when their time is over", async () => {
  await using t = await openTiers();
  const { cache, clock, directory, recording } = t;
  await cache.removeAdapter(2); // It cannot delete.
  const [short, long, taken] = [testKeys(2), testKeys(2, 10), testKeys(2, 20)];
  await putObjects(cache, [...short, ...long, ...taken], LAYOUT);
  cache.ttl([...short, ...taken], 1_000);
  cache.ttl(long, 5_000);
  cache.ttl(taken, null);
  assertEquals(cache.reportStatus().lifecycle.expiring, 4);
  await clock.advance(999);
  assertEquals(await countHits(cache, short, LAYOUT), 2);
  await clock.advance(1);
  assertEquals(await countHits(cache, short, LAYOUT), 0, "at once, whatever the adapters do");
  const { events } = cache;
  const gone = Promise.withResolvers<void>();
  events.addEventListener(
    "deleted",
    ({ detail }) => detail.adapter.type === "fs" && gone.resolve(),
  );
  if ((await objectFilesIn(directory)).length > 4) await gone.promise;
  assertEquals((await objectFilesIn(directory)).length, 4);
  assertEquals([recording.count(short), recording.count(long), recording.count(taken)], [0, 2, 2]);
  for (const keys of [long, taken]) assertEquals(await countHits(cache, keys, LAYOUT), 2);
  assertThrows(() => cache.ttl(short, -1), RangeError, "Time to live must be at least 0 ms");
  cache.ttl(long, null);
});

// Forgetting

const selectors: Record<string, (keys: readonly ObjectKey[]) => ForgetSelector> = {
  "keys": (keys) => ({ keys }),
  "a salt": () => ({ salt: "alice" }),
  "a model": () => ({ model: "other/model" }),
};
for (const [name, selectorOf] of Object.entries(selectors)) {
  Deno.test(`TieredCache.forget() removes ${name} from every tier, and says what it removed`, async () => {
    await using t = await openTiers();
    const { cache, directory, recording } = t;
    const fields = { model: "other/model", cacheSalt: "alice" };
    const mine = [0, 1, 2].map((n) => testKey(n, fields));
    const others = testKeys(2);
    await putObjects(cache, [...mine, ...others], LAYOUT);
    cache.pin(mine.slice(0, 1));
    cache.ttl(mine.slice(1, 2), 60_000);
    using hit = await cache.match(mine, LAYOUT);

    const report = await cache.forget(selectorOf(mine));
    assertEquals(report.l1, { objects: 3, bytes: 3 * LAYOUT.byteLength });
    const [fs, recorded, plain] = report.adapters;
    const all = { objects: 3, bytes: 3 * SEALED, complete: true };
    assertEquals(fs, { id: 0, type: "fs", ...all });
    assertEquals(recorded, { id: 1, type: "recording", ...all });
    assertEquals([plain?.objects, plain?.complete], [0, false]);
    assertStringIncludes(plain?.problem ?? "", "it cannot delete objects");

    assertEquals(hit.ranges().length, 3, "readers may finish");
    assertEquals(cache.reportStatus().l1.leavingCount, 3);
    hit[Symbol.dispose]();
    t.plain.clear();
    assertEquals(await countHits(cache, mine, LAYOUT), 0);
    assertEquals(await countHits(cache, others, LAYOUT), 2);
    assertEquals([recording.count(mine), recording.count(others)], [0, 2]);
    assertEquals((await objectFilesIn(directory)).length, 2);
    const { pinned, expiring } = cache.reportStatus().lifecycle;
    assertEquals([pinned, expiring], [0, 0]);
    await putObjects(cache, mine, LAYOUT);
    assertEquals(await countHits(cache, mine, LAYOUT), 3, "they can be stored again");
    await Deno.stat(fileOf(directory, mine[0] as ObjectKey));
  });
}

Deno.test("TieredCache.forget() overtakes what is queued, being stored, loaded or written", async () => {
  const adapter = new RecordingAdapter();
  await using cache = await TieredCache.open(optionsOf({ a: adapter }));
  const [queued, storing, loading, written] = [0, 10, 20, 30].map((n) => testKeys(2, n)) as [
    ObjectKey[],
    ObjectKey[],
    ObjectKey[],
    ObjectKey[],
  ];
  adapter.seed(loading, LAYOUT);
  const [stored, loaded, released] = [gate(), gate(), gate()];
  adapter.beforeStore = () => {
    stored.open();
    return released.promise;
  };
  adapter.beforeLoad = () => {
    loaded.open();
    return released.promise;
  };
  put(cache, storing, LAYOUT);
  const flushed = cache.flush();
  const matched = cache.match(loading, LAYOUT);
  const staged = stagedOf(cache.reserveWrite(written, LAYOUT));
  await Promise.all([stored.promise, loaded.promise]);
  put(cache, queued, LAYOUT);

  const forgotten = cache.forget({ model: "test/model" });
  assertEquals(cache.reportStatus().lifecycle.forgetting, 1);
  assertEquals(cache.reportStatus().l1.totalObjectCount, 0, "L1 forgets at once");
  assertEquals(cache.finishWrite(staged), written.map(() => "key-not-exist"));
  await settle();
  assertEquals(adapter.deletes, [], "it waits for what is under way");
  released.open();
  const [report, hit] = await Promise.all([forgotten, matched, flushed]);
  assertEquals(hit.length, 0, "what was being loaded is not admitted");
  assertEquals(report.adapters.map(({ complete }) => complete), [true]);
  assertEquals(adapter.held.size, 0);
  for (const keys of [queued, storing, loading, written]) {
    assertEquals(await countHits(cache, keys, LAYOUT), 0);
  }
  assertIdle(cache);
});

Deno.test("TieredCache.forget() names an adapter that fails, and what to do", async () => {
  const adapter = new RecordingAdapter();
  await using cache = await TieredCache.open(optionsOf({ a: adapter }));
  await putObjects(cache, testKeys(2), LAYOUT);
  adapter.beforeDelete = () => Promise.reject(new Error("read-only"));
  const { adapters: [first] } = await cache.forget({ keys: testKeys(2) });
  assertEquals([first?.objects, first?.complete], [0, false]);
  assertStringIncludes(first?.problem ?? "", "forget again later");
  assertStringIncludes(first?.problem ?? "", "read-only");
});

Deno.test("TieredCache rejects selectors and calls that cannot be", async () => {
  const cache = await TieredCache.open(optionsOf({ a: new RecordingAdapter() }));
  const wrong = [{}, { salt: "a", model: "b" }, { salt: "a\nb" }, { salt: undefined }, {
    model: "a@b",
  }];
  for (const selector of wrong) {
    await assertRejects(() => cache.forget(selector as ForgetSelector), TypeError);
  }
  await cache.close();
  await assertRejects(() => cache.forget({ salt: "a" }), Error, "Cache is closed");
  await assertRejects(() => cache.warm([]), Error);
  await assertRejects(() => cache.storeReady(), Error, "Cache is closed");
  assertThrows(() => cache.pin(testKeys(1)), Error, "Cache is closed");
  assertThrows(() => cache.ttl(testKeys(1), 5), Error, "Cache is closed");
  cache.unpin(testKeys(1));
});
