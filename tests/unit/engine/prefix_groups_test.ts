import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  type KvBlocks,
  type KvGroup,
  type KvTensors,
  PrefixCache,
  type PrefixCacheOptions,
  type PutOptions,
} from "../../../src/engine/mod.ts";
import { type KvLayout, kvLayout } from "../../../src/keys/kv_layout.ts";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import type { MemoryDevice } from "../../../src/memory/memory_device.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { TieredCache } from "../../../src/tiered_cache.ts";
import { assertSameBytes } from "../../support/bytes.ts";
import { assertIdle, optionsOf } from "../../support/caches.ts";
import { deviceTest } from "../../support/devices.ts";
import { EngineTensors } from "../../support/kv_tensors.ts";
import { gate, RecordingAdapter } from "../../support/recording_adapter.ts";

/** Full attention, and layers that see 10 tokens: three chunks of 4, at most. */
const FULL = kvLayout({ layers: 2, kvHeads: 2, headDim: 4, dtype: "f16", chunkTokens: 4 });
const WINDOWED = kvLayout({ layers: 3, kvHeads: 1, headDim: 4, dtype: "f16", chunkTokens: 4 });
const GROUPS: readonly KvGroup[] = [{ layout: FULL }, { layout: WINDOWED, windowTokens: 10 }];
const MODEL = { name: "test/hybrid" };

interface SetUp extends AsyncDisposable {
  readonly adapter: RecordingAdapter;
  readonly clock: ManualClock;
  readonly cache: TieredCache;
  readonly prefixes: PrefixCache;
}

async function setUp(
  device: MemoryDevice = new HostDevice(),
  options: Partial<PrefixCacheOptions> & { capacityBytes?: number } = {},
): Promise<SetUp> {
  const { capacityBytes = 2 ** 20, ...rest } = options;
  const adapter = new RecordingAdapter();
  const clock = new ManualClock();
  const cache = await TieredCache.open(
    optionsOf({ a: adapter }, { device, clock, l1: { capacityBytes } }),
  );
  const prefixes = new PrefixCache(cache, { model: MODEL, layout: GROUPS, ...rest });
  return {
    adapter,
    clock,
    cache,
    prefixes,
    async [Symbol.asyncDispose]() {
      await cache.close();
      assertIdle(cache);
      assertEquals([adapter.lockCount, clock.pendingTimers], [0, 0]);
    },
  };
}

/** The tensors of each group, as an engine has them. */
class GroupTensors implements Disposable {
  readonly groups: readonly EngineTensors[];
  readonly kv: readonly KvTensors[];

  constructor(device: MemoryDevice, layouts: readonly KvLayout[], tokens: number) {
    this.groups = layouts.map((layout) => new EngineTensors(device, layout, tokens));
    this.kv = this.groups.map(({ kv }) => kv);
  }

  /** Fills them with bytes that differ between groups too. */
  fill(seed: number): this {
    for (const [g, group] of this.groups.entries()) group.fill(seed + g * 50);
    return this;
  }

  [Symbol.dispose](): void {
    for (const group of this.groups) group[Symbol.dispose]();
  }
}

const LAYOUTS = [FULL, WINDOWED];

function prompt(length: number, first = 1): number[] {
  return Array.from({ length }, (_, i) => first + i * 7);
}

/** The token of a prompt that is run whatever is found. */
const NEXT = 999_999;

/** Of a prompt after its prefill. */
function prefilled({ length }: readonly number[]): PutOptions {
  return { computedTokens: length };
}

/** Puts a prompt after its prefill. */
function put({ cache, prefixes }: SetUp, tokens: readonly number[]): void {
  using tensors = new GroupTensors(cache.device, LAYOUTS, tokens.length).fill(1);
  prefixes.put(tokens, tensors.kv, prefilled(tokens));
}

/** Forgets what is in L1, so that matches load. */
async function restart({ cache, adapter }: SetUp): Promise<void> {
  await cache.flush();
  cache.clearL1();
  adapter.loads.length = 0;
}

