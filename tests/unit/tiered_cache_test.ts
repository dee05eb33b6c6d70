import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { join, toFileUrl } from "@std/path";
import type { TieredCacheOptions } from "../../src/cache_options.ts";
import type { ObjectLayout } from "../../src/keys/kv_layout.ts";
import { ObjectKey } from "../../src/keys/object_key.ts";
import { defineL2Adapter, type L2Adapter } from "../../src/adapter/contract.ts";
import { ConfigError } from "../../src/base/config_error.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import { DeviceLostError } from "../../src/memory/memory_device.ts";
import { WebGpuDevice } from "../../src/memory/webgpu_device.ts";
import { ManualClock } from "../../src/testing/manual_clock.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import type { L2Config } from "../../src/l2/adapter_config.ts";
import type { KeyGroup } from "../../src/prefetch/key_group.ts";
import type { StorePolicy } from "../../src/store/store_policy.ts";
import { moduleOf } from "../support/adapters.ts";
import { assertIdle, listen, optionsOf, put } from "../support/caches.ts";
import { runChild } from "../support/child.ts";
import { deviceTest, gpuTest } from "../support/devices.ts";
import { countHits, putObjects } from "../support/fs_cache.ts";
import { assertRanges, stagedOf } from "../support/l1.ts";
import { directoryOf } from "../support/module_files.ts";
import { testKey, testKeys, testLayout } from "../support/objects.ts";
import { gate, RecordingAdapter } from "../support/recording_adapter.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { STAGING_BLOCK_BYTES } from "../../src/memory/staging_pool.ts";

const MIB = 2 ** 20;
const LAYOUT = testLayout(1024);

/** Options of a small cache with one test adapter. */
function optionsWith(adapter: L2Adapter, options: TieredCacheOptions = {}): TieredCacheOptions {
  return optionsOf({ hand_made: adapter }, options);
}

function idsOf(keys: readonly ObjectKey[]): Set<string> {
  return new Set(keys.map(({ id }) => id));
}

/** Runs promises until a condition holds that needs no time. */
async function until(test: () => boolean): Promise<void> {
  for (let turn = 0; turn < 1_000 && !test(); turn++) await Promise.resolve();
  assert(test());
}

// Opening

