import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { toFileUrl } from "@std/path";
import type { ObjectLayout } from "../../src/keys/kv_layout.ts";
import { defineL2Adapter, type L2Adapter } from "../../src/l2/adapter.ts";
import { ConfigError } from "../../src/l2/adapter_error.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import { DeviceLostError } from "../../src/memory/memory_device.ts";
import { WebGpuDevice } from "../../src/memory/webgpu_device.ts";
import { ManualClock } from "../../src/testing/manual_clock.ts";
import { type L2Config, TieredCache, type TieredCacheOptions } from "../../src/tiered_cache.ts";
import { moduleOf } from "../support/adapters.ts";
import { runChild } from "../support/child.ts";
import { deviceTest, gpuTest } from "../support/devices.ts";
import { countHits, putObjects } from "../support/fs_cache.ts";
import { directoryOf } from "../support/module_files.ts";
import { testKey, testKeys, testLayout } from "../support/objects.ts";
import { gate, RecordingAdapter } from "../support/recording_adapter.ts";
import { tempDirectory } from "../support/temp_directory.ts";

const MIB = 2 ** 20;
const LAYOUT = testLayout(1024);

/** Options of a cache in little memory with one adapter of a test. */
function optionsWith(adapter: L2Adapter, options: TieredCacheOptions = {}): TieredCacheOptions {
  return {
    device: new HostDevice(),
    l1: { capacityBytes: MIB },
    adapters: [moduleOf(() => adapter)],
    l2: [{ type: "hand_made" }],
    ...options,
  };
}

/** Asserts that a cache holds no lock and lends no buffer. */
function assertIdle(cache: TieredCache): void {
  const { l1, store, prefetch, loadBytesInUse } = cache.reportStatus();
  assertEquals(
    {
      readLocked: l1.readLockedCount,
      staged: l1.stagingObjectCount,
      pending: store.pendingObjects,
      inFlight: store.inFlightObjects,
      requests: prefetch.inFlightRequests,
      loadBytesInUse,
    },
    { readLocked: 0, staged: 0, pending: 0, inFlight: 0, requests: 0, loadBytesInUse: 0 },
  );
}

// Opening

const wrongConfigs: Record<string, { l2: unknown; message: string }> = {
  "an unknown type": { l2: [{ type: "papyrus" }], message: "expected one of fs" },
  "an unknown key": { l2: [{ type: "fs", base_path: "x", depth: 3 }], message: "base_path" },
  "a missing key": { l2: [{ type: "fs" }], message: "base_path" },
  "a type that is no text": { l2: [{ type: 5 }], message: "objects with a text type" },
  "no type": { l2: [{}], message: "objects with a text type" },
  "null": { l2: [null], message: "objects with a text type" },
  "a number": { l2: [7], message: "objects with a text type" },
  "a text": { l2: ["fs"], message: "objects with a text type" },
  "an array": { l2: [["fs"]], message: "objects with a text type" },
};
for (const [name, { l2, message }] of Object.entries(wrongConfigs)) {
  Deno.test(`TieredCache.open() rejects an adapter configuration with ${name}`, async () => {
    const options = { device: new HostDevice(), l2: l2 as L2Config[] };
    const error = await assertRejects(() => TieredCache.open(options), ConfigError);
    assertStringIncludes(error.message, message);
  });
}

Deno.test("TieredCache.open() rejects an adaptersDir that cannot be listed", async () => {
  const options = { device: new HostDevice(), adaptersDir: "/does/not/exist" };
  const error = await assertRejects(() => TieredCache.open(options), ConfigError);
  assertStringIncludes(error.message, "adaptersDir");
  assertInstanceOf(error.cause, Deno.errors.NotFound);
});

Deno.test("TieredCache.open() rejects sizes that cannot be", async () => {
  const device = new HostDevice();
  for (const l1 of [{ capacityBytes: 0 }, { capacityBytes: 1000 }, { slabBytes: -256 }]) {
    await assertRejects(() => TieredCache.open({ device, l1 }), RangeError);
  }
  for (const name of ["loadBytes", "readBackBytes"]) {
    const options = { device, transfers: { [name]: 1 } };
    await assertRejects(() => TieredCache.open(options), RangeError, `transfers.${name} must be`);
  }
});