/** Asserts that a match restores of each group what its window needs, and nothing else. */
async function assertRestores(
  { cache, prefixes }: SetUp,
  tokens: readonly number[],
  expectedTokens: number,
): Promise<void> {
  using tensors = new GroupTensors(cache.device, LAYOUTS, tokens.length).fill(200);
  using hit = await prefixes.match([...tokens, NEXT]);
  assertEquals(hit.tokens, expectedTokens);
  hit.scatterTo(tensors.kv);
  for (const [g, { layout, windowTokens = Infinity }] of GROUPS.entries()) {
    const group = tensors.groups[g] as EngineTensors;
    const chunks = Math.min(expectedTokens / 4, Math.ceil(windowTokens / 4));
    assertEquals(hit.ranges(g).length, chunks, `ranges of group ${g}`);
    const end = expectedTokens * layout.tokenBytes;
    const start = end - chunks * layout.tensorBytes;
    const [before, stored] = [group.expected(200 + g * 50), group.expected(1 + g * 50)];
    for (const [i, actual] of (await group.read()).entries()) {
      const expected = (before[i] as Uint8Array).slice();
      expected.set((stored[i] as Uint8Array).subarray(start, end), start);
      assertSameBytes(actual, expected, `group ${g}, tensor ${i}`);
    }
  }
}

/** How many objects of each group were loaded. */
function loadsByGroup({ adapter, prefixes }: SetUp, tokens: readonly number[]): number[] {
  const loaded = new Set(adapter.loads.flat());
  const counts = GROUPS.map(() => 0);
  for (const { id, objectGroup } of prefixes.keys(tokens)) {
    if (loaded.has(id)) counts[objectGroup] = (counts[objectGroup] ?? 0) + 1;
  }
  return counts;
}

deviceTest(
  "PrefixCache restores the KV of all groups, from L1 and from an adapter",
  async (device) => {
    await using t = await setUp(device);
    const tokens = prompt(30);
    using tensors = new GroupTensors(device, LAYOUTS, 30).fill(1);
    const result = t.prefixes.put(tokens, tensors.kv, prefilled(tokens));
    assertEquals(result, { storedTokens: 28, residentTokens: 0, skippedTokens: 0 });
    await assertRestores(t, tokens, 28);
    await restart(t);
    assertEquals(t.adapter.held.size, 14, "every chunk of every group");
    await assertRestores(t, tokens, 28);
    await assertRestores(t, [...tokens.slice(0, 12), 99, 98, 97, 96], 12);
  },
);

Deno.test("PrefixCache gathers the KV of a group from blocks and scatters it to others", async () => {
  await using t = await setUp();
  const tokens = prompt(16);
  const { device } = t.cache;
  using source = new EngineTensors(device, FULL, 40).fill(1);
  using target = new EngineTensors(device, FULL, 40).fill(2);
  using windowed = new EngineTensors(device, WINDOWED, 16).fill(3);
  const [from, to] = [[7, 0, 9, 4], [1, 2, 8, 0]];
  const blocksOf = ({ kv }: EngineTensors, blockTable: number[]): KvBlocks => ({
    layers: kv,
    blockTokens: 4,
    blockTable,
  });
  t.prefixes.put(tokens, [blocksOf(source, from), windowed.kv], prefilled(tokens));
  await restart(t);
  using hit = await t.prefixes.match([...tokens, NEXT]);
  assertEquals(hit.tokens, 16);
  hit.scatterTo([blocksOf(target, to), windowed.kv]);
  const stored = source.expected(1);
  for (const [i, actual] of (await target.read()).entries()) {
    const expected = target.expected(2)[i] as Uint8Array;
    for (const [chunk, block] of to.entries()) {
      const start = (from[chunk] as number) * FULL.tensorBytes;
      const bytes = (stored[i] as Uint8Array).subarray(start, start + FULL.tensorBytes);
      expected.set(bytes, block * FULL.tensorBytes);
    }
    assertSameBytes(actual, expected, `tensor ${i}`);
  }
  assertThrows(
    () => t.prefixes.put(tokens, [blocksOf(source, [1, 2]), windowed.kv], prefilled(tokens)),
    RangeError,
    "blockTable",
  );
  const freed = { layers: windowed.kv, blockTokens: 4, blockTable: [-1, 1, 2, 3] };
  hit.scatterTo([blocksOf(target, to), freed]);
});

