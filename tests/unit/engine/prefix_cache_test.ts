import {
  assert,
  assertEquals,
  assertExists,
  assertNotEquals,
  assertRejects,
  assertThrows,
} from "@std/assert";
import { configure, reset } from "@logtape/logtape";
import {
  type MatchOptions,
  PrefixCache,
  type PrefixCacheOptions,
  type PutOptions,
  type PutResult,
} from "../../../src/engine/mod.ts";
import { type KvLayout, kvLayout } from "../../../src/keys/kv_layout.ts";
import type { L2Adapter } from "../../../src/adapter/contract.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { DeviceLostError, type MemoryDevice } from "../../../src/memory/memory_device.ts";
import { WebGpuDevice } from "../../../src/memory/webgpu_device.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { TieredCache } from "../../../src/tiered_cache.ts";
import { moduleOf } from "../../support/adapters.ts";
import { assertSameBytes } from "../../support/bytes.ts";
import { deviceTest, gpuTest } from "../../support/devices.ts";
import { EngineTensors } from "../../support/kv_tensors.ts";
import { gate, RecordingAdapter } from "../../support/recording_adapter.ts";

const SHAPE = { layers: 3, kvHeads: 2, headDim: 4, dtype: "f16", chunkTokens: 4 } as const;
/** Objects of 384 bytes, which take 512 in L1. */
const LAYOUT = kvLayout(SHAPE);
const RESERVED_BYTES = 512;
const MODEL = { name: "test/model", revision: "r1" };

interface SetUp extends AsyncDisposable {
  readonly adapter: RecordingAdapter;
  readonly clock: ManualClock;
  readonly cache: TieredCache;
  readonly prefixes: PrefixCache;
}

/** A cache with one adapter; `chunks` fit into L1. */
async function setUp(
  device: MemoryDevice,
  chunks = 64,
  adapter = new RecordingAdapter(),
): Promise<SetUp> {
  const clock = new ManualClock();
  const cache = await TieredCache.open({
    device,
    clock,
    l1: { capacityBytes: chunks * RESERVED_BYTES },
    adapters: [moduleOf((): L2Adapter => adapter)],
    l2: [{ type: "hand_made" }],
  });
  const prefixes = new PrefixCache(cache, { model: MODEL, layout: LAYOUT });
  return {
    adapter,
    clock,
    cache,
    prefixes,
    async [Symbol.asyncDispose]() {
      await cache.close();
      const { l1, store, prefetch } = cache.reportStatus();
      assertEquals([l1.readLockedCount, l1.stagingObjectCount, store.pendingObjects], [0, 0, 0]);
      assertEquals([prefetch.loadBytesInUse, store.unsavedObjects, l1.heldCount], [0, 0, 0]);
      assertEquals(adapter.lockCount, 0);
      assertEquals(clock.pendingTimers, 0);
    },
  };
}

const COPIED = 4 | 8; // GPUBufferUsage.COPY_SRC | COPY_DST, also where there is no GPU.

/** A made-up prompt. */
function prompt(length: number, first = 1): number[] {
  return Array.from({ length }, (_, i) => first + i * 7);
}

/** The token of a prompt that is run whatever is found. */
const NEXT = 999_999;

/** How many tokens of a prompt are found, where one follows. */
async function hitTokens(
  prefixes: PrefixCache,
  tokens: readonly number[],
  options: MatchOptions = {},
): Promise<number> {
  using hit = await prefixes.match([...tokens, NEXT], options);
  return hit.tokens;
}

/** Puts a prompt after its prefill: its KV is made up from `seed`. */
function put(
  { cache, prefixes }: SetUp,
  tokens: ArrayLike<number>,
  options: PutOptions & { seed?: number } = {},
): PutResult {
  const { seed = 1, ...rest } = options;
  using tensors = new EngineTensors(cache.device, LAYOUT, Math.max(1, tokens.length)).fill(seed);
  return prefixes.put(tokens, tensors.kv, { computedTokens: tokens.length, ...rest });
}