Deno.test("TieredCache.open() releases what it opened if an adapter cannot be made", async () => {
  const first = new RecordingAdapter();
  let signal: AbortSignal | undefined;
  const adapters = [
    moduleOf((environment) => {
      signal = environment.signal;
      return first;
    }, "good"),
    moduleOf(() => {
      throw new Error("cannot be made");
    }, "bad"),
  ];
  const requestDevice = GPUAdapter.prototype.requestDevice;
  const devices: GPUDevice[] = [];
  GPUAdapter.prototype.requestDevice = async function (...args) {
    const device = await requestDevice.apply(this, args);
    devices.push(device);
    return device;
  };
  try {
    const l2 = [{ type: "good" }, { type: "bad" }];
    await assertRejects(() => TieredCache.open({ adapters, l2 }), Error, "cannot be made");
  } finally {
    GPUAdapter.prototype.requestDevice = requestDevice;
  }
  assert(first.isDisposed, "the adapter before it is closed");
  assert(signal?.aborted, "work in the background is told to end");
  for (const device of devices) assertEquals((await device.lost).reason, "destroyed");
});

// Adapters of users

Deno.test("TieredCache.open() takes an adapter that is one new file in a directory", async () => {
  const contract = new URL("../../src/l2/adapter.ts", import.meta.url).href;
  await using directory = await directoryOf({
    "dropped.ts": `
      import { Bitmap, concatParts, defineL2Adapter, fillParts } from ${JSON.stringify(contract)};
      export default defineL2Adapter({
        type: "dropped",
        summary: "Dropped into a directory.",
        config: { shelf: { type: "string", required: true, help: "Where." } },
        create() {
          const held = new Map<string, Uint8Array>();
          return {
            capabilities: {},
            async store(objects) {
              for (const { key, parts } of objects) held.set(key.id, concatParts(parts));
              return { stored: new Bitmap(objects.length, objects.length), bytes: 0 };
            },
            async lookupAndLock(keys) {
              return Bitmap.from(keys, ({ id }) => held.has(id));
            },
            async load(objects) {
              return Bitmap.from(objects, ({ key, parts }) => fillParts(parts, held.get(key.id)));
            },
            async [Symbol.asyncDispose]() {},
          };
        },
      });`,
    "broken.ts": "throw new Error('never imported by itself');",
    "_private.ts": "throw new Error('never imported');",
    "notes.md": "no module",
  });
  const l2 = [{ type: "dropped", shelf: "top" }];
  for (const adaptersDir of [directory.path, toFileUrl(directory.path)]) {
    const options = { device: new HostDevice(), l1: { capacityBytes: MIB }, l2, adaptersDir };
    await using cache = await TieredCache.open(options);
    await putObjects(cache, testKeys(3), LAYOUT);
    cache.clearL1();
    assertEquals(await countHits(cache, testKeys(4), LAYOUT), 3);
    assertEquals(cache.reportStatus().adapters.map(({ type }) => type), ["dropped"]);
  }
  const missing = { device: new HostDevice(), adaptersDir: directory.path };
  await assertRejects(
    () => TieredCache.open({ ...missing, l2: [{ type: "dropped" }] }),
    ConfigError,
    "shelf",
  );
});

Deno.test("TieredCache.open() gives adapters their values and describes device memory", async () => {
  const clock = new ManualClock();
  let received: unknown;
  const module = defineL2Adapter({
    type: "shelf",
    summary: "Given as a module.",
    config: {
      height: { type: "number", required: true, help: "How high." },
      label: { type: "string", default: "none", help: "What it says." },
    },
    create(values, environment) {
      received = { values, l1Memory: environment.l1Memory, hasClock: environment.clock === clock };
      return new RecordingAdapter();
    },
  });
  await using cache = await TieredCache.open({
    device: new HostDevice(),
    l1: { capacityBytes: MIB },
    clock,
    adapters: [module],
    l2: [{ type: "shelf", height: 3 }],
  });
  assertEquals(received, {
    values: { height: 3, label: "none" },
    l1Memory: { type: "host", maxObjectBytes: MIB, alignmentBytes: 256 },
    hasClock: true,
  });
  assertEquals(cache.maxObjectBytes, MIB);
});

