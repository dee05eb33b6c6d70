import { assert, assertEquals } from "@std/assert";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { type Clock, wait } from "../../../src/base/clock.ts";
import { decisionInWords } from "../../../src/prefetch/load_decision.ts";
import type { PrefetchOptions } from "../../../src/prefetch/prefetch_controller.ts";
import type { PrefetchResult } from "../../../src/prefetch/prefetch_request.ts";
import { writeObjects } from "../../support/l1.ts";
import { testKeys } from "../../support/objects.ts";
import { LAYOUT, type SetUp, setUp } from "../../support/prefetch.ts";
import { RecordingAdapter } from "../../support/recording_adapter.ts";

const CHUNKS = 8;
/** Time to compute a chunk in milliseconds. */
const CHUNK_MS = 100;
/** Chunks of different prompts. */
const PROMPTS = Array.from({ length: 16 }, (_, n) => testKeys(CHUNKS, 100 * n));

/** An adapter whose calls take time. */
class SlowAdapter extends RecordingAdapter {
  lookupMs = 0;
  /** Time for each object of a load. */
  objectMs = 0;
  /** Ends the calls that hang. */
  readonly over = new AbortController();

  constructor() {
    super();
    for (const keys of PROMPTS) this.seed(keys, LAYOUT);
  }

  measureBy(clock: Clock): void {
    const pause = (ms: number) => wait(clock, ms === Infinity ? 1e9 : ms, this.over.signal);
    this.beforeLookup = () => pause(this.lookupMs);
    this.beforeLoad = (batch) => pause(this.objectMs * batch.length);
  }
}

/** A controller with adapters, and an engine that computes a chunk in {@linkcode CHUNK_MS}. */
class World implements AsyncDisposable {
  readonly adapters: readonly SlowAdapter[];
  readonly t: SetUp;

  constructor(adapters = 1) {
    this.adapters = Array.from({ length: adapters }, () => new SlowAdapter());
    this.t = setUp(new HostDevice(), this.adapters, { scratchBlocks: 8, capacityBytes: 2 ** 18 });
    for (const adapter of this.adapters) adapter.measureBy(this.t.clock);
  }

  get adapter(): SlowAdapter {
    return this.adapters[0] as SlowAdapter;
  }

  /** Matches a prompt; returns the result and the time it took. */
  async match(
    prompt: number,
    options: PrefetchOptions = { computeMs: (chunk) => (CHUNKS - chunk) * CHUNK_MS },
  ): Promise<PrefetchResult & { readonly ms: number }> {
    const { clock, prefetch, l1 } = this.t;
    const startedAt = clock.now();
    let ended: number | undefined;
    const matching = prefetch.prefetch([{ keys: PROMPTS[prompt] ?? [], layout: LAYOUT }], options)
      .finally(() => ended = clock.now());
    while (ended === undefined) await clock.advance(clock.now() - startedAt < 100 ? 1 : 20);
    const result = await matching;
    l1.finishRead(result.leases.flat());
    return { ...result, ms: ended - startedAt };
  }

  /** Matches prompts without an estimate, which measures the adapters. */
  async measure(...prompts: readonly number[]): Promise<void> {
    for (const prompt of prompts) await this.match(prompt, {});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { over } of this.adapters) over.abort();
    await this.t.pass(0);
    this.t[Symbol.dispose]();
  }
}

Deno.test("a match loads what is faster to load than to compute", async () => {
  await using w = new World();
  w.adapter.objectMs = 5;
  await w.measure(0);
  const { length, decision, miss } = await w.match(1);
  assertEquals([length, decision, miss], [CHUNKS, undefined, undefined]);
});

Deno.test("a match does not ask an adapter that is slower than computing", async () => {
  await using w = new World();
  w.adapter.objectMs = 500;
  await w.measure(0);
  const { lookups, loads } = w.adapter;
  const before = [lookups.length, loads.length];
  const { length, miss, decision, ms } = await w.match(1);
  assertEquals([length, miss, ms <= 1], [0, { chunk: 0, reason: "computed" }, true]);
  assertEquals([decision?.reason, decision?.chunks, decision?.computeMs], ["slower", 8, 800]);
  assert((decision?.loadMs ?? 0) > 800, `${decision?.loadMs}`);
  await w.t.clock.advance(1000);
  assertEquals([lookups.length, loads.length], before.map((calls) => calls + 1), "an exploration");
  const { decisions, misses } = w.t.prefetch.reportStatus();
  assertEquals([decisions.computedInstead, decisions.explorations, misses.computed], [1, 1, 1]);
});

Deno.test("a match without an estimate loads whatever it takes", async () => {
  await using w = new World();
  w.adapter.objectMs = 500;
  await w.measure(0);
  for (const [i, computeMs] of [undefined, () => NaN, () => -1, () => Infinity].entries()) {
    const { length, decision } = await w.match(1 + i, computeMs === undefined ? {} : { computeMs });
    assertEquals([length, decision], [CHUNKS, undefined]);
  }
});

Deno.test("what is resident is served whatever loads cost", async () => {
  await using w = new World();
  w.adapter.objectMs = 500;
  await w.measure(0);
  writeObjects(w.t.l1, (PROMPTS[1] ?? []).slice(0, 3), LAYOUT);
  const { length, l1Objects, miss } = await w.match(1);
  assertEquals([length, l1Objects, miss], [3, 3, { chunk: 3, reason: "computed" }]);
});

