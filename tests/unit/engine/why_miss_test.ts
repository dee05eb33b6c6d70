import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import type { L2Adapter } from "../../../src/adapter/contract.ts";
import { kvLayout, PrefixCache, type PrefixHit } from "../../../src/engine/mod.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { TieredCache } from "../../../src/tiered_cache.ts";
import { moduleOf } from "../../support/adapters.ts";
import { settle } from "../../support/prefetch.ts";
import { gate, RecordingAdapter } from "../../support/recording_adapter.ts";

const CHUNK = 4;
/** One chunk takes 256 bytes in L1. */
const LAYOUT = kvLayout({ layers: 1, kvHeads: 1, headDim: 4, dtype: "f32", chunkTokens: CHUNK });
const MODEL = { name: "test/model" };

interface World extends AsyncDisposable {
  readonly adapter: RecordingAdapter;
  readonly clock: ManualClock;
  readonly cache: TieredCache;
  readonly prefixes: PrefixCache;
  /** Puts a prompt and stores it in the adapter. */
  put(tokens: readonly number[], options?: { salt?: string; extraKey?: string }): Promise<void>;
}

async function open(
  options: { chunks?: number; recentPrompts?: number; lookupMs?: number } = {},
): Promise<World> {
  const { chunks = 64, recentPrompts, lookupMs = 5_000 } = options;
  const clock = new ManualClock();
  const adapter = new RecordingAdapter();
  const cache = await TieredCache.open({
    device: new HostDevice(),
    clock,
    l1: { capacityBytes: chunks * 256 },
    timeouts: { lookupMs },
    adapters: [moduleOf((): L2Adapter => adapter)],
    l2: [{ type: "hand_made" }],
  });
  const prefixes = new PrefixCache(cache, {
    model: MODEL,
    layout: LAYOUT,
    ...(recentPrompts === undefined ? {} : { recentPrompts }),
  });
  return {
    adapter,
    clock,
    cache,
    prefixes,
    async put(tokens, options = {}) {
      const bytes = tokens.length * 16;
      const kv = [{ key: new Uint8Array(bytes), value: new Uint8Array(bytes) }];
      prefixes.put(tokens, kv, { computedTokens: tokens.length, ...options });
      await cache.flush();
    },
    [Symbol.asyncDispose]: () => cache.close().then(() => {}),
  };
}

function prompt(length: number, first = 1): number[] {
  return Array.from({ length }, (_, i) => first + i);
}

/** Reason and place of the miss. */
function missOf({ report: { miss } }: PrefixHit): [string, number] | undefined {
  return miss === undefined ? undefined : [miss.reason, miss.token];
}

Deno.test("PrefixHit.report tells tokens of L1 from those of the adapter", async () => {
  await using t = await open();
  await t.put(prompt(16));
  using fromL1 = await t.prefixes.match(prompt(16));
  assertEquals(fromL1.report, {
    promptTokens: 16,
    askedTokens: 15,
    tokens: 15,
    l1Tokens: 15,
    adapters: [],
    otherTokens: 0,
  });
  assertEquals(
    fromL1.explain(),
    "15 of 16 tokens were served (15 from L1), all that are in complete chunks.",
  );
  fromL1[Symbol.dispose]();

  t.cache.clearL1();
  using first = await t.prefixes.match(prompt(9));
  assertEquals(first.report.adapters, [{ id: 0, type: "hand_made", tokens: 8 }]);
  using both = await t.prefixes.match(prompt(18));
  assertEquals([both.report.l1Tokens, both.report.adapters], [
    8,
    [{ id: 0, type: "hand_made", tokens: 8 }],
  ]);
  assertEquals(both.report.askedTokens, 16);
  assertMatch(both.explain(), /^16 of 18 tokens were served \(8 from L1, 8 from hand_made\), all/);

  using none = await t.prefixes.match(prompt(3));
  assertEquals(none.explain(), "The prompt of 3 tokens has no complete chunk to look up.");
});

Deno.test("PrefixHit.report credits the adapter where another match loads the tokens", async () => {
  await using t = await open();
  await t.put(prompt(8));
  t.cache.clearL1();
  const hits = await Promise.all([t.prefixes.match(prompt(9)), t.prefixes.match(prompt(9))]);
  for (const hit of hits) {
    assertEquals(hit.report.adapters, [{ id: 0, type: "hand_made", tokens: 8 }]);
    assertEquals([hit.report.l1Tokens, hit.report.otherTokens], [0, 0]);
    hit[Symbol.dispose]();
  }
  assertEquals(t.adapter.loads.length, 1);
});

