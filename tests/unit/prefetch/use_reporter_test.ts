import { assert, assertEquals } from "@std/assert";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import { Bitmap, type L2Adapter } from "../../../src/adapter/contract.ts";
import { PrefixCache } from "../../../src/engine/prefix_cache.ts";
import { kvLayout } from "../../../src/keys/kv_layout.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { TieredCache } from "../../../src/tiered_cache.ts";
import type { KeyGroup } from "../../../src/prefetch/key_group.ts";
import { UseReporter } from "../../../src/prefetch/use_reporter.ts";
import { mapAdapter, moduleOf } from "../../support/adapters.ts";
import { put } from "../../support/caches.ts";
import { adapterSet } from "../../support/controllers.ts";
import { testKeys, testLayout } from "../../support/objects.ts";

const LAYOUT = testLayout(960);
/** An object with its trailer. */
const OBJECT_BYTES = 1024;
const GIB = 2 ** 30;

interface SetUp extends Disposable {
  readonly clock: ManualClock;
  readonly uses: UseReporter;
  /** Keys of each call, by adapter. */
  readonly told: ObjectKey[][][];
}

/** A reporter with adapters that record what they are told. */
function setUp(adapters = 1, change: (touch: L2Adapter["touch"]) => L2Adapter["touch"] = (t) => t) {
  const clock = new ManualClock();
  const told: ObjectKey[][][] = [];
  const set = adapterSet(
    Array.from({ length: adapters }, (): L2Adapter => {
      const calls: ObjectKey[][] = [];
      told.push(calls);
      const touch = change((keys) => void calls.push([...keys]));
      return touch === undefined ? mapAdapter() : { ...mapAdapter(), touch };
    }),
    clock,
  );
  const uses = new UseReporter(set, clock);
  const t: SetUp = {
    clock,
    uses,
    told,
    [Symbol.dispose]() {
      uses[Symbol.dispose]();
      assertEquals(clock.pendingTimers, 0, "timers");
    },
  };
  return t;
}

function group(keys: readonly ObjectKey[], windowChunks?: number): KeyGroup {
  return { keys, layout: LAYOUT, ...(windowChunks === undefined ? {} : { windowChunks }) };
}

function served(length: number, l1Objects = length) {
  return { length, l1Objects, leases: [] };
}

function ids(keys: readonly ObjectKey[] | undefined): string[] | undefined {
  return keys?.map(({ id }) => id);
}

Deno.test("a prefix is reported only occasionally, however often it is hit", async () => {
  using t = setUp(2);
  const keys = testKeys(4);
  for (let i = 0; i < 100; i++) t.uses.note([group(keys)], served(3));
  assertEquals(t.told, [[], []], "later, and together");
  await t.clock.advance(1_000);
  assertEquals(t.told.map((calls) => calls.map(ids)), [[ids(keys.slice(0, 3))], [
    ids(keys.slice(0, 3)),
  ]]);
  t.uses.note([group(keys)], served(3));
  await t.clock.advance(2_000);
  assertEquals(t.told[0]?.length, 1);
  await t.clock.advance(10_000);
  t.uses.note([group(keys)], served(3));
  await t.clock.advance(1_000);
  assertEquals(t.told[0]?.length, 2);
});

Deno.test("hits are reported together, each key once, heads before tails", async () => {
  using t = setUp();
  const [system, a, b] = [testKeys(2), testKeys(2, 10), testKeys(2, 20)];
  t.uses.note([group([...system, ...a])], served(4));
  t.uses.note([group([...system, ...b])], served(4));
  await t.clock.advance(1_000);
  assertEquals(t.told[0]?.map(ids), [ids([...system, ...b, ...a])]);
});

Deno.test("of a group with a window only what was needed counts as used", async () => {
  using t = setUp();
  const [all, last] = [testKeys(4), testKeys(4, 10)];
  t.uses.note([group(all), group(last, 1)], served(4, 5));
  await t.clock.advance(1_000);
  assertEquals(ids(t.told[0]?.[0])?.toSorted(), ids([...all, ...last.slice(3)])?.toSorted());
});

Deno.test("nothing is recorded if no adapter wants uses, or the only one knows already", () => {
  using without = setUp(2, () => undefined);
  without.uses.note([group(testKeys(3))], served(3));
  assertEquals(without.clock.pendingTimers, 0);
  using alone = setUp();
  alone.uses.note([group(testKeys(3))], served(3, 0));
  alone.uses.note([group(testKeys(3))], served(0));
  assertEquals(alone.clock.pendingTimers, 0, "it has served all of it itself");
});

Deno.test("the number of waiting keys is bounded", async () => {
  using t = setUp();
  const [key] = testKeys(1) as [ObjectKey];
  const keys = Array.from({ length: 20_000 }, (_, i) => {
    const hash = new Uint8Array(32);
    new DataView(hash.buffer).setUint32(0, i);
    return key.withChunkHash(hash);
  });
  for (const each of keys) t.uses.note([group([each])], served(1));
  await t.clock.advance(1_000);
  assertEquals(t.told[0]?.map(({ length }) => length), [16_384]);
});