/** Asserts that a match restores the KV made from `seed` where one token follows, and no more. */
async function assertRestores(
  { cache, prefixes }: SetUp,
  tokens: readonly number[],
  expectedTokens: number,
  seed = 1,
): Promise<void> {
  using restored = new EngineTensors(cache.device, LAYOUT, tokens.length).fill(99);
  using hit = await prefixes.match([...tokens, NEXT]);
  assertEquals(hit.tokens, expectedTokens);
  hit.scatterTo(restored.kv);
  const end = expectedTokens * LAYOUT.tokenBytes;
  for (const [i, actual] of (await restored.read()).entries()) {
    const expected = (restored.expected(99)[i] as Uint8Array).slice();
    expected.set((restored.expected(seed)[i] as Uint8Array).subarray(0, end));
    assertSameBytes(actual, expected, `tensor ${i}`);
  }
}

deviceTest(
  "PrefixCache restores a prompt exactly, from L1 and from an adapter",
  async (device) => {
    await using t = await setUp(device);
    const tokens = prompt(14);
    assertEquals(put(t, tokens), { storedTokens: 12, residentTokens: 0, skippedTokens: 0 });
    await assertRestores(t, tokens, 12);
    await t.cache.flush();
    t.cache.clearL1();
    await assertRestores(t, tokens, 12);
    await assertRestores(t, tokens, 12);
  },
);

deviceTest("PrefixCache restores tensors whose heads come first", async (device) => {
  await using t = await setUp(device);
  const layout = kvLayout({ ...LAYOUT, order: "HND" });
  const prefixes = new PrefixCache(t.cache, { model: MODEL, layout });
  const tokens = prompt(14);
  using tensors = new EngineTensors(device, layout, 16).fill(1);
  using restored = new EngineTensors(device, layout, 16).fill(2);
  prefixes.put(tokens, { layers: tensors.kv, blockTokens: 16 });
  await t.cache.flush();
  t.cache.clearL1();
  using hit = await prefixes.match(tokens);
  assertEquals(hit.tokens, 12);
  hit.scatterTo({ layers: restored.kv, blockTokens: 16 });
  const headBytes = 16 * layout.tokenBytes / layout.kvHeads;
  for (const [i, actual] of (await restored.read()).entries()) {
    const expected = restored.expected(2)[i] as Uint8Array;
    for (let head = 0; head < layout.kvHeads; head++) {
      const start = head * headBytes;
      const found = (tensors.expected(1)[i] as Uint8Array).subarray(
        start,
        start + headBytes * 3 / 4,
      );
      expected.set(found, start);
    }
    assertSameBytes(actual, expected, `tensor ${i}`);
  }
  assertEquals(await hitTokens(t.prefixes, tokens), 0, "tokens first is another layout");
});

deviceTest("PrefixCache.match() finds the chunks that a prompt shares", async (device) => {
  await using t = await setUp(device);
  const tokens = prompt(16);
  put(t, tokens);
  await assertRestores(t, tokens, 16);
  await assertRestores(t, [...tokens, 5, 6, 7, 8, 9], 16);
  await assertRestores(t, tokens.slice(0, 15), 12);
  await assertRestores(t, tokens.slice(0, 8), 8);
  // Everything behind a token that differs is another prefix.
  for (const changed of [4, 9, 15]) {
    const others = tokens.with(changed, 1_000_000);
    await assertRestores(t, others, Math.floor(changed / 4) * 4);
  }
  assertEquals(await hitTokens(t.prefixes, tokens.with(0, 1_000_000)), 0);
});

Deno.test("PrefixCache does not cache prompts shorter than a chunk", async () => {
  await using t = await setUp(new HostDevice());
  for (const tokens of [[], [1], [1, 2, 3]]) {
    assertEquals(put(t, tokens), { storedTokens: 0, residentTokens: 0, skippedTokens: 0 });
    assertEquals(await hitTokens(t.prefixes, tokens), 0);
  }
  await t.cache.flush();
  assertEquals(t.adapter.stores, []);
});

Deno.test("PrefixCache takes tokens in typed arrays", async () => {
  await using t = await setUp(new HostDevice());
  put(t, Uint32Array.from(prompt(8)));
  assertEquals(await hitTokens(t.prefixes, prompt(8)), 8);
});