Deno.test("PrefixHit.report says absent, and the last token is no miss", async () => {
  await using t = await open();
  await t.put(prompt(8));
  using whole = await t.prefixes.match(prompt(8));
  assertEquals([whole.tokens, missOf(whole)], [7, undefined]);
  using hit = await t.prefixes.match(prompt(20));
  assertEquals(missOf(hit), ["absent", 8]);
  assertMatch(hit.explain(), /the chunk that begins at token 8 is nowhere in the cache/);
  assertEquals(t.cache.reportStatus().prefetch.misses.absent, 1);
});

Deno.test("PrefixHit.report says failed, timed-out, then paused", async () => {
  await using t = await open({ lookupMs: 100 });
  await t.put(prompt(8));
  t.cache.clearL1();
  for (const phase of ["beforeLookup", "beforeLoad"] as const) {
    t.adapter[phase] = () => Promise.reject(new Error("broken"));
    using hit = await t.prefixes.match(prompt(9));
    assertEquals(missOf(hit), ["failed", 0], phase);
    t.adapter[phase] = () => {};
  }
  const { promise, open: letGo } = gate();
  t.adapter.beforeLookup = () => promise;
  const pending = t.prefixes.match(prompt(9));
  for (let ms = 0; ms < 200; ms += 10) {
    await settle();
    await t.clock.advance(10);
  }
  using late = await pending;
  assertEquals(missOf(late), ["timed-out", 0]);
  using paused = await t.prefixes.match(prompt(9));
  assertEquals(missOf(paused), ["paused", 0]);
  assertMatch(paused.explain(), /an adapter is paused/);
  const { misses } = t.cache.reportStatus().prefetch;
  assertEquals([misses.failed, misses["timed-out"], misses.paused], [2, 1, 1]);
  letGo();
  await settle();
});

Deno.test("PrefixHit.report says damaged, or deadline", async () => {
  await using t = await open();
  await t.put(prompt(12));
  t.cache.clearL1();
  const second = [...t.adapter.held.values()][1];
  second?.fill(9, 0, 4);
  using damaged = await t.prefixes.match(prompt(13));
  assertEquals(missOf(damaged), ["damaged", 4]);

  const { promise, open: letGo } = gate();
  t.adapter.beforeLookup = () => promise;
  const pending = t.prefixes.match(prompt(13, 50), { deadlineMs: 20 });
  await settle();
  await t.clock.advance(20);
  using late = await pending;
  assertEquals(missOf(late), ["deadline", 0]);
  letGo();
  await settle();
});

Deno.test("PrefixHit.report says blocked while a prompt is forgotten", async () => {
  await using t = await open();
  await t.put(prompt(8));
  const { promise, open: letGo } = gate();
  t.adapter.beforeDelete = () => promise;
  const forgotten = t.cache.forget({ keys: t.prefixes.keys(prompt(8)).slice(1) });
  await settle();
  using hit = await t.prefixes.match(prompt(9));
  assertEquals(missOf(hit), ["blocked", 4]);
  assertMatch(hit.explain(), /is being forgotten/);
  letGo();
  await forgotten;
});

Deno.test("PrefixHit.report says no-room", async () => {
  await using t = await open({ chunks: 4 });
  await t.put(prompt(16));
  await t.put(prompt(16, 100));
  using hit = await t.prefixes.match(prompt(9));
  using other = await t.prefixes.match(prompt(17, 100));
  assertEquals([hit.tokens, missOf(other)], [8, ["no-room", 8]]);
  assertEquals(t.cache.reportStatus().prefetch.misses["no-room"], 1);
});