const wrongConfigs: Record<string, { l2: unknown; message: string }> = {
  "an unknown type": { l2: [{ type: "papyrus" }], message: "fs, mock, plugin" },
  "an unknown key": { l2: [{ type: "fs", base_path: "x", depth: 3 }], message: "base_path" },
  "a missing key": { l2: [{ type: "fs" }], message: "base_path" },
  "a type that is no text": { l2: [{ type: 5 }], message: "l2[0]: type: expected the name" },
  "a type that does not look like one": { l2: [{ type: "PA55" }], message: "received a string" },
  "no type": { l2: [{}], message: "as a string: received an empty object" },
  "a mistyped type": {
    l2: [{ typ: "resp", password: "PA55" }],
    message: '(did you mean "type" instead of "typ"?): received an object with typ, password',
  },
  "another key as type": {
    l2: [{ password: "PA55" }],
    message: "received an object with password",
  },
  "null": { l2: [null], message: "l2[0]: expected an object, like { type" },
  "a number": { l2: [7], message: "received a number" },
  "a string": { l2: ["PA55"], message: "received a string" },
  "an array": { l2: [["PA55"]], message: "received an array" },
  "a second one": {
    l2: [{ type: "dram", max_capacity_gb: 1 }, { type: "resp", host: ["PA55"] }],
    message: "host",
  },
};
for (const [name, { l2, message }] of Object.entries(wrongConfigs)) {
  Deno.test(`TieredCache.open() rejects an adapter configuration with ${name}`, async () => {
    const options = { device: new HostDevice(), l2: l2 as L2Config[] };
    const error = await assertRejects(() => TieredCache.open(options), ConfigError);
    assertStringIncludes(error.message, message);
    assert(!Deno.inspect(error).includes("PA55"), "it is not shown, whatever it is");
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
  const wrong: [TieredCacheOptions, string][] = [
    [
      { store: { maxInFlightBytes: 1 } },
      "store.maxInFlightBytes must be a number of at least 4259840",
    ],
    [
      { prefetch: { maxInFlightBytes: 1 } },
      "prefetch.maxInFlightBytes must be a number of at least 4259840",
    ],
    [{ l1: { readTtlMs: 0 } }, "l1.readTtlMs must be a number of at least 1"],
    [{ l1: { writeTtlMs: NaN } }, "l1.writeTtlMs must be a number of at least 1"],
    [{ store: { maxQueuedBytes: 0 } }, "store.maxQueuedBytes must be a number of at least 1"],
    [{ store: { flushBytes: NaN } }, "store.flushBytes must be a number of at least 1"],
    [{ store: { attempts: 0 } }, "store.attempts must be an integer of at least 1"],
    [{ l1: { watermark: { high: 0.5, low: 0.6 } } }, "l1.watermark must have 0 < low <= high <= 1"],
  ];
  for (const [options, message] of wrong) {
    await assertRejects(() => TieredCache.open({ device, ...options }), RangeError, message);
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
  const contract = new URL("../../src/adapter/contract.ts", import.meta.url).href;
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
const ROUND_TRIP = "tests/support/round_trip.ts";
for (const [name, readable] of Object.entries(permissions)) {
  for (const isThere of [true, false]) {
    const title = `TieredCache with fs needs no permission but for ${name}`;
    Deno.test(isThere ? title : `${title}, to be made yet`, async () => {
      await using parent = await tempDirectory();
      const project = new URL("../../", import.meta.url);
      const directory = isThere ? parent.path : join(parent.path, "kv");
      const output = await runChild(new URL(ROUND_TRIP, project), {
        permissions: [
          "--no-prompt",
          ...readable(directory, project.pathname),
          `--allow-write=${directory}`,
        ],
        args: [directory],
      });
      assertEquals(output, { hits: 3, isHealthy: true });
    });
  }
}

Deno.test("TieredCache with fs works where the package comes from a server", async () => {
  await using parent = await tempDirectory();
  const project = new URL("../../", import.meta.url);
  await using server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen() {} },
    async ({ url }) => {
      const source = await Deno.readFile(new URL(`.${new URL(url).pathname}`, project));
      return new Response(source, { headers: { "content-type": "application/typescript" } });
    },
  );
  const host = `127.0.0.1:${server.addr.port}`;
  // Where the file system of a directory is unknown, a worker closes its files.
  const directory = join(parent.path, "kv");
  const output = await runChild(new URL(`http://${host}/${ROUND_TRIP}`), {
    permissions: [
      "--no-prompt",
      "--config=deno.json",
      `--allow-import=${host}`,
      `--allow-read=${directory}`,
      `--allow-write=${directory}`,
    ],
    args: [directory],
  });
  assertEquals(output, { hits: 3, isHealthy: true });
});

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
  put(cache, [testKey(9)], LAYOUT);
  await cache.device.lost;
  assertThrows(() => hit.ranges(), DeviceLostError);
  put(cache, [testKey(10)], LAYOUT);
  assertEquals((await cache.match(keys, LAYOUT)).length, 0);
  await cache.flush();
  const { isHealthy, problems } = cache.reportStatus();
  assertEquals([isHealthy, problems], [false, [
    "the GPU device is lost: call attachDevice() with a new one",
  ]]);
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
  cache.cancelWrite(stagedOf(cache.reserveWrite(testKeys(2), LAYOUT)));
  await cache.flush();
  assertIdle(cache);
  assertEquals((await cache.match(testKeys(2), LAYOUT)).length, 0);
  assertEquals(adapter.stores, []);
});