Deno.test("PrefixCache isolates salts", async () => {
  await using t = await setUp(new HostDevice());
  const tokens = prompt(8);
  const hits = async (): Promise<number[]> => [
    await hitTokens(t.prefixes, tokens, { salt: "alice" }),
    await hitTokens(t.prefixes, tokens, { salt: "bob" }),
    await hitTokens(t.prefixes, tokens),
  ];
  put(t, tokens, { salt: "alice" });
  assertEquals(await hits(), [8, 0, 0]);
  await t.cache.flush();
  t.cache.clearL1();
  assertEquals(await hits(), [8, 0, 0]);
});

const base: PrefixCacheOptions = { model: MODEL, layout: LAYOUT };
const others: Record<string, PrefixCacheOptions> = {
  "another model": { ...base, model: { ...MODEL, name: "test/model2" } },
  "another revision": { ...base, model: { ...MODEL, revision: "r2" } },
  "no revision": { ...base, model: { name: MODEL.name } },
  "another rank": { ...base, kvRank: 1 },
  "another dtype": { ...base, layout: kvLayout({ ...SHAPE, dtype: "bf16" }) },
  "other heads of the same size": {
    ...base,
    layout: kvLayout({ ...SHAPE, kvHeads: 4, headDim: 2 }),
  },
  "fewer layers": { ...base, layout: kvLayout({ ...SHAPE, layers: 2 }) },
  "other chunks": { ...base, layout: kvLayout({ ...SHAPE, chunkTokens: 8 }) },
};
for (const [name, options] of Object.entries(others)) {
  Deno.test(`PrefixCache of ${name} finds nothing of this one`, async () => {
    await using t = await setUp(new HostDevice());
    const tokens = prompt(8);
    put(t, tokens);
    await t.cache.flush();
    const other = new PrefixCache(t.cache, options);
    assertEquals(await hitTokens(other, tokens), 0);
    t.cache.clearL1();
    assertEquals(await hitTokens(other, tokens), 0);
    assertEquals(await hitTokens(new PrefixCache(t.cache, { ...base }), tokens), 8);
  });
}

Deno.test("PrefixCache.put() stores only missing chunks", async () => {
  await using t = await setUp(new HostDevice());
  const tokens = prompt(16);
  put(t, tokens.slice(0, 8));
  await t.cache.flush();
  assertEquals(put(t, tokens), { storedTokens: 8, residentTokens: 8, skippedTokens: 0 });
  await t.cache.flush();
  assertEquals(put(t, tokens), { storedTokens: 0, residentTokens: 16, skippedTokens: 0 });
  await t.cache.flush();
  assertEquals(t.adapter.stores.map(({ length }) => length), [2, 2]);
  await assertRestores(t, tokens, 16);
});

Deno.test("PrefixCache.put() does not evict the start of its own sequence", async () => {
  await using t = await setUp(new HostDevice(), 4);
  const tokens = prompt(24);
  // The head is what was used longest ago.
  put(t, tokens.slice(0, 8));
  put(t, prompt(8, 5000));
  // Nothing is evicted before it is written.
  await t.cache.flush();
  assertEquals(put(t, tokens), { storedTokens: 8, residentTokens: 8, skippedTokens: 8 });
  await assertRestores(t, tokens, 16);
});

Deno.test("PrefixCache.put() beyond L1 keeps the start and counts the rest", async () => {
  await using t = await setUp(new HostDevice(), 4);
  const tokens = prompt(30);
  const skipped: unknown[] = [];
  t.cache.events.addEventListener("skipped", ({ detail }) => skipped.push(detail));
  assertEquals(put(t, tokens), { storedTokens: 16, residentTokens: 0, skippedTokens: 12 });
  assertEquals(t.cache.reportStatus().skippedWrites["out-of-memory"], 3);
  assertEquals(skipped, [{ objects: 3, reason: "out-of-memory" }]);
  await assertRestores(t, tokens, 16);
  await t.cache.flush();
  assertEquals(t.adapter.held.size, 4);
});