Deno.test("PrefixCache loads only the chunks that a window needs", async () => {
  await using t = await setUp();
  const tokens = prompt(40);
  put(t, tokens);
  await restart(t);
  await assertRestores(t, tokens, 40);
  assertEquals(loadsByGroup(t, tokens), [10, 3]);
  await restart(t);
  await assertRestores(t, tokens.slice(0, 9), 8);
  assertEquals(loadsByGroup(t, tokens), [2, 2], "of a short prefix all");
});

/** The key of one chunk of one group. */
function keyOf({ prefixes }: SetUp, tokens: readonly number[], chunk: number, group: number) {
  return prefixes.keys(tokens)[chunk * GROUPS.length + group] as ObjectKey;
}

const gaps: Record<string, { group: number; chunk: number; tokens: number }> = {
  "a chunk of full attention": { group: 0, chunk: 4, tokens: 16 },
  "the first chunk of full attention": { group: 0, chunk: 0, tokens: 0 },
  "a chunk before the window": { group: 1, chunk: 4, tokens: 40 },
  "the first chunk in the window": { group: 1, chunk: 7, tokens: 28 },
  "the last chunk in the window": { group: 1, chunk: 9, tokens: 36 },
};
for (const [name, { group, chunk, tokens: expected }] of Object.entries(gaps)) {
  Deno.test(`PrefixCache finds ${expected} of 40 tokens without ${name}`, async () => {
    await using t = await setUp();
    const tokens = prompt(40);
    put(t, tokens);
    await restart(t);
    t.adapter.held.delete(keyOf(t, tokens, chunk, group).id);
    await assertRestores(t, tokens, expected);
  });
}

Deno.test("PrefixCache separates groups with equal layouts", async () => {
  const layout: readonly KvGroup[] = [{ layout: FULL }, { layout: FULL }];
  await using t = await setUp(new HostDevice(), { layout });
  const tokens = prompt(8);
  using tensors = new GroupTensors(t.cache.device, [FULL, FULL], 8).fill(1);
  t.prefixes.put(tokens, tensors.kv, prefilled(tokens));
  await restart(t);
  using restored = new GroupTensors(t.cache.device, [FULL, FULL], 8).fill(9);
  using hit = await t.prefixes.match([...tokens, NEXT]);
  hit.scatterTo(restored.kv);
  for (const [g, group] of restored.groups.entries()) {
    assertEquals(await group.read(), group.expected(1 + g * 50));
  }
});

Deno.test("PrefixCache with other groups finds nothing", async () => {
  await using t = await setUp();
  const tokens = prompt(16);
  put(t, tokens);
  const others: PrefixCacheOptions["layout"][] = [FULL, [{ layout: FULL }], [...GROUPS].reverse()];
  for (const layout of others) {
    using hit = await new PrefixCache(t.cache, { model: MODEL, layout }).match([...tokens, NEXT]);
    assertEquals(hit.tokens, 0);
  }
  // What a layer attends to changes K and V of those behind it.
  const wider = GROUPS.map(({ layout }) => ({ layout, windowTokens: 16 }));
  using hit = await new PrefixCache(t.cache, { model: MODEL, layout: wider }).match([
    ...tokens,
    NEXT,
  ]);
  assertEquals(hit.tokens, 0);
});

Deno.test("PrefixCache distinguishes groups of one layout by their windows", async () => {
  await using t = await setUp();
  const tokens = prompt(16);
  const groups = [{ layout: FULL }, { layout: FULL, windowTokens: 8 }];
  using tensors = new GroupTensors(t.cache.device, [FULL, FULL], 16).fill(1);
  const prefixes = new PrefixCache(t.cache, { model: MODEL, layout: groups });
  prefixes.put(tokens, tensors.kv, prefilled(tokens));
  using hit = await prefixes.match([...tokens, NEXT]);
  assertEquals(hit.tokens, 16);
  const swapped = new PrefixCache(t.cache, { model: MODEL, layout: groups.toReversed() });
  using other = await swapped.match([...tokens, NEXT]);
  assertEquals(other.tokens, 0);
});