Deno.test("TieredCache.leaseResident() keeps resident objects from eviction, also under its old name", async () => {
  const l1 = { capacityBytes: 4 * LAYOUT.byteLength };
  await using cache = await TieredCache.open(optionsWith(new RecordingAdapter(), { l1 }));
  await putObjects(cache, testKeys(2), LAYOUT);
  for (const method of ["leaseResident", "pinResident"] as const) {
    using _leases = cache[method](testKeys(4));
    const statuses = cache.reserveWrite(testKeys(3, 10), LAYOUT).map(({ status }) => status);
    assertEquals(statuses, ["out-of-memory", "out-of-memory", "out-of-memory"]);
  }
  cache.cancelWrite(stagedOf(cache.reserveWrite(testKeys(3, 10), LAYOUT)));
  assertIdle(cache);
});

Deno.test("CacheHit.ranges() throws when the leases have expired", async () => {
  const clock = new ManualClock();
  const l1 = { capacityBytes: MIB, readTtlMs: 1_000 };
  await using cache = await TieredCache.open(optionsWith(new RecordingAdapter(), { l1, clock }));
  await putObjects(cache, testKeys(2), LAYOUT);
  using hit = await cache.match(testKeys(2), LAYOUT);
  await clock.advance(999);
  assertEquals(hit.ranges().length, 2);
  await clock.advance(1);
  assertThrows(() => hit.ranges(), Error, "no longer leased");
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
  assertThrows(() => first.ranges(), Error, "no longer leased");
  assertEquals(second.ranges().length, 2, "another hit's leases stay");
  await cache.close();
  assertThrows(() => second.ranges(), Error, "no longer leased");
  second[Symbol.dispose]();
});

// Groups, and warming

Deno.test("TieredCache.matchGroups() needs only the last chunks of a group with a window", async () => {
  const adapter = new RecordingAdapter();
  await using cache = await TieredCache.open(optionsWith(adapter));
  const [full, windowed] = [testKeys(6), testKeys(6, 100)];
  const groups = [{ keys: full, layout: LAYOUT }, {
    keys: windowed,
    layout: testLayout(512),
    windowChunks: 2,
  }];
  adapter.seed(full.slice(0, 5), LAYOUT);
  adapter.seed(windowed, testLayout(512));
  {
    using hit = await cache.matchGroups(groups);
    assertEquals([hit.length, hit.l1Objects], [5, 0]);
    await assertRanges(cache.device, hit.ranges(), full.slice(0, 5));
    await assertRanges(cache.device, hit.ranges(1), windowed.slice(3, 5));
    assertEquals(hit.ranges(2), []);
    assertEquals(
      new Set(adapter.loads.flat()),
      idsOf([...full.slice(0, 5), ...windowed.slice(3, 5)]),
    );
  }
  // Without the fourth chunk of its window neither a prefix of five nor one of four will do.
  adapter.held.delete(windowed[3]?.id ?? "");
  cache.clearL1();
  for (const method of ["matchGroups", "matchRows"] as const) {
    using hit = await cache[method](groups);
    assertEquals([hit.length, hit.ranges().length, hit.ranges(1).length], [3, 3, 2]);
  }
  assertIdle(cache);
});

Deno.test("TieredCache.warm() leaves a prefix in L1 without pins", async () => {
  const adapter = new RecordingAdapter();
  const l1 = { capacityBytes: 4 * LAYOUT.byteLength };
  const prefetch = { policy: "default" } as const;
  await using cache = await TieredCache.open(optionsWith(adapter, { l1, prefetch }));
  const keys = testKeys(3);
  adapter.seed(keys, LAYOUT);
  const groups = [{ keys, layout: LAYOUT }];
  assertEquals(await cache.warm(groups), { length: 3, l1Objects: 0 });
  assertIdle(cache);
  assertEquals(await cache.warm(groups), { length: 3, l1Objects: 3 });
  adapter.held.clear();
  assertEquals(await countHits(cache, keys, LAYOUT), 3, "also where matches would not retain it");
  assertEquals(put(cache, testKeys(4, 50), LAYOUT).length, 4, "it may be evicted");
});