Deno.test("PrefixHit.explain() names the first token that differs from a recent prompt", async () => {
  await using t = await open({ chunks: 2_048 });
  const tokens = prompt(4_211);
  await t.put(tokens.slice(0, 64));
  await t.put(tokens);
  await t.clock.advance(12_000);
  const changed = tokens.with(37, 0);
  using hit = await t.prefixes.match(changed);
  assertEquals(missOf(hit), ["absent", 36]);
  assertEquals(hit.report.difference, { token: 37, promptTokens: 4_211, agoMs: 12_000 });
  assertEquals(
    hit.explain(),
    "36 of 4,211 tokens were served (36 from L1); the chunk that begins at token 36 is nowhere " +
      "in the cache; it differs from the prompt of 12 s ago at token 37 of 4,211.",
  );
  using longer = await t.prefixes.match([...tokens, ...prompt(8)]);
  assertMatch(longer.explain(), /; the prompt of 12 s ago ended there, at token 4,211\.$/);
  assert(longer.tokens === 4_208);
});

Deno.test("PrefixHit.explain() says that a recent prompt has the tokens that are missing", async () => {
  await using t = await open();
  await t.put(prompt(16));
  t.cache.clearL1();
  t.adapter.held.clear();
  using hit = await t.prefixes.match(prompt(17));
  assertMatch(hit.explain(), /nowhere in the cache; the prompt of 0\.0 s ago has the same tokens/);
});

Deno.test("PrefixHit.report compares with the nearest prompt, extra keys included", async () => {
  await using t = await open();
  await t.put(prompt(8), { extraKey: "adapter" });
  await t.put([...prompt(6), 0, 0]);
  await t.put(prompt(8, 100));
  using plain = await t.prefixes.match(prompt(9));
  assertEquals(plain.report.difference?.token, 6);
  using keyed = await t.prefixes.match(prompt(13), { extraKey: "adapter" });
  assertEquals(keyed.report.difference?.token, 8);
  using other = await t.prefixes.match(prompt(9), { extraKey: "another" });
  assertEquals(other.report.difference?.token, 0);
  const extraKey = [{ atToken: 3, key: "image" }];
  using placed = await t.prefixes.match(prompt(9), { extraKey });
  assertEquals(placed.report.difference?.token, 3);
});

Deno.test("PrefixHit.report never compares prompts of different salts", async () => {
  await using t = await open();
  await t.put(prompt(16), { salt: "tenant a" });
  await t.put(prompt(16));
  using stranger = await t.prefixes.match(prompt(16), { salt: "tenant b" });
  assertEquals([missOf(stranger), stranger.report.difference], [["absent", 0], undefined]);
  assertEquals(stranger.explain().includes("ago"), false);
  using tenant = await t.prefixes.match([...prompt(15), 0, 0], { salt: "tenant a" });
  assertEquals(tenant.report.difference?.token, 15);
});

Deno.test("PrefixCache keeps as few recent prompts as told, and 1 MiB of them", async () => {
  await using two = await open({ recentPrompts: 2 });
  for (const first of [1, 100, 200]) await two.put(prompt(8, first));
  const token = async (t: World, first: number): Promise<number | undefined> => {
    using hit = await t.prefixes.match([...prompt(5, first), 0, 0, 0, 0]);
    return hit.report.difference?.token;
  };
  assertEquals([await token(two, 1), await token(two, 100), await token(two, 200)], [0, 5, 5]);

  await using none = await open({ recentPrompts: 0 });
  await none.put(prompt(8));
  assertEquals(await token(none, 1), undefined);

  await using full = await open();
  await full.put(prompt(8));
  await full.put(prompt(150_000, 100));
  assertEquals(await token(full, 1), 5);
  await full.put(prompt(150_000, 200_000));
  assertEquals([await token(full, 200_000), await token(full, 100)], [5, 0]);

  for (const recentPrompts of [-1, 1.5, NaN, 1e6]) {
    assertThrows(
      () => new PrefixCache(full.cache, { model: MODEL, layout: LAYOUT, recentPrompts }),
      RangeError,
    );
  }
});

Deno.test("CacheHit.report and explain() count chunks and objects", async () => {
  await using t = await open();
  await t.put(prompt(8));
  const keys = t.prefixes.keys(prompt(16));
  using hit = await t.cache.match(keys, LAYOUT);
  assertEquals(hit.report, {
    askedChunks: 4,
    length: 2,
    l1Objects: 2,
    adapters: [],
    otherObjects: 0,
    miss: { chunk: 2, reason: "absent" },
  });
  assertEquals(
    hit.explain(),
    "2 of 4 chunks were found (2 from L1); chunk 2 is nowhere in the cache.",
  );
});