Deno.test("a lookup of an unknown adapter may take a hundredth of the prompt's time", async () => {
  await using w = new World();
  w.adapter.lookupMs = Infinity;
  const { length, miss, decision, ms } = await w.match(0);
  assertEquals([length, miss?.reason, decision?.reason, ms], [0, "computed", "unanswered", 8]);
  assertEquals((await w.match(1)).ms, 8);
});

Deno.test("a lookup that is known to be slow is waited for if it is worth it", async () => {
  await using w = new World();
  w.adapter.lookupMs = 20;
  assertEquals((await w.match(0)).decision?.reason, "unanswered");
  await w.t.clock.advance(100); // An exploration measures it.
  const { length, ms } = await w.match(1);
  assertEquals([length, ms], [CHUNKS, 20]);
  w.adapter.lookupMs = Infinity;
  assertEquals((await w.match(2)).ms, 60, "three times as long as usual");
});

Deno.test("a first load that hangs costs a tenth of what it saves, and the next ones nothing", async () => {
  await using w = new World();
  w.adapter.objectMs = Infinity;
  const first = await w.match(0);
  assertEquals([first.length, first.decision?.reason, first.ms], [0, "late", 80]);
  const second = await w.match(1);
  assertEquals([second.length, second.decision?.reason, second.ms <= 1], [0, "slower", true]);
  assertEquals(second.decision?.loadMs, undefined);
  assertEquals(w.t.prefetch.reportStatus().decisions.wrongGuesses, 1);
});

Deno.test("a disk that slows down during a load costs no more than what the load saves", async () => {
  await using w = new World();
  w.adapter.objectMs = 5;
  await w.measure(0);
  w.adapter.beforeLoad = async (batch) => {
    const isFirst = batch.some(({ key }) => PROMPTS[1]?.indexOf(key) === 0);
    await wait(w.t.clock, isFirst ? 5 : 5000, w.adapter.over.signal);
  };
  const { length, miss, decision, ms } = await w.match(1);
  assertEquals([miss?.reason, decision?.reason], ["computed", "late"]);
  assert(length > 0 && length < CHUNKS, "what was loaded by then is served");
  assert(ms < 2 * 5 * CHUNKS + 0.1 * CHUNKS * CHUNK_MS, `${ms}`);
});

Deno.test("explorations find out that a disk has become fast again", async () => {
  await using w = new World();
  w.adapter.objectMs = 500;
  await w.measure(0);
  w.adapter.objectMs = 5;
  let matches = 0;
  for (const prompt of Array(50).keys()) {
    matches++;
    if ((await w.match(prompt % 12 + 1)).length === CHUNKS) break;
    await w.t.clock.advance(1000);
  }
  const { explorations } = w.t.prefetch.reportStatus().decisions;
  assert(matches < 8 && explorations <= matches, `${matches} matches, ${explorations}`);
});

Deno.test("explorations are rare, and no match waits for one", async () => {
  await using w = new World();
  w.adapter.objectMs = 500;
  await w.measure(0);
  for (let i = 0; i < 40; i++) {
    assert((await w.match(i % 12 + 1)).ms <= 1);
    await w.t.clock.advance(250);
  }
  assertEquals(w.t.prefetch.reportStatus().decisions.explorations, 1, "one takes 500 ms");
});

Deno.test("a match does not wait for another one to load more slowly than it computes", async () => {
  await using w = new World();
  w.adapter.objectMs = 500;
  const loading = w.t.prefetch.warm([{ keys: PROMPTS[0] ?? [], layout: LAYOUT }]);
  await w.t.clock.advance(1);
  const { length, decision, ms } = await w.match(0);
  assertEquals([length, decision?.reason, ms], [0, "late", 80]);
  await w.t.clock.advance(10_000);
  assertEquals((await loading).length, CHUNKS);
});

Deno.test("a fast adapter serves a match beside one whose lookups hang", async () => {
  await using w = new World(2);
  (w.adapters[1] as SlowAdapter).lookupMs = Infinity;
  const { length, ms } = await w.match(0);
  assertEquals([length, ms <= 1], [CHUNKS, true]);
  const { adapter } = w;
  for (const { id } of (PROMPTS[1] ?? []).slice(4)) adapter.held.delete(id);
  const half = await w.match(1);
  assertEquals([half.length, half.miss?.reason, half.ms], [4, "computed", 8]);
});

Deno.test("decisionInWords() says what was estimated", () => {
  const decision = { chunks: 12, loadMs: 340.4, computeMs: 120 };
  const words = (["slower", "late", "unanswered"] as const)
    .map((reason) => decisionInWords({ ...decision, reason }));
  assertEquals(words, [
    "computed 12 chunks: loading them was estimated at 340 ms, computing at 120 ms",
    "computed 12 chunks: loading them had not ended after 340 ms; computing was estimated at 120 ms",
    "computed 12 chunks: no adapter had found them after 340 ms; computing was estimated at 120 ms",
  ]);
  assertEquals(
    decisionInWords({ reason: "slower", chunks: 1, loadMs: undefined, computeMs: 1234 }),
    "computed 1 chunk: loads of the adapter are overdue; computing was estimated at 1,230 ms",
  );
});