Deno.test("TieredCache rejects groups and deadlines that cannot be", async () => {
  await using cache = await TieredCache.open(optionsWith(new RecordingAdapter()));
  const group = { keys: testKeys(2), layout: LAYOUT };
  const wrong: [readonly KeyGroup[], string][] = [
    [[], "At least one group is required"],
    [[group, { keys: testKeys(3), layout: LAYOUT }], "same number of keys: received 2 and 3"],
    [[{ ...group, windowChunks: 0 }], "windowChunks must be at least 1: received 0"],
    [[{ ...group, windowChunks: NaN }], "windowChunks must be at least 1: received NaN"],
    [[{ ...group, layout: testLayout(6) }], "positive multiple of 4"],
  ];
  for (const [groups, message] of wrong) {
    await assertRejects(() => cache.matchGroups(groups), RangeError, message);
    await assertRejects(() => cache.warm(groups), RangeError, message);
  }
  for (const deadlineMs of [-1, NaN]) {
    const message = `deadlineMs must be a number of at least 0: received ${deadlineMs}`;
    await assertRejects(() => cache.match(group.keys, LAYOUT, { deadlineMs }), RangeError, message);
    await assertRejects(() => cache.warm([group], { deadlineMs }), RangeError, message);
  }
});

Deno.test("TieredCache.match() takes a deadline that no timer can hold for none", async () => {
  const adapter = new RecordingAdapter();
  const clock = new ManualClock();
  await using cache = await TieredCache.open(optionsWith(adapter, { clock }));
  adapter.seed(testKeys(2), LAYOUT);
  const timers: number[] = [];
  for (
    const options of [{}, { deadlineMs: 5 }, { deadlineMs: 2 ** 31 }, { deadlineMs: Infinity }]
  ) {
    cache.clearL1();
    adapter.beforeLookup = () => void timers.push(clock.pendingTimers);
    using hit = await cache.match(testKeys(2), LAYOUT, options);
    assertEquals(hit.length, 2);
  }
  const [none = 0] = timers;
  assertEquals(timers, [none, none + 1, none, none]);
});

// Store and prefetch policies

Deno.test("TieredCache.storeReady() waits until the queues have room", async () => {
  const adapter = new RecordingAdapter();
  const clock = new ManualClock();
  const store = { maxQueuedBytes: 2 * LAYOUT.byteLength, whenFull: "wait" } as const;
  await using cache = await TieredCache.open(optionsWith(adapter, { clock, store }));
  await cache.storeReady();
  const [reached, released] = [gate(), gate()];
  adapter.beforeStore = () => {
    reached.open();
    return released.promise;
  };
  for (let n = 0; n < 3; n++) {
    put(cache, [testKey(n * 2), testKey(n * 2 + 1)], LAYOUT);
    await clock.advance(50);
  }
  await reached.promise;
  let isReady = false;
  const ready = cache.storeReady().then(() => isReady = true);
  await clock.advance(0);
  assertEquals([isReady, cache.reportStatus().store.droppedObjects], [false, 0]);
  released.open();
  await ready;
  await cache.flush();
  assertEquals(adapter.count(testKeys(6)), 6, "a producer that does not wait loses nothing");
});

Deno.test("TieredCache drops what a queue has no room for, where that is wanted", async () => {
  for (const whenFull of ["drop_new", "drop_oldest"] as const) {
    const adapter = new RecordingAdapter();
    const store = { maxQueuedBytes: 2 * LAYOUT.byteLength, whenFull };
    await using cache = await TieredCache.open(optionsWith(adapter, { store }));
    const heard = listen(cache.events, "dropped");
    put(cache, testKeys(5), LAYOUT);
    await cache.flush();
    const kept = whenFull === "drop_new" ? testKeys(2) : testKeys(2, 3);
    assertEquals(new Set(adapter.held.keys()), idsOf(kept), whenFull);
    const dropped = heard.reduce((sum, [, { objects }]) => sum + objects, 0);
    assertEquals([dropped, heard[0]?.[1].reason], [3, "full"]);
    assertEquals(cache.reportStatus().store.droppedObjects, 3);
    assertEquals(await countHits(cache, testKeys(5), LAYOUT), 5, "L1 has all of them");
  }
});