Deno.test("TieredCache reports what an adapter says before it is open", async () => {
  const adapter = new RecordingAdapter();
  const early = moduleOf(({ onError }) => {
    onError({ message: "no disk yet" } as never);
    return adapter;
  });
  await using cache = await TieredCache.open(optionsWith(adapter, { adapters: [early] }));
  const [status] = cache.reportStatus().adapters;
  assertEquals(status?.lastError, "no disk yet");
});

// Permissions

const permissions: Record<string, (directory: string, project: string) => string[]> = {
  "its directory": (directory) => [`--allow-read=${directory}`],
  "its directory and the package": (directory, project) => [
    `--allow-read=${directory},${project}`,
  ],
};
for (const [name, readable] of Object.entries(permissions)) {
  Deno.test(`TieredCache with fs needs no permission but for ${name}`, async () => {
    await using directory = await tempDirectory();
    const project = new URL("../../", import.meta.url);
    const program = new URL("./tests/support/round_trip.ts", project);
    const output = await runChild(program, {
      permissions: [
        "--no-prompt",
        ...readable(directory.path, project.pathname),
        `--allow-write=${directory.path}`,
      ],
      args: [directory.path],
    });
    assertEquals(output, { hits: 3, isHealthy: true });
  });
}

// Devices

gpuTest("TieredCache.close() leaves a caller's GPUDevice alive", async (gpuDevice) => {
  let isLost = false;
  gpuDevice.lost.then(() => isLost = true);
  const cache = await TieredCache.open({ device: gpuDevice, l1: { capacityBytes: MIB } });
  assertEquals(cache.reportStatus().device.type, "webgpu");
  await putObjects(cache, testKeys(2), LAYOUT);
  await cache.close();

  const buffer = gpuDevice.createBuffer({ size: 4, usage: GPUBufferUsage.COPY_DST });
  gpuDevice.queue.writeBuffer(buffer, 0, new Uint32Array([1]));
  await gpuDevice.queue.onSubmittedWorkDone();
  buffer.destroy();
  assertEquals(isLost, false);
});

gpuTest("TieredCache.close() destroys a device of its own", async () => {
  const cache = await TieredCache.open({ l1: { capacityBytes: MIB } });
  const { device } = cache;
  assert(device instanceof WebGpuDevice);
  await putObjects(cache, testKeys(2), LAYOUT);
  await cache.close();
  assertEquals((await device.gpuDevice.lost).reason, "destroyed");
});

gpuTest("TieredCache loses L1 with its device, and nothing else", async (gpuDevice) => {
  await using directory = await tempDirectory();
  const options = {
    l1: { capacityBytes: MIB },
    l2: [{ type: "fs", base_path: directory.path }],
  };
  const keys = testKeys(4);
  const cache = await TieredCache.open({ device: gpuDevice, ...options });
  await putObjects(cache, keys, LAYOUT);
  using hit = await cache.match(keys, LAYOUT);
  assertEquals(hit.ranges().length, 4);

  gpuDevice.destroy();
  write(cache, 9);
  await cache.device.lost;
  assertThrows(() => hit.ranges(), DeviceLostError);
  write(cache, 10);
  assertEquals((await cache.match(keys, LAYOUT)).length, 0);
  await cache.flush();
  const { isHealthy, problems } = cache.reportStatus();
  assertEquals([isHealthy, problems], [false, ["the GPU device is lost"]]);
  assertIdle(cache);
  await cache.close();

  const adapter = await navigator.gpu.requestAdapter();
  const anotherDevice = await adapter?.requestDevice();
  assert(anotherDevice !== undefined);
  {
    await using another = await TieredCache.open({ device: anotherDevice, ...options });
    assertEquals(await countHits(another, keys, LAYOUT), 4);
  }
  anotherDevice.destroy();
});

/** Writes an object as far as that is possible. */
function write(cache: TieredCache, n: number): void {
  const [reservation] = cache.reserveWrite([testKey(n)], LAYOUT);
  if (reservation?.status !== "success") return;
  cache.device.upload(reservation.range, [new Uint8Array(LAYOUT.byteLength)]);
  cache.finishWrite([testKey(n)]);
}

// Round trips