Deno.test("PrefixCache.put() is a use of the whole sequence: its end is evicted first", async () => {
  await using t = await setUp(new HostDevice(), 6);
  const tokens = prompt(16);
  put(t, tokens.slice(0, 8));
  put(t, tokens);
  await t.cache.flush();
  // Room for four chunks: two are free, two must go.
  put(t, prompt(16, 5000));
  await t.cache.flush();
  t.adapter.held.clear();
  assertEquals(await hitTokens(t.prefixes, tokens), 8);
});

deviceTest(
  "PrefixCache.put() returns immediately, and the engine may reuse its tensors",
  async (device) => {
    await using t = await setUp(device);
    const tokens = prompt(12);
    using tensors = new EngineTensors(device, LAYOUT, 12).fill(1);
    t.prefixes.put(tokens, tensors.kv, { computedTokens: 12 });
    tensors.fill(2);
    assertEquals(t.adapter.stores, [], "nothing is written before the caller's turn is over");
    const { l1, store } = t.cache.reportStatus();
    assertEquals(l1.fillingObjectCount + store.pendingObjects, 3);

    await t.cache.flush();
    await assertRestores(t, tokens, 12);
    t.cache.clearL1();
    await assertRestores(t, tokens, 12);
  },
);

Deno.test("PrefixCache.put() rejects tensors that do not fit and leaves nothing staged", async () => {
  await using t = await setUp(new HostDevice());
  const { device } = t.cache;
  const tokens = prompt(8);
  using good = new EngineTensors(device, LAYOUT, 8);
  using short = new EngineTensors(device, LAYOUT, 7);
  const put = (kv: EngineTensors["kv"]): PutResult =>
    t.prefixes.put(tokens, kv, { computedTokens: 8 });
  assertThrows(() => put(short.kv), RangeError, "8 tokens");
  assertThrows(() => put(good.kv.slice(1)), RangeError, "3 layers");
  assertThrows(() => put([...good.kv, ...good.kv]), RangeError, "3 layers");
  const buffer = { size: 1024 } as GPUBuffer; // Of another device.
  const foreign = good.kv.with(2, { key: buffer, value: buffer });
  assertThrows(() => put(foreign), TypeError, "Uint8Array");

  const { l1, store } = t.cache.reportStatus();
  assertEquals([l1.totalObjectCount, l1.usedBytes, store.pendingObjects], [0, 0, 0]);
  assertEquals(await hitTokens(t.prefixes, tokens), 0);
  put(good.kv);
  assertEquals(await hitTokens(t.prefixes, tokens), 8);
});

gpuTest(
  "PrefixCache.put() rejects host memory on a GPU and leaves nothing staged",
  async (gpuDevice) => {
    using device = WebGpuDevice.adopt(gpuDevice);
    await using t = await setUp(device);
    using wrong = new EngineTensors(new HostDevice(), LAYOUT, 8);
    assertThrows(() => t.prefixes.put(prompt(8), wrong.kv), TypeError, "GPUBuffer");
    assertEquals(t.cache.reportStatus().l1.totalObjectCount, 0);
  },
);

Deno.test("PrefixCache rejects invalid salts, tokens and models", async () => {
  await using t = await setUp(new HostDevice());
  const wrong: [number[], string, typeof Error][] = [
    [prompt(8), "a\nb", TypeError],
    [prompt(8), "a\ud800b", TypeError],
    [prompt(8), "a\0b", TypeError],
    [prompt(8), "x".repeat(129), RangeError],
    [prompt(8).with(3, -1), "", RangeError],
    [prompt(8).with(3, 1.5), "", RangeError],
    [prompt(8).with(3, 2 ** 32), "", RangeError],
    [prompt(8).with(7, NaN), "", RangeError],
  ];
  for (const [tokens, salt, type] of wrong) {
    assertThrows(() => put(t, tokens, { salt }), type);
    await assertRejects(() => t.prefixes.match(tokens, { salt }), type);
  }
  const make = (options: Partial<PrefixCacheOptions>): PrefixCache =>
    new PrefixCache(t.cache, { ...base, ...options });
  assertThrows(() => make({ model: { name: "" } }), RangeError);
  assertThrows(() => make({ model: { name: "a@b" } }), TypeError);
  assertThrows(() => make({ model: { name: "a", revision: "\ud800" } }), TypeError);
  const large: KvLayout = kvLayout({ ...SHAPE, chunkTokens: 512 });
  assertThrows(() => make({ layout: large }), RangeError, "must fit");
  assertThrows(() => make({ kvRank: -1 }), RangeError, "kvRank");
});