Deno.test("TieredCache with the store policy skip_l1 keeps in L1 what no adapter has yet", async () => {
  const adapter = new RecordingAdapter();
  const store = { policy: "skip_l1", attempts: 1 } as const;
  const breaker = { coolDownMs: 0 };
  await using cache = await TieredCache.open(optionsWith(adapter, { store, breaker }));
  await putObjects(cache, testKeys(2), LAYOUT);
  assertEquals([cache.reportStatus().l1.usedBytes, adapter.held.size], [0, 2]);
  assertEquals(await countHits(cache, testKeys(2), LAYOUT), 2);
  adapter.beforeStore = () => Promise.reject(new Error("full"));
  await putObjects(cache, testKeys(1, 10), LAYOUT);
  assertEquals(await countHits(cache, testKeys(1, 10), LAYOUT), 1);
  assertIdle(cache);
});

Deno.test("TieredCache with the store policy on_evict writes what is about to leave", async () => {
  const adapter = new RecordingAdapter();
  const l1 = { capacityBytes: 10 * LAYOUT.byteLength, watermark: { high: 0.8, low: 0.5 } };
  const clock = new ManualClock();
  const store = { policy: "on_evict" } as const;
  await using cache = await TieredCache.open(optionsWith(adapter, { clock, l1, store }));
  put(cache, testKeys(8), LAYOUT);
  await clock.advance(1_000);
  assertEquals(adapter.held.size, 0, "below the watermark");
  put(cache, testKeys(1, 8), LAYOUT);
  await clock.advance(1_000);
  const written = adapter.held.size;
  assert(written >= 4 && written < 9, `${written} are written to come down to half`);
  put(cache, testKeys(1, 9), LAYOUT);
  assertEquals(await countHits(cache, testKeys(10), LAYOUT), 10);
  await cache.flush();
  assertEquals(adapter.held.size, 10, "the others at the end");
});

Deno.test("TieredCache asks store and prefetch policies of the caller", async () => {
  const [first, second] = [new RecordingAdapter(), new RecordingAdapter()];
  const seen: string[] = [];
  const policy: StorePolicy = {
    name: "by_size",
    writes: "at-once",
    keepsInL1: true,
    targets({ layout }, adapters) {
      seen.push(adapters.map(({ id, type }) => `${id} ${type}`).join());
      return adapters.filter(({ type }) => type === (layout.byteLength > 512 ? "large" : "small"));
    },
  };
  const prefetch = {
    policy: { name: "no first", retains: (key: ObjectKey) => key.id !== testKey(0).id },
  };
  await using cache = await TieredCache.open(
    optionsOf({ small: first, large: second }, { store: { policy }, prefetch }),
  );
  await putObjects(cache, testKeys(2), LAYOUT);
  await putObjects(cache, testKeys(1, 5), testLayout(256));
  assertEquals([first.held.size, second.held.size], [1, 2]);
  assertEquals(new Set(seen), new Set(["0 small,1 large"]));
  cache.clearL1();
  assertEquals(await countHits(cache, testKeys(2), LAYOUT), 2);
  assertEquals(cache.reportStatus().l1.totalObjectCount, 1, "the first left with its reader");
  const { store, prefetch: { policy: name } } = cache.reportStatus();
  assertEquals([store.policy, name], ["by_size", "no first"]);
});

// Bounds

