import { assert, assertEquals, assertRejects } from "@std/assert";
import { PrefixCache } from "../../../src/engine/mod.ts";
import { kvLayout } from "../../../src/keys/kv_layout.ts";
import type { MemoryDevice } from "../../../src/memory/memory_device.ts";
import { forceCopyPath, WebGpuDevice } from "../../../src/memory/webgpu_device.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { TieredCache } from "../../../src/tiered_cache.ts";
import { moduleOf } from "../../support/adapters.ts";
import { gpuTest } from "../../support/devices.ts";
import { FragileDevice } from "../../support/fragile_device.ts";
import { EngineTensors } from "../../support/kv_tensors.ts";
import { RecordingAdapter } from "../../support/recording_adapter.ts";

// Between put() and the device's word that it has the memory and takes the copies.

const LAYOUT = kvLayout({ layers: 3, kvHeads: 2, headDim: 4, dtype: "f16", chunkTokens: 4 });
const RESERVED_BYTES = 512;
const ENGINE = 4 | 8 | 128; // GPUBufferUsage.COPY_SRC | COPY_DST | STORAGE
const TOKENS = [1, 2, 3, 4];
const PROMPT = [...TOKENS, 999];

interface SetUp extends AsyncDisposable {
  readonly clock: ManualClock;
  readonly adapter: RecordingAdapter;
  readonly cache: TieredCache;
  readonly prefixes: PrefixCache;
}

/** A cache with one adapter, and room for `chunks` in device memory. */
async function setUp(device: MemoryDevice, chunks: number): Promise<SetUp> {
  const adapter = new RecordingAdapter();
  const clock = new ManualClock();
  const cache = await TieredCache.open({
    device,
    clock,
    l1: { capacityBytes: chunks * RESERVED_BYTES },
    adapters: [moduleOf(() => adapter)],
    l2: [{ type: "hand_made" }],
  });
  const prefixes = new PrefixCache(cache, { model: { name: "m" }, layout: LAYOUT });
  const close = (): Promise<void> => cache[Symbol.asyncDispose]();
  return { adapter, clock, cache, prefixes, [Symbol.asyncDispose]: close };
}

function put({ cache, prefixes }: SetUp, salt = ""): void {
  using tensors = new EngineTensors(cache.device, LAYOUT, TOKENS.length).fill(1);
  prefixes.put(TOKENS, tensors.kv, { salt, computedTokens: TOKENS.length });
}

async function hitTokens({ prefixes }: SetUp, salt = ""): Promise<number> {
  using hit = await prefixes.match(PROMPT, { salt });
  return hit.tokens;
}

for (const path of ["kernel", "copies"] as const) {
  gpuTest(`what a device refuses late is never found, nor stored [${path}]`, async (gpu) => {
    const ask = gpu.popErrorScope.bind(gpu);
    let answers = Promise.resolve();
    gpu.popErrorScope = async () => {
      const [error] = await Promise.all([ask(), answers]);
      return error;
    };
    using device = WebGpuDevice.adopt(gpu);
    await forceCopyPath(device, path);
    // Room for one prompt only, where another tenant's lay before.
    await using t = await setUp(device, 1);
    put(t, "alice");
    await t.cache.flush();
    const size = TOKENS.length * LAYOUT.tokenBytes;
    const destroyed = gpu.createBuffer({ size, usage: ENGINE });
    destroyed.destroy();
    const kv = Array.from({ length: 3 }, () => ({ key: destroyed, value: destroyed }));

    const { promise, resolve } = Promise.withResolvers<void>();
    answers = promise;
    t.prefixes.put(TOKENS, kv, { salt: "bob", computedTokens: TOKENS.length });
    const early = hitTokens(t, "bob");
    const { l1 } = t.cache.reportStatus();
    assertEquals([l1.fillingObjectCount, l1.totalObjectCount], [1, 1]);
    resolve();
    assertEquals(await early, 0, "it waits, and misses");
    assertEquals(await hitTokens(t, "bob"), 0);
    await t.cache.flush();
    assertEquals(t.adapter.held.size, 1, "only alice's is stored");
    assertEquals(t.cache.reportStatus().l1.unfilledCount, 1);
  });
}

Deno.test("objects in memory that the device failed to allocate are neither found nor stored", async () => {
  const device = new FragileDevice({ answersLate: true });
  await using t = await setUp(device, 4);
  put(t);
  const [slab] = device.slabs;
  assert(slab !== undefined);
  const matching = hitTokens(t);
  const flushing = t.cache.flush();
  await t.clock.advance(1_000);
  assertEquals(t.adapter.stores, [], "nothing is read back before it is known");
  device.answer(slab, false);
  await flushing;
  assertEquals(await matching, 0);
  assertEquals([await hitTokens(t), t.adapter.held.size], [0, 0]);
});

Deno.test("a match waits until the device has confirmed a put, and a flush too", async () => {
  const device = new FragileDevice({ answersLate: true });
  await using t = await setUp(device, 4);
  put(t);
  const matching = t.prefixes.match(PROMPT);
  const flushing = t.cache.flush();
  const ready = t.cache.storeReady();
  for (const slab of device.slabs) device.answer(slab, true);
  using hit = await matching;
  assertEquals([hit.tokens, hit.l1Tokens], [4, 4]);
  using restored = new EngineTensors(device, LAYOUT, TOKENS.length);
  assertEquals(await hit.scatterTo(restored.kv), true);
  assertEquals(await restored.read(), restored.expected(1));
  await ready;
  await flushing;
  assertEquals(t.adapter.held.size, 1);
});

Deno.test("a match waits for the device until its deadline or signal", async () => {
  const device = new FragileDevice({ answersLate: true });
  await using t = await setUp(device, 4);
  put(t);
  const matching = t.prefixes.match(PROMPT, { deadlineMs: 50 });
  await t.clock.advance(50);
  using hit = await matching;
  assertEquals(hit.tokens, 0);
  const caller = new AbortController();
  const given = t.prefixes.match(PROMPT, { signal: caller.signal });
  caller.abort(new Error("the user left"));
  await assertRejects(() => given, Error, "the user left");
  for (const slab of device.slabs) device.answer(slab, true);
  await t.cache.flush();
  assertEquals(await hitTokens(t), 4);
});

Deno.test("objects forgotten before the device has confirmed them stay forgotten", async () => {
  const device = new FragileDevice({ answersLate: true });
  await using t = await setUp(device, 4);
  put(t);
  const forgetting = t.cache.forget({ salt: "" });
  for (const slab of device.slabs) device.answer(slab, true);
  assertEquals((await forgetting).l1.objects, 1);
  await t.cache.flush();
  assertEquals([await hitTokens(t), t.adapter.held.size], [0, 0]);
  assertEquals(t.cache.reportStatus().l1.usedBytes, 0);
});
