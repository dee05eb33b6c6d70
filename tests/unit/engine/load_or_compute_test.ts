import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import type { L2Adapter } from "../../../src/adapter/contract.ts";
import { wait } from "../../../src/base/clock.ts";
import { kvLayout, PrefixCache, type PrefixCacheOptions } from "../../../src/engine/mod.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { TieredCache } from "../../../src/tiered_cache.ts";
import { moduleOf } from "../../support/adapters.ts";
import { RecordingAdapter } from "../../support/recording_adapter.ts";

const CHUNK = 4;
const LAYOUT = kvLayout({ layers: 1, kvHeads: 1, headDim: 4, dtype: "f32", chunkTokens: CHUNK });
/** Tokens of a prompt: all of them but the last one are in complete chunks. */
const LENGTH = 12 * CHUNK + 1;
/** Time of a load in milliseconds. */
const LOAD_MS = 340;

class World implements AsyncDisposable {
  readonly adapter = new RecordingAdapter();
  readonly clock = new ManualClock();
  readonly cache: TieredCache;
  readonly prefixes: PrefixCache;

  private constructor(cache: TieredCache, options: Partial<PrefixCacheOptions>) {
    this.cache = cache;
    this.prefixes = new PrefixCache(cache, { model: { name: "m" }, layout: LAYOUT, ...options });
  }

  /** Opens a cache with some prompts in its adapter, whose speed is known. */
  static async open(options: Partial<PrefixCacheOptions> = {}): Promise<World> {
    const clock = new ManualClock();
    const adapter = new RecordingAdapter();
    const cache = await TieredCache.open({
      device: new HostDevice(),
      clock,
      adapters: [moduleOf((): L2Adapter => adapter)],
      l2: [{ type: "hand_made" }],
    });
    const world = Object.assign(new World(cache, options), { adapter, clock });
    for (let n = 0; n < 4; n++) {
      const bytes = LENGTH * 16;
      const kv = [{ key: new Uint8Array(bytes), value: new Uint8Array(bytes) }];
      world.prefixes.put(promptOf(n), kv);
    }
    await cache.flush();
    cache.clearL1();
    adapter.beforeLoad = () => wait(clock, LOAD_MS);
    await world.during(world.prefixes.warm(promptOf(0)));
    return world;
  }

  /** Lets time pass until a call has ended. */
  async during<T>(call: Promise<T>): Promise<T> {
    let isPending = true;
    call.finally(() => isPending = false);
    while (isPending) await this.clock.advance(10);
    return await call;
  }

  /** Tokens of a prompt that a match serves, the reason of a miss, and the explanation. */
  async match(n: number): Promise<[number, string | undefined, string]> {
    using hit = await this.during(this.prefixes.match(promptOf(n)));
    return [hit.tokens, hit.report.miss?.reason, hit.explain()];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.during(this.cache.close());
  }
}

function promptOf(n: number): number[] {
  return Array.from({ length: LENGTH }, (_, i) => 1000 * n + i);
}

Deno.test("PrefixCache.match() loads whatever it takes while nothing is known of the engine", async () => {
  await using w = await World.open();
  const [tokens, reason] = await w.match(1);
  assertEquals([tokens, reason], [LENGTH - 1, undefined]);
});

Deno.test("PrefixCache.match() leaves to the engine what it was told to compute faster", async () => {
  await using w = await World.open({ prefillMsPerToken: 2.5 });
  const [tokens, reason, explanation] = await w.match(1);
  assertEquals([tokens, reason], [0, "computed"]);
  assertMatch(
    explanation,
    /^0 of 49 tokens were served \(nothing\); computed 12 chunks: loading them was estimated at 34\d ms, computing at 120 ms\.$/,
  );
  const { decisions, misses } = w.cache.reportStatus().prefetch;
  assertEquals([decisions.computedInstead, misses.computed], [1, 1]);
});

Deno.test("PrefixCache.match() goes by what the engine reports", async () => {
  await using w = await World.open({ prefillMsPerToken: 2.5 });
  w.prefixes.reportPrefill({ tokens: 100, ms: 2000 });
  assertEquals((await w.match(1))[0], LENGTH - 1);
  for (let i = 0; i < 20; i++) w.prefixes.reportPrefill({ tokens: 100, ms: 10 });
  assertEquals((await w.match(2)).slice(0, 2), [0, "computed"]);
});

Deno.test("PrefixCache with loadOnlyIfFaster false loads whatever it takes", async () => {
  await using w = await World.open({ prefillMsPerToken: 2.5, loadOnlyIfFaster: false });
  w.prefixes.reportPrefill({ tokens: 100, ms: 10 });
  assertEquals((await w.match(1)).slice(0, 2), [LENGTH - 1, undefined]);
});

Deno.test("PrefixCache describes invalid speeds of an engine", async () => {
  await using w = await World.open();
  const { cache, prefixes } = w;
  const make = (options: object) => () =>
    new PrefixCache(cache, { model: { name: "m" }, layout: LAYOUT, ...options });
  assertThrows(make({ prefillMsPerToken: -1 }), RangeError, "prefillMsPerToken");
  assertThrows(make({ prefillMsPerToken: NaN }), RangeError, "prefillMsPerToken");
  assertThrows(make({ loadOnlyIfFaster: "no" }), TypeError, "true or false");
  const report = (value: object) => () => prefixes.reportPrefill(value as never);
  assertThrows(report({}), TypeError, "{ tokens, ms, position? }");
  assertThrows(report({ tokens: 10 }), TypeError, "{ tokens, ms, position? }");
  assertThrows(report({ tokens: 0, ms: 1 }), RangeError, "tokens");
  assertThrows(report({ tokens: 10, ms: Infinity }), RangeError, "ms");
  assertThrows(report({ tokens: 10, ms: 1, position: -1 }), RangeError, "position");
  assertThrows(report({ tokens: 10, ms: 1, seconds: 1 }), TypeError, "seconds");
  await assertRejects(
    () => cache.match([], LAYOUT, { computeMs: 5 as never }),
    TypeError,
    "a function that returns milliseconds",
  );
});