Deno.test("TieredCache evicts down to the low watermark as soon as the high one is passed", async () => {
  const l1 = { capacityBytes: 10 * LAYOUT.byteLength, watermark: { high: 0.8, low: 0.5 } };
  await using cache = await TieredCache.open(optionsWith(new RecordingAdapter(), { l1 }));
  await putObjects(cache, testKeys(8), LAYOUT);
  assertEquals(cache.reportStatus().l1.usedBytes, 8 * LAYOUT.byteLength);
  await putObjects(cache, testKeys(1, 8), LAYOUT);
  // Dirty objects stay, so the ninth object is there.
  assertEquals(cache.reportStatus().l1.usedBytes, 5 * LAYOUT.byteLength);
  assertEquals(cache.reportStatus().eviction.l1EvictedBytes, 4 * LAYOUT.byteLength);
});

Deno.test("TieredCache keeps the objects of a salt within its quota, in each tier", async () => {
  const adapter = new RecordingAdapter();
  await using cache = await TieredCache.open(optionsWith(adapter));
  const keysOf = (cacheSalt: string, count: number): ObjectKey[] =>
    Array.from({ length: count }, (_, n) => testKey(n, { cacheSalt }));
  const sealed = LAYOUT.byteLength + 64;
  cache.quota.set("alice", { l1Bytes: 3 * LAYOUT.byteLength, l2Bytes: 2 * sealed });
  cache.quota.setDefault({ l1Bytes: 5 * LAYOUT.byteLength });

  for (const key of keysOf("alice", 6)) await putObjects(cache, [key], LAYOUT);
  for (const key of keysOf("bob", 6)) await putObjects(cache, [key], LAYOUT);
  const heldOf = (salt: string): number => adapter.count(keysOf(salt, 6));
  // The excess is removed in the background.
  await until(() => heldOf("alice") <= 2);
  assertEquals([heldOf("alice"), heldOf("bob")], [2, 6]);
  const l1Of = async (salt: string): Promise<number> => {
    adapter.held.clear();
    let resident = 0;
    for (const key of keysOf(salt, 6)) resident += await countHits(cache, [key], LAYOUT);
    return resident;
  };
  assertEquals([await l1Of("alice"), await l1Of("bob")], [3, 5]);
  cache.quota.set("bob", { l1Bytes: LAYOUT.byteLength });
  assertEquals(await l1Of("bob"), 1, "a lower quota counts at once");
});

Deno.test("TieredCache writes what a salt's quota has no room for otherwise", async () => {
  const adapter = new RecordingAdapter();
  const store = { policy: "on_evict" } as const;
  await using cache = await TieredCache.open(optionsWith(adapter, { store }));
  const keys = testKeys(6).map(({ chunkHash, model }) =>
    new ObjectKey({ chunkHash, model, cacheSalt: "alice" })
  );
  cache.quota.set("alice", { l1Bytes: 2 * LAYOUT.byteLength });
  put(cache, testKeys(2, 50), LAYOUT);
  assertEquals(put(cache, keys.slice(0, 2), LAYOUT).length, 2);
  // No other salt is short of memory, so nothing else would ever store them.
  const [reservation] = cache.reserveWrite(keys.slice(2, 3), LAYOUT);
  assertEquals(reservation?.status, "quota-exceeded");
  await until(() => cache.reportStatus().store.unsavedObjects === 2);
  assertEquals(new Set(adapter.held.keys()), idsOf(keys.slice(0, 2)), "and no other salt's");
  assertEquals(put(cache, keys.slice(2, 4), LAYOUT).length, 2);
  assertEquals(cache.reserveWrite(keys.slice(4, 5), LAYOUT)[0]?.status, "quota-exceeded");
  await until(() => cache.reportStatus().store.unsavedObjects === 2);
  assertEquals(put(cache, keys.slice(4), LAYOUT).length, 2, "again and again");
});

// Events