deviceTest("TieredCache brings the same bytes back from a directory", async (device) => {
  await using directory = await tempDirectory();
  const options = {
    device,
    l1: { capacityBytes: 32 * MIB },
    l2: [{ type: "fs", base_path: directory.path }],
  };
  // Of one word, of more than one block of scratch, and under a name that is too long for a file.
  const batches: [ReturnType<typeof testKeys>, ObjectLayout][] = [
    [testKeys(3), testLayout(4)],
    [testKeys(12, 10), testLayout(100_004)],
    [testKeys(2, 30), testLayout(5 * MIB + 12)],
    [[testKey(0, { model: "m".repeat(250) }), testKey(1, { model: "m".repeat(250) })], LAYOUT],
  ];
  {
    await using cache = await TieredCache.open(options);
    for (const [keys, layout] of batches) await putObjects(cache, keys, layout);
    assertIdle(cache);
  }
  await using cache = await TieredCache.open(options);
  for (const [keys, layout] of batches) {
    assertEquals(await countHits(cache, keys, layout), keys.length);
  }
  assertIdle(cache);
  await cache.flush();
  const [status] = cache.reportStatus().adapters;
  assertEquals(status?.storedObjects, 0, "what was loaded is not stored again");
});

deviceTest("TieredCache serves more than L1 holds", async (device) => {
  const adapter = new RecordingAdapter();
  const l1 = { capacityBytes: 8 * LAYOUT.byteLength };
  await using cache = await TieredCache.open(optionsWith(adapter, { device, l1 }));
  const prompts = Array.from({ length: 6 }, (_, i) => testKeys(6, i * 6));
  for (const keys of prompts) await putObjects(cache, keys, LAYOUT);
  for (const keys of prompts) assertEquals(await countHits(cache, keys, LAYOUT), 6);
  assertIdle(cache);
});

Deno.test("TieredCache.match() keeps apart layouts under one key", async () => {
  await using cache = await TieredCache.open(optionsWith(new RecordingAdapter()));
  await putObjects(cache, testKeys(2), LAYOUT);
  const other = { byteLength: LAYOUT.byteLength, fingerprint: new Uint8Array(8).fill(9) };
  assertEquals((await cache.match(testKeys(2), other)).length, 0);
  cache.clearL1();
  assertEquals((await cache.match(testKeys(2), other)).length, 0);
  assertEquals(await countHits(cache, testKeys(2), LAYOUT), 2);
  assertIdle(cache);
});

Deno.test("TieredCache.match() passes its options on", async () => {
  const adapter = new RecordingAdapter();
  const clock = new ManualClock();
  await using cache = await TieredCache.open(optionsWith(adapter, { clock }));
  adapter.seed(testKeys(2), LAYOUT);
  const { promise, open } = gate();
  adapter.beforeLookup = () => promise;

  const late = cache.match(testKeys(2), LAYOUT, { deadlineMs: 10 });
  await clock.advance(10);
  assertEquals((await late).length, 0);
  const signal = AbortSignal.abort(new Error("stop"));
  await assertRejects(() => cache.match(testKeys(2), LAYOUT, { signal }), Error, "stop");
  open();
});

Deno.test("TieredCache.cancelWrite() gives up what was reserved", async () => {
  const adapter = new RecordingAdapter();
  await using cache = await TieredCache.open(optionsWith(adapter));
  cache.reserveWrite(testKeys(2), LAYOUT);
  cache.cancelWrite(testKeys(2));
  await cache.flush();
  assertIdle(cache);
  assertEquals((await cache.match(testKeys(2), LAYOUT)).length, 0);
  assertEquals(adapter.stores, []);
});

Deno.test("TieredCache.pinResident() protects what is there from eviction", async () => {
  const l1 = { capacityBytes: 4 * LAYOUT.byteLength };
  await using cache = await TieredCache.open(optionsWith(new RecordingAdapter(), { l1 }));
  await putObjects(cache, testKeys(2), LAYOUT);
  {
    using _pinned = cache.pinResident(testKeys(4));
    const statuses = cache.reserveWrite(testKeys(3, 10), LAYOUT).map(({ status }) => status);
    assertEquals(statuses, ["out-of-memory", "out-of-memory", "out-of-memory"]);
  }
  const [reservation] = cache.reserveWrite(testKeys(3, 10), LAYOUT);
  assertEquals(reservation?.status, "success");
  cache.cancelWrite(testKeys(3, 10));
  assertIdle(cache);
});