Deno.test("PrefixHit.scatterTo() rejects tensors that are too small", async () => {
  await using t = await setUp(new HostDevice());
  put(t, prompt(8));
  using short = new EngineTensors(t.cache.device, LAYOUT, 7).fill(3);
  using hit = await t.prefixes.match([...prompt(8), NEXT]);
  assertThrows(() => hit.scatterTo(short.kv), RangeError, "8 tokens");
  assertEquals(await short.read(), short.expected(3), "nothing was copied");
});

Deno.test("PrefixHit reports tokens from L1 and is invalid after disposal", async () => {
  await using t = await setUp(new HostDevice());
  const tokens = prompt(16);
  put(t, tokens);
  await t.cache.flush();
  t.cache.clearL1();
  put(t, tokens.slice(0, 4));
  const hit = await t.prefixes.match([...tokens, NEXT]);
  assertEquals([hit.tokens, hit.l1Tokens, hit.ranges().length], [16, 4, 4]);
  hit[Symbol.dispose]();
  assertThrows(() => hit.ranges(), Error, "no longer leased");
  using tensors = new EngineTensors(t.cache.device, LAYOUT, 16).fill(3);
  assertThrows(() => hit.scatterTo(tensors.kv), Error, "no longer leased");
  assertEquals(await tensors.read(), tensors.expected(3));
});

for (const options of [{}, { deadlineMs: 50 }]) {
  const { deadlineMs = 2_000 + 0.1 * 8 } = options;
  Deno.test(`PrefixCache.match(${JSON.stringify(options)}) waits ${deadlineMs} ms for a load`, async () => {
    await using t = await setUp(new HostDevice());
    put(t, prompt(8));
    await t.cache.flush();
    t.cache.clearL1();
    const [reached, released] = [gate(), gate()];
    t.adapter.beforeLoad = () => {
      reached.open();
      return released.promise;
    };

    let tokens: number | undefined;
    const matched = hitTokens(t.prefixes, prompt(8), options).then((count) => tokens = count);
    await reached.promise;
    await t.clock.advance(Math.ceil(deadlineMs) - 1);
    assertEquals(tokens, undefined);
    await t.clock.advance(1);
    assertEquals(tokens, 0);
    await matched;
    released.open();
  });
}

Deno.test("PrefixCache.match() rejects when the caller aborts", async () => {
  await using t = await setUp(new HostDevice());
  const { promise, open } = gate();
  t.adapter.beforeLookup = () => promise;
  const controller = new AbortController();
  const matched = t.prefixes.match(prompt(8), { signal: controller.signal });
  controller.abort(new Error("gone"));
  await assertRejects(() => matched, Error, "gone");
  open();
});

gpuTest("PrefixCache tolerates a lost device at every step", async (gpuDevice) => {
  const device = WebGpuDevice.adopt(gpuDevice);
  const t = await setUp(device);
  const tokens = prompt(12);
  using tensors = new EngineTensors(device, LAYOUT, 12).fill(1);
  const computed = { computedTokens: 12 };
  t.prefixes.put(tokens, tensors.kv, computed);
  await t.cache.flush();
  const hit = await t.prefixes.match(tokens);

  gpuDevice.destroy();
  // Before anybody can know, and after.
  t.prefixes.put(prompt(12, 5000), tensors.kv, computed);
  await device.lost;
  assertEquals(t.prefixes.put(prompt(12, 6000), tensors.kv, computed).skippedTokens, 12);
  assertThrows(() => hit.ranges(), DeviceLostError);
  assertThrows(() => hit.scatterTo(tensors.kv), DeviceLostError);
  hit[Symbol.dispose]();
  assertEquals(await hitTokens(t.prefixes, tokens), 0);
  await t.cache.flush();
  await t[Symbol.asyncDispose]();
  device[Symbol.dispose]();
  assertEquals(t.adapter.held.size, 3, "objects of the adapter");

  await using another = await setUp(new HostDevice(), 64, t.adapter);
  await assertRestores(another, tokens, 12);
});