Deno.test("TieredCache tells what happens, with details that have their types", async () => {
  const adapter = new RecordingAdapter();
  const clock = new ManualClock();
  const options = optionsWith(adapter, {
    clock,
    l1: { capacityBytes: 4 * LAYOUT.byteLength },
    store: { attempts: 1 },
    breaker: { failures: 1, coolDownMs: 10 },
  });
  await using cache = await TieredCache.open(options);
  const { events } = cache;
  const of = { id: 0, type: "hand_made" };
  const bytes = LAYOUT.byteLength + 64;

  const stored = listen(events, "stored");
  await putObjects(cache, testKeys(2), LAYOUT);
  assertEquals(stored, [["stored", { adapter: of, objects: 2, bytes: 2 * bytes }]]);

  const removed = listen(events, "removed");
  cache.clearL1();
  assertEquals(removed.map(([, { reason }]) => reason), ["deleted", "deleted"]);
  assertEquals(removed.map(([, { key }]) => key.id).sort(), testKeys(2).map(({ id }) => id).sort());

  const loaded = listen(events, "loaded");
  assertEquals(await countHits(cache, testKeys(2), LAYOUT), 2);
  assertEquals(loaded, [["loaded", { adapter: of, objects: 2 }]]);

  const damage = listen(events, "damaged", "deleted");
  adapter.seed([testKey(7)], LAYOUT);
  const held = adapter.held.get(testKey(7).id);
  if (held !== undefined) held[0] = (held[0] ?? 0) ^ 1;
  assertEquals(await countHits(cache, [testKey(7)], LAYOUT), 0);
  assertEquals(damage, [
    ["damaged", { adapter: of, key: testKey(7), fault: "payload-checksum" }],
    ["deleted", { adapter: of, objects: 1, bytes }],
  ]);

  const deadline = listen(events, "deadline");
  adapter.beforeLookup = () => new Promise(() => {});
  const late = cache.match(testKeys(3), LAYOUT, { deadlineMs: 10 });
  await clock.advance(10);
  (await late)[Symbol.dispose]();
  const details = { objects: 3, servedObjects: 2, deadlineMs: 10 };
  assertEquals(deadline, [["deadline", details]]);
  adapter.beforeLookup = () => {};

  const failed = listen(events, "dropped", "adapterchanged");
  adapter.beforeStore = () => Promise.reject(new Error("full"));
  await putObjects(cache, testKeys(1, 20), LAYOUT);
  assertEquals(failed, [["adapterchanged", of], ["dropped", { objects: 1, reason: "failed" }]]);
  adapter.beforeStore = () => {};
  await clock.advance(5_000);
  await putObjects(cache, testKeys(1, 21), LAYOUT);
  assertEquals(failed.at(-1), ["adapterchanged", of], "it works again");
});

Deno.test("TieredCache continues when its listeners throw", async () => {
  const adapter = new RecordingAdapter();
  await using cache = await TieredCache.open(optionsWith(adapter));
  for (const type of ["stored", "loaded", "removed"] as const) {
    cache.events.addEventListener(type, () => {
      throw new Error("a bug in a dashboard");
    });
  }
  await putObjects(cache, testKeys(3), LAYOUT);
  cache.clearL1();
  assertEquals(await countHits(cache, testKeys(3), LAYOUT), 3);
  assertIdle(cache);
});

// Arguments

gpuTest(
  "TieredCache rejects objects that it cannot move, before the GPU sees them",
  async (gpuDevice) => {
    await using cache = await TieredCache.open({
      device: gpuDevice,
      l1: { capacityBytes: 64 * MIB },
      prefetch: { maxInFlightBytes: 8 * MIB },
      store: { maxInFlightBytes: 16 * MIB },
    });
    const layouts: Record<string, ObjectLayout> = {
      "empty": testLayout(0),
      "negative": testLayout(-4),
      "no number": testLayout(NaN),
      "no integer": testLayout(4.5),
      "misaligned": testLayout(1022),
      "larger than L1": testLayout(64 * MIB + 4),
      "larger than prefetch.maxInFlightBytes": testLayout(8 * MIB),
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
    store: { maxInFlightBytes: STAGING_BLOCK_BYTES },
  });
  const largest = testLayout(STAGING_BLOCK_BYTES - 64);
  cache.cancelWrite(stagedOf(cache.reserveWrite([testKey(1)], largest)));
  assertThrows(
    () => cache.reserveWrite([testKey(1)], testLayout(STAGING_BLOCK_BYTES - 60)),
    RangeError,
    "store.maxInFlightBytes",
  );
  // The tail of a long name counts.
  assertThrows(
    () => cache.reserveWrite([testKey(1, { model: "m".repeat(250) })], largest),
    RangeError,
    "store.maxInFlightBytes",
  );
});