Deno.test("PrefixCache.put() stores a chunk for all groups or none", async () => {
  // Of full attention a chunk takes 256 bytes, of the others 256 too; there is room for 5 objects.
  await using t = await setUp(new HostDevice(), { capacityBytes: 5 * 256 });
  const tokens = prompt(16);
  using tensors = new GroupTensors(t.cache.device, LAYOUTS, 16).fill(1);
  const result = t.prefixes.put(tokens, tensors.kv, prefilled(tokens));
  assertEquals(result, { storedTokens: 8, residentTokens: 0, skippedTokens: 8 });
  assertEquals(t.cache.reportStatus().skippedWrites["out-of-memory"], 4);
  assertEquals(t.cache.reportStatus().l1.totalObjectCount, 4);
  await assertRestores(t, tokens, 8);
});

Deno.test("PrefixCache.put() completes a chunk that some groups lack", async () => {
  await using t = await setUp();
  const tokens = prompt(16);
  put(t, tokens);
  await t.cache.forget({ keys: [keyOf(t, tokens, 1, 1), keyOf(t, tokens, 3, 0)] });
  using tensors = new GroupTensors(t.cache.device, LAYOUTS, 16).fill(1);
  const result = t.prefixes.put(tokens, tensors.kv, prefilled(tokens));
  assertEquals(result, { storedTokens: 8, residentTokens: 8, skippedTokens: 0 });
  await assertRestores(t, tokens, 16);
});

Deno.test("PrefixHit.l1Tokens counts tokens from L1, also with windows", async () => {
  await using t = await setUp();
  const tokens = prompt(40);
  const l1Tokens = async (): Promise<number> => {
    using hit = await t.prefixes.match([...tokens, NEXT]);
    assertEquals(hit.tokens, 40);
    return hit.l1Tokens;
  };
  put(t, tokens);
  assertEquals(await l1Tokens(), 40);
  await restart(t);
  assertEquals([await l1Tokens(), await l1Tokens()], [0, 40]);
});

Deno.test("PrefixCache.keys() names the chunks of all groups, in order", async () => {
  await using t = await setUp();
  const keys = t.prefixes.keys(prompt(10), { salt: "alice" });
  assertEquals(keys.map(({ objectGroup }) => objectGroup), [0, 1, 0, 1]);
  assertEquals(new Set(keys.map(({ chunkHashHex }) => chunkHashHex)).size, 2);
  assertEquals(keys.map(({ cacheSalt, model }) => [cacheSalt, model]), [
    ...Array(4).fill(["alice", "test/hybrid"]),
  ]);
  assertEquals(t.prefixes.keys(prompt(3)), []);
  assertThrows(() => t.prefixes.keys(prompt(8), { salt: "a\nb" }), TypeError);
  // They are those under which the cache stores and forgets.
  put(t, prompt(10));
  await t.cache.flush();
  assertEquals(t.adapter.count(t.prefixes.keys(prompt(10))), 4);
  await t.cache.forget({ keys: t.prefixes.keys(prompt(10)) });
  assertEquals(t.adapter.held.size, 0);
});

Deno.test("PrefixCache.warm() loads all groups into L1, for windows only what they need", async () => {
  await using t = await setUp();
  const tokens = prompt(40);
  put(t, tokens);
  await restart(t);
  assertEquals(await t.prefixes.warm(tokens), 40);
  assertEquals(loadsByGroup(t, tokens), [10, 3]);
  assertIdle(t.cache);
  t.adapter.beforeLookup = () => Promise.reject(new Error("not asked"));
  assertEquals(t.cache.reportStatus().l1.totalObjectCount, 13);
  assertEquals(await t.prefixes.warm(prompt(3)), 0);
});