Deno.test("PrefixCache of several models can share a cache", async () => {
  await using t = await setUp(new HostDevice());
  const large = kvLayout({ ...SHAPE, layers: 5 });
  const other = new PrefixCache(t.cache, { model: { name: "large" }, layout: large });
  using tensors = new EngineTensors(t.cache.device, large, 8).fill(4);
  const tokens = prompt(8);
  put(t, tokens);
  other.put(tokens, tensors.kv, { computedTokens: 8 });
  await t.cache.flush();
  t.cache.clearL1();
  await assertRestores(t, tokens, 8);
  using hit = await other.match([...tokens, NEXT]);
  assertEquals(hit.tokens, 8);
  assert(hit.ranges().every(({ byteLength }) => byteLength === large.byteLength));
});

Deno.test("PrefixCache separates prompts with different extra keys", async () => {
  await using t = await setUp(new HostDevice());
  const tokens = prompt(8);
  using tensors = new EngineTensors(t.cache.device, LAYOUT, 8).fill(1);
  t.prefixes.put(tokens, tensors.kv, { extraKey: "image 1", computedTokens: 8 });
  assertEquals(await hitTokens(t.prefixes, tokens, { extraKey: "image 1" }), 8);
  assertEquals(await hitTokens(t.prefixes, tokens, { extraKey: "image 2" }), 0);
  assertEquals(await hitTokens(t.prefixes, tokens), 0);
  assertEquals(await t.prefixes.warm(tokens, { extraKey: "image 1" }), 8);
  const keysOf = (extraKey: string) => t.prefixes.keys(tokens, { extraKey }).map(({ id }) => id);
  assertNotEquals(keysOf("image 1"), keysOf("image 2"));
});

const refusals: Record<string, (gpu: GPUDevice, size: number) => Promise<GPUBuffer>> = {
  "another device's": async (_, size) => {
    const adapter = await navigator.gpu.requestAdapter();
    const other = await adapter?.requestDevice();
    assertExists(other);
    return other.createBuffer({ size, usage: COPIED });
  },
  destroyed: (gpu, size) => {
    const buffer = gpu.createBuffer({ size, usage: COPIED });
    buffer.destroy();
    return Promise.resolve(buffer);
  },
};
for (const [what, makeBuffer] of Object.entries(refusals)) {
  gpuTest(`a prompt whose K is ${what} is never found, and says so`, async (gpu) => {
    const messages: string[] = [];
    await configure({
      sinks: { messages: (record) => messages.push(record.message.join("")) },
      loggers: [
        { category: "kvtier", sinks: ["messages"], lowestLevel: "error" },
        { category: ["logtape", "meta"], sinks: [] },
      ],
    });
    try {
      using device = WebGpuDevice.adopt(gpu);
      // Room for this prompt only, where another one lay before.
      await using t = await setUp(device, 2);
      const tokens = prompt(8);
      using good = new EngineTensors(device, LAYOUT, 8).fill(1);
      t.prefixes.put(tokens, good.kv, { salt: "alice", computedTokens: 8 });
      await t.cache.flush();
      await t.cache.forget({ salt: "alice" });
      const bad = await makeBuffer(gpu, 8 * LAYOUT.tokenBytes);
      const kv = good.kv.map(({ value }) => ({ key: bad, value }));

      t.prefixes.put(tokens, kv, { salt: "bob", computedTokens: 8 });
      await t.cache.flush();
      assertEquals(await hitTokens(t.prefixes, tokens, { salt: "bob" }), 0, "in device memory");
      assertEquals(t.adapter.held.size, 0, "in the adapter");
      const { unfilledCount, usedBytes } = t.cache.reportStatus().l1;
      assertEquals([unfilledCount, usedBytes], [2, 0]);
      assert(messages.some((message) => message.includes("rejected copies")), messages.join("\n"));

      t.prefixes.put(tokens, good.kv, { salt: "bob", computedTokens: 8 });
      using hit = await t.prefixes.match([...tokens, NEXT], { salt: "bob" });
      assertEquals(hit.tokens, 8);
      assertEquals(await hit.scatterTo(good.kv), true);
      assertEquals(await hit.scatterTo(kv), false, "neither can it be copied to");
      bad.destroy();
    } finally {
      await reset();
    }
  });
}