Deno.test("CacheHit.ranges() throws when the pins have expired", async () => {
  const clock = new ManualClock();
  const l1 = { capacityBytes: MIB, readTtlMs: 1_000 };
  await using cache = await TieredCache.open(optionsWith(new RecordingAdapter(), { l1, clock }));
  await putObjects(cache, testKeys(2), LAYOUT);
  using hit = await cache.match(testKeys(2), LAYOUT);
  await clock.advance(999);
  assertEquals(hit.ranges().length, 2);
  await clock.advance(1);
  assertThrows(() => hit.ranges(), Error, "no longer pinned");
});

Deno.test("CacheHit.ranges() throws when it was disposed, or the cache closed", async () => {
  const cache = await TieredCache.open(optionsWith(new RecordingAdapter()));
  await putObjects(cache, testKeys(2), LAYOUT);
  const [first, second] = [
    await cache.match(testKeys(2), LAYOUT),
    await cache.match(testKeys(2), LAYOUT),
  ];
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  assertThrows(() => first.ranges(), Error, "no longer pinned");
  assertEquals(second.ranges().length, 2, "another hit's pins stay");
  await cache.close();
  assertThrows(() => second.ranges(), Error, "no longer pinned");
  second[Symbol.dispose]();
});

// Arguments

gpuTest(
  "TieredCache rejects objects that it cannot move, before the GPU sees them",
  async (gpuDevice) => {
    await using cache = await TieredCache.open({
      device: gpuDevice,
      l1: { capacityBytes: 64 * MIB },
      transfers: { loadBytes: 8 * MIB, readBackBytes: 16 * MIB },
    });
    const layouts: Record<string, ObjectLayout> = {
      "empty": testLayout(0),
      "negative": testLayout(-4),
      "no number": testLayout(NaN),
      "no integer": testLayout(4.5),
      "misaligned": testLayout(1022),
      "larger than L1": testLayout(64 * MIB + 4),
      "larger than loadBytes": testLayout(8 * MIB),
      "without a fingerprint": { byteLength: 1024, fingerprint: new Uint8Array(7) },
    };
    for (const [name, layout] of Object.entries(layouts)) {
      assertThrows(() => cache.reserveWrite([testKey(1)], layout), RangeError, "must", name);
      await assertRejects(() => cache.match([testKey(1)], layout), RangeError, "must", name);
    }
    assertEquals(cache.reportStatus().l1.slabs, 0);
    assertIdle(cache);
  },
);

gpuTest("TieredCache rejects objects that cannot be read back", async (gpuDevice) => {
  await using cache = await TieredCache.open({
    device: gpuDevice,
    l1: { capacityBytes: 64 * MIB },
    transfers: { readBackBytes: 4 * MIB },
  });
  const largest = testLayout(4 * MIB - 64);
  assertEquals(cache.reserveWrite([testKey(1)], largest)[0]?.status, "success");
  cache.cancelWrite([testKey(1)]);
  assertThrows(
    () => cache.reserveWrite([testKey(1)], testLayout(4 * MIB - 60)),
    RangeError,
    "transfers.readBackBytes",
  );
  // The tail of a long name counts.
  assertThrows(
    () => cache.reserveWrite([testKey(1, { model: "m".repeat(250) })], largest),
    RangeError,
    "transfers.readBackBytes",
  );
});

// Status and closing

Deno.test("TieredCache.reportStatus() is JSON, and says what is wrong", async () => {
  const adapter = new RecordingAdapter();
  const cache = await TieredCache.open(optionsWith(adapter));
  await putObjects(cache, testKeys(2), LAYOUT);
  assertEquals(await countHits(cache, testKeys(2), LAYOUT), 2);
  const healthy = cache.reportStatus();
  assertEquals([healthy.isHealthy, healthy.problems], [true, []]);
  const { lastError: _, ...adapterStatus } = healthy.adapters[0] ?? { lastError: undefined };
  assertEquals(JSON.parse(JSON.stringify({ ...healthy, adapters: [adapterStatus] })), {
    ...healthy,
    adapters: [adapterStatus],
  });

  adapter.beforeStore = () => Promise.reject(new Error("the disk is on fire"));
  for (let n = 10; n < 13; n++) await putObjects(cache, [testKey(n)], LAYOUT);
  const { isHealthy, problems } = cache.reportStatus();
  assertEquals(isHealthy, false);
  assertEquals(problems.length, 1);
  assertStringIncludes(problems[0] ?? "", "adapter 0 (hand_made) is failing");
  assertStringIncludes(problems[0] ?? "", "the disk is on fire");

  adapter.beforeStore = () => {};
  await putObjects(cache, [testKey(13)], LAYOUT);
  assertEquals(cache.reportStatus().isHealthy, true, "after a success");
  await cache.close();
  assertEquals(cache.reportStatus().problems, ["the cache is closed"]);
});