for (
  const [how, touch] of Object.entries<NonNullable<L2Adapter["touch"]>>({
    throws: () => {
      throw new Error("broken");
    },
    rejects: () => Promise.reject(new Error("broken")) as unknown as void,
  })
) {
  Deno.test(`an adapter whose touch() ${how} costs nothing, and its status says so`, async () => {
    const clock = new ManualClock();
    const set = adapterSet([{ ...mapAdapter(), touch }], clock);
    using uses = new UseReporter(set, clock);
    uses.note([group(testKeys(1))], served(1));
    await clock.advance(1_000);
    await Promise.resolve();
    const [guard] = set.all;
    assert(guard?.lastError?.includes("broken"), String(guard?.lastError));
    assertEquals(guard?.reportStatus().failedCalls, 0);
  });
}

/** Puts objects that no request asks for, while a prompt is found in device memory again and again. */
async function useWhileOthersCome(cache: TieredCache, clock: ManualClock): Promise<number> {
  const hot = testKeys(4);
  put(cache, hot, LAYOUT);
  await cache.flush();
  for (let n = 0; n < 20; n++) {
    (await cache.match(hot, LAYOUT))[Symbol.dispose]();
    await clock.advance(11_000);
    put(cache, testKeys(2, 100 + 2 * n), LAYOUT);
    await cache.flush();
  }
  assertEquals(cache.reportStatus().prefetch.l2Objects, 0, "device memory has served all");
  cache.clearL1();
  using hit = await cache.match(hot, LAYOUT);
  return hit.length;
}

Deno.test("an adapter that evicts keeps what is hot in device memory", async () => {
  const clock = new ManualClock();
  await using cache = await TieredCache.open({
    device: new HostDevice(),
    clock,
    l1: { capacityBytes: 2 ** 20 },
    l2: [{ type: "dram", max_capacity_gb: 10 * OBJECT_BYTES / GIB }],
  });
  assertEquals(await useWhileOthersCome(cache, clock), 4);
});

Deno.test("so does one whose capacity the cache enforces", async () => {
  const clock = new ManualClock();
  const held = new Map<string, Uint8Array<ArrayBuffer>>();
  const bounded: L2Adapter = {
    ...mapAdapter(held),
    delete: (keys) => {
      const bits = keys.map(({ id }) => held.delete(id));
      return Promise.resolve({ deleted: Bitmap.from(bits, (bit) => bit), bytes: 0 });
    },
  };
  await using cache = await TieredCache.open({
    device: new HostDevice(),
    clock,
    l1: { capacityBytes: 2 ** 20 },
    adapters: [moduleOf(() => bounded)],
    l2: [{ type: "hand_made", eviction: { max_capacity_gb: 10 * OBJECT_BYTES / GIB } }],
  });
  assertEquals(await useWhileOthersCome(cache, clock), 4);
  assert(held.size <= 10);
});

const layout = kvLayout({ layers: 1, kvHeads: 1, headDim: 16, dtype: "f32", chunkTokens: 16 });

/** Puts a hot prompt before each of many others, and matches none. */
async function putWhileOthersCome(cache: TieredCache, clock: ManualClock): Promise<number> {
  const prefixes = new PrefixCache(cache, { model: { name: "example" }, layout });
  const tokens = (chunks: number, first: number) =>
    Array.from({ length: 16 * chunks + 1 }, (_, i) => first + i);
  const kv = [{ key: new Uint8Array(64 * 65), value: new Uint8Array(64 * 65) }];
  const hot = tokens(3, 0);
  prefixes.put(hot, kv);
  await cache.flush();
  for (let n = 0; n < 20; n++) {
    await clock.advance(11_000);
    prefixes.put(hot, kv);
    prefixes.put(tokens(2, 1000 * (n + 1)), kv);
    await cache.flush();
  }
  await clock.advance(11_000);
  assertEquals(cache.reportStatus().prefetch.l2Objects, 0);
  cache.clearL1();
  using hit = await prefixes.match(hot);
  return hit.tokens / layout.chunkTokens;
}

Deno.test("an adapter keeps what is put again while it is in device memory", async () => {
  const clock = new ManualClock();
  await using cache = await TieredCache.open({
    device: new HostDevice(),
    clock,
    l1: { capacityBytes: 2 ** 20 },
    l2: [{ type: "dram", max_capacity_gb: 12 * (layout.byteLength + 64) / GIB }],
  });
  assertEquals(await putWhileOthersCome(cache, clock), 3);
});

Deno.test("adapters are told of what they have at the front of what is put, and of nothing new", async () => {
  const clock = new ManualClock();
  const told: string[] = [];
  const adapter: L2Adapter = {
    ...mapAdapter(),
    touch: (keys) => void told.push(...keys.map(({ id }) => id)),
  };
  await using cache = await TieredCache.open({
    device: new HostDevice(),
    clock,
    l1: { capacityBytes: 2 ** 20 },
    adapters: [moduleOf(() => adapter)],
    l2: [{ type: "hand_made" }],
  });
  const keys = testKeys(4);
  put(cache, keys.slice(0, 2), LAYOUT);
  await cache.flush();
  put(cache, keys.slice(2), LAYOUT);
  cache.touch(keys);
  await clock.advance(2_000);
  assertEquals(told, keys.slice(0, 2).map(({ id }) => id));
  await cache.flush();
});