// Status and closing

Deno.test("TieredCache.reportStatus() is JSON, and says what is wrong", async () => {
  const adapter = new RecordingAdapter();
  const cache = await TieredCache.open(
    optionsWith(adapter, { store: { attempts: 1 }, breaker: { coolDownMs: 0 } }),
  );
  await putObjects(cache, testKeys(2), LAYOUT);
  assertEquals(await countHits(cache, testKeys(2), LAYOUT), 2);
  const healthy = cache.reportStatus();
  assertEquals([healthy.isHealthy, healthy.problems], [true, []]);
  // Unknown values are left out of the JSON.
  const known = Object.entries(healthy.adapters[0] ?? {}).filter(([, value]) =>
    value !== undefined
  );
  const adapterStatus = Object.fromEntries(known);
  assertEquals(JSON.parse(JSON.stringify({ ...healthy, adapters: [adapterStatus] })), {
    ...healthy,
    adapters: [adapterStatus],
  });

  adapter.beforeStore = () => Promise.reject(new Error("the disk is on fire"));
  for (let n = 10; n < 13; n++) await putObjects(cache, [testKey(n)], LAYOUT);
  const { isHealthy, problems } = cache.reportStatus();
  assertEquals(isHealthy, false);
  assertEquals(problems.length, 1);
  assertStringIncludes(problems[0] ?? "", "adapter 0 (hand_made): ");
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
  put(cache, [testKey(1)], LAYOUT);
  put(cache, [testKey(2)], LAYOUT);
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
  const staged = stagedOf(cache.reserveWrite([testKey(1)], LAYOUT));
  const closing = cache.close();
  for (const when of ["while it closes", "when it is closed"]) {
    assertThrows(() => cache.reserveWrite([testKey(2)], LAYOUT), Error, "Cache is closed", when);
    assertThrows(() => cache.finishWrite(staged), Error, "Cache is closed", when);
    await assertRejects(() => cache.match([testKey(2)], LAYOUT), Error, "Cache is closed", when);
    await assertRejects(() => cache.flush(), Error, "Cache is closed", when);
    await closing;
  }
  cache.cancelWrite(staged);
  cache.clearL1();
  assertEquals(adapter.stores, []);
});

Deno.test("TieredCache.close() is not held up by adapters that hang", async () => {
  const adapter = new RecordingAdapter();
  const clock = new ManualClock();
  // The load of one object fills the scratch; another object waits for it.
  const layout = testLayout(STAGING_BLOCK_BYTES - 64);
  const options = {
    clock,
    prefetch: { maxInFlightBytes: STAGING_BLOCK_BYTES },
    l1: { capacityBytes: 32 * MIB },
  };
  const cache = await TieredCache.open(optionsWith(adapter, options));
  adapter.seed(testKeys(2), layout);
  const never = new Promise<void>(() => {});
  adapter.beforeLoad = () => never;
  adapter.beforeStore = () => never;
  adapter[Symbol.asyncDispose] = () => never;

  const matched = cache.match(testKeys(2), layout);
  await clock.advance(0);
  put(cache, [testKey(9)], LAYOUT);
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

Deno.test("a store policy that throws costs nothing but its choice", async () => {
  const adapter = new RecordingAdapter();
  const cache = await TieredCache.open(optionsWith(adapter, {
    store: {
      policy: {
        name: "broken",
        writes: "at-once",
        keepsInL1: true,
        targets() {
          throw new Error("the policy is broken");
        },
      },
    },
  }));
  await putObjects(cache, testKeys(2), LAYOUT);
  assertEquals(adapter.held.size, 2);
  await cache.close();
});