Deno.test("TieredCache.close() writes what is queued, once, and closes the adapters", async () => {
  const adapter = new RecordingAdapter();
  const clock = new ManualClock();
  let signal: AbortSignal | undefined;
  const adapters = [moduleOf((environment) => {
    signal = environment.signal;
    return adapter;
  })];
  const cache = await TieredCache.open(optionsWith(adapter, { clock, adapters }));
  write(cache, 1);
  write(cache, 2);
  assertEquals(adapter.stores, []);

  const closed = cache.close();
  assert(cache.close() === closed, "closing twice is closing once");
  await closed;
  await cache[Symbol.asyncDispose]();
  assertEquals(adapter.stores.map(({ length }) => length), [2]);
  assert(adapter.isDisposed);
  assert(signal?.aborted);
  assertEquals(clock.pendingTimers, 0);
});

Deno.test("TieredCache.close() lets a match that moves bytes end first", async () => {
  const adapter = new RecordingAdapter();
  const cache = await TieredCache.open(optionsWith(adapter));
  adapter.seed(testKeys(2), LAYOUT);
  const [reached, released] = [gate(), gate()];
  adapter.beforeLoad = () => {
    reached.open();
    return released.promise;
  };
  const matched = cache.match(testKeys(2), LAYOUT);
  await reached.promise;
  const closed = cache.close();
  await new Promise((resolve) => setTimeout(resolve));
  assert(!adapter.isDisposed, "its bytes are still under way");
  released.open();
  assertEquals((await matched).length, 2);
  await closed;
  assert(adapter.isDisposed);
  assertIdle(cache);
});

Deno.test("TieredCache rejects every call after close()", async () => {
  const adapter = new RecordingAdapter();
  const cache = await TieredCache.open(optionsWith(adapter));
  cache.reserveWrite([testKey(1)], LAYOUT);
  const closing = cache.close();
  for (const when of ["while it closes", "when it is closed"]) {
    assertThrows(() => cache.reserveWrite([testKey(2)], LAYOUT), Error, "Cache is closed", when);
    assertThrows(() => cache.finishWrite([testKey(1)]), Error, "Cache is closed", when);
    await assertRejects(() => cache.match([testKey(2)], LAYOUT), Error, "Cache is closed", when);
    await assertRejects(() => cache.flush(), Error, "Cache is closed", when);
    await closing;
  }
  cache.cancelWrite([testKey(1)]);
  cache.clearL1();
  assertEquals(adapter.stores, []);
});

Deno.test("TieredCache.close() is not held up by adapters that hang", async () => {
  const adapter = new RecordingAdapter();
  const clock = new ManualClock();
  // The load of one object fills the scratch; another object waits for it.
  const layout = testLayout(4 * MIB - 64);
  const options = { clock, transfers: { loadBytes: 4 * MIB }, l1: { capacityBytes: 32 * MIB } };
  const cache = await TieredCache.open(optionsWith(adapter, options));
  adapter.seed(testKeys(2), layout);
  const never = new Promise<void>(() => {});
  adapter.beforeLoad = () => never;
  adapter.beforeStore = () => never;
  adapter[Symbol.asyncDispose] = () => never;

  const matched = cache.match(testKeys(2), layout);
  await clock.advance(0);
  write(cache, 9);
  let isClosed = false;
  const closed = cache.close().then(() => isClosed = true);
  for (let waitedMs = 0; waitedMs < 120_000 && !isClosed; waitedMs += 1_000) {
    await clock.advance(1_000);
  }
  assert(isClosed, "closed within two minutes");
  await closed;
  assertEquals((await matched).length, 0);
  assertEquals(clock.pendingTimers, 0);
});