gpuTest("tensors that cannot be copied are rejected immediately", async (gpu) => {
  using device = WebGpuDevice.adopt(gpu);
  await using t = await setUp(device);
  const tokens = prompt(8);
  using good = new EngineTensors(device, LAYOUT, 8).fill(1);
  const with_ = (usage: number) => {
    const buffer = gpu.createBuffer({ size: 8 * LAYOUT.tokenBytes, usage });
    return { buffer, kv: good.kv.map(({ value }) => ({ key: buffer, value })) };
  };
  const unreadable = with_(GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST);
  assertThrows(() => t.prefixes.put(tokens, unreadable.kv), TypeError, "GPUBufferUsage.COPY_SRC");
  assertEquals(t.cache.reportStatus().l1.totalObjectCount, 0);
  t.prefixes.put(tokens, good.kv);
  using hit = await t.prefixes.match(tokens);
  const unwritable = with_(GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC);
  assertThrows(() => hit.scatterTo(unwritable.kv), TypeError, "GPUBufferUsage.COPY_DST");
  const mapped = with_(GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
  await mapped.buffer.mapAsync(GPUMapMode.READ);
  assertThrows(() => hit.scatterTo(mapped.kv), TypeError, "received a mapped one");
  for (const { buffer } of [unreadable, unwritable, mapped]) buffer.destroy();
});

Deno.test("PrefixCache rejects chunks that do not fit at construction", async () => {
  const options = { device: new HostDevice(), l1: { capacityBytes: 2 ** 30 } };
  await using cache = await TieredCache.open(options);
  const layout = kvLayout({ layers: 80, kvHeads: 8, headDim: 128, dtype: "f32" });
  const make = () => new PrefixCache(cache, { model: MODEL, layout });
  assertThrows(make, RangeError, "prefetch.maxInFlightBytes");
});

Deno.test("PrefixCache describes invalid constructor arguments", async () => {
  await using t = await setUp(new HostDevice());
  const make = (options: object) => () =>
    new PrefixCache(t.cache, { model: MODEL, layout: LAYOUT, ...options } as PrefixCacheOptions);
  assertThrows(make({ model: "qwen3" }), TypeError, "{ name, revision? }: received a string");
  assertThrows(make({ layout: { layers: 1 } }), TypeError, "kvLayout()");
  assertThrows(make({ deadline: { baseMs: -1 } }), RangeError, "deadline.baseMs");
  assertThrows(make({ deadline: { perTokenMs: NaN } }), RangeError, "deadline.perTokenMs");
  const prefixes = make({ deadline: { baseMs: undefined } })();
  assertEquals(await hitTokens(prefixes, prompt(8)), 0);
});

Deno.test("PrefixHit.renew() extends the lease of a prefix", async () => {
  await using t = await setUp(new HostDevice(), 2);
  const tokens = prompt(8);
  put(t, tokens);
  await t.cache.flush();
  using hit = await t.prefixes.match(tokens);
  const { readTtlMs } = t.cache.reportStatus().l1;
  for (let i = 0; i < 3; i++) {
    await t.clock.advance(readTtlMs - 1);
    assert(hit.renew());
    assertEquals(put(t, prompt(8, 1000)).skippedTokens, 8, "there is no other room");
    assertEquals(hit.ranges().length, 2);
  }
  await t.clock.advance(readTtlMs);
  assert(!hit.renew());
  assertThrows(() => hit.ranges(), Error, "no longer leased");
});