const deadlines: Record<string, [PrefixCacheOptions["deadline"], number]> = {
  "2 s and 0.1 ms a token": [undefined, 2_004],
  "a base of its own": [{ baseMs: 10 }, 14],
  "a time a token of its own": [{ perTokenMs: 1 }, 2_040],
  "both": [{ baseMs: 0, perTokenMs: 0.5 }, 20],
};
for (const [name, [deadline, expectedMs]] of Object.entries(deadlines)) {
  Deno.test(`PrefixCache with ${name} answers a match of 40 tokens after ${expectedMs} ms`, async () => {
    const options = deadline === undefined ? {} : { deadline };
    await using t = await setUp(new HostDevice(), options);
    const tokens = prompt(40);
    put(t, tokens);
    await restart(t);
    const [reached, released] = [gate(), gate()];
    t.adapter.beforeLoad = () => {
      reached.open();
      return released.promise;
    };
    let answered: number | undefined;
    const matched = t.prefixes.match(tokens).then((hit) => {
      answered = hit.tokens;
      hit[Symbol.dispose]();
    });
    await reached.promise;
    await t.clock.advance(expectedMs - 1);
    assertEquals(answered, undefined);
    await t.clock.advance(1);
    assertEquals(answered, 0);
    await matched;
    assertEquals(t.cache.reportStatus().prefetch.deadlines, 1);
    released.open();
  });
}

Deno.test("PrefixCache rejects invalid groups and tensors", async () => {
  await using t = await setUp();
  const make = (layout: PrefixCacheOptions["layout"]): PrefixCache =>
    new PrefixCache(t.cache, { model: MODEL, layout });
  assertThrows(() => make([]), RangeError, "must have at least one group");
  const other = kvLayout({ layers: 1, kvHeads: 1, headDim: 4, dtype: "f16", chunkTokens: 8 });
  assertThrows(() => make([{ layout: FULL }, { layout: other }]), RangeError, "same chunk size");
  for (const windowTokens of [0, -1, NaN]) {
    assertThrows(() => make([{ layout: FULL, windowTokens }]), RangeError, "windowTokens");
  }
  const tokens = prompt(8);
  using tensors = new GroupTensors(t.cache.device, LAYOUTS, 8);
  const [full = [], windowed = []] = tensors.kv;
  assertThrows(() => t.prefixes.put(tokens, full), RangeError, "for 2 groups: received 1");
  assertThrows(() => t.prefixes.put(tokens, [full]), RangeError, "for 2 groups: received 1");
  assertThrows(() => t.prefixes.put(tokens, [windowed, full]), RangeError, "layers");
  assertEquals(t.cache.reportStatus().l1.totalObjectCount, 0);
  put(t, tokens);
  using hit = await t.prefixes.match([...tokens, NEXT]);
  using short = new GroupTensors(t.cache.device, LAYOUTS, 7);
  assertThrows(() => hit.scatterTo([full, short.kv[1] ?? []]), RangeError, "8 tokens");
  await assertRejects(() => t.prefixes.warm(tokens.with(3, -1)), RangeError);
});

Deno.test("PrefixCache.put() omits blocks freed behind a window", async () => {
  await using t = await setUp();
  const tokens = prompt(32);
  const { device } = t.cache;
  using full = new EngineTensors(device, FULL, 32).fill(1);
  using windowed = new EngineTensors(device, WINDOWED, 32).fill(51);
  // A window of 10 tokens needs the last three chunks of four; the engine has them, and one more.
  const blockTable = [-1, -1, -1, -1, 3, 0, 2, 1];
  const kv = [full.kv, { layers: windowed.kv, blockTokens: 4, blockTable }];
  assertEquals(t.prefixes.put(tokens, kv, prefilled(tokens)).storedTokens, 32);
  await restart(t);
  assertEquals(t.adapter.held.size, 8 + 4);
  {
    using hit = await t.prefixes.match([...tokens, NEXT]);
    assertEquals(hit.tokens, 32);
    assertEquals(await hit.scatterTo(kv), true);
    assertEquals(await windowed.read(), windowed.expected(51), "each went back to its block");
  }
  using shorter = await t.prefixes.match([...tokens.slice(0, 24), NEXT]);
  assertEquals(shorter.tokens, 0, "of this window some is missing");
  assertThrows(() => t.prefixes.put(tokens, [kv[1] ?? [], full.kv]), RangeError);
  const holes = { layers: full.kv, blockTokens: 4, blockTable: [0, -1, 2, 3, 4, 5, 6, 7] };
  assertThrows(() => t.prefixes.put(tokens, [holes, windowed.kv]), RangeError, "received -1");
});
