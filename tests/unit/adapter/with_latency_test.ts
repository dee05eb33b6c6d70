import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import type { LoadOptions, ObjectKey } from "../../../src/adapter/contract.ts";
import { loadTarget, objectOf, samples } from "../../../src/testing/conformance/samples.ts";
import { type Latency, ManualClock, withLatency } from "../../../src/testing/mod.ts";
import { RecordingAdapter } from "../../support/recording_adapter.ts";

/** When calls end, in milliseconds after they were made together. */
async function endsOf(
  clock: ManualClock,
  calls: readonly Promise<unknown>[],
): Promise<(number | undefined)[]> {
  const start = clock.now();
  const ends = calls.map((): number | undefined => undefined);
  for (const [i, call] of calls.entries()) {
    call.then(() => ends[i] = clock.now() - start, () => ends[i] = -1);
  }
  await clock.advance(0);
  await clock.advance(10_000);
  return ends;
}

function setUp(latency: Latency) {
  const clock = new ManualClock();
  const inner = new RecordingAdapter();
  const adapter = withLatency(inner, { ...latency, clock });
  const caller = new AbortController();
  const options = { signal: caller.signal, prefix: false };
  const given = samples(4, 1000);
  const keys: ObjectKey[] = given.map(({ key }) => key);
  const store = () => adapter.store(given.map(objectOf), options);
  const load = () => adapter.load(keys.map((key) => loadTarget(key, 1000)), options);
  return { clock, inner, adapter, caller, options, keys, store, load };
}

Deno.test("withLatency: delays of concurrent calls overlap", async () => {
  const { clock, adapter, options, keys, store } = setUp({ callDelayMs: 100, perKeyMs: 5 });
  assertEquals(await endsOf(clock, [store(), store()]), [120, 120]);
  const lookups = [keys, keys.slice(1), []].map((some) => adapter.lookupAndLock(some, options));
  assertEquals(await endsOf(clock, lookups), [120, 115, 100]);
  adapter.unlock?.([...keys, ...keys.slice(1)]);
  const listed = Array.fromAsync(adapter.list?.(options) ?? []);
  assertEquals(await endsOf(clock, [listed]), [100]);
  assertEquals((await listed).length, 4);
  assertEquals(await endsOf(clock, [Promise.resolve(adapter.delete?.(keys, options))]), [120]);
  assertEquals(clock.pendingTimers, 0);
});

Deno.test("withLatency: bytes share the bandwidth, misses transfer none", async () => {
  const { clock, inner, store, load } = setUp({ bandwidth: 40_000, callDelayMs: 10 });
  assertEquals(await endsOf(clock, [store(), store()]), [110, 210]);
  assertEquals(await endsOf(clock, [load(), store(), load()]), [110, 210, 310]);
  inner.held.clear();
  assertEquals(await endsOf(clock, [load()]), [10]);
});

Deno.test("withLatency: idle time does not accumulate bandwidth", async () => {
  const { clock, store } = setUp({ bandwidth: 40_000 });
  await clock.advance(1e6);
  assertEquals(await endsOf(clock, [store()]), [100]);
});

Deno.test("withLatency does not report objects in transfer, but faults at once", async () => {
  const { clock, inner, adapter, options, keys, store } = setUp({ bandwidth: 40_000 });
  await endsOf(clock, [store()]);
  const told: number[] = [];
  const load = inner.load.bind(inner);
  inner.load = async (objects, given: LoadOptions) => {
    const loaded = await load(objects, given);
    given.onLoaded?.(0);
    given.onLoaded?.(1, "layout");
    return loaded;
  };
  const targets = keys.map((key) => loadTarget(key, 1000));
  const call = adapter.load(targets, { ...options, onLoaded: (index) => void told.push(index) });
  await clock.advance(1);
  assertEquals(told, [1]);
  assertEquals(await endsOf(clock, [call]), [99]);
  assertEquals(told, [1]);
});

Deno.test("withLatency: an aborted call stops waiting", async () => {
  const { clock, caller, store, load } = setUp({ bandwidth: 1, callDelayMs: 5000 });
  const calls = [store(), load()];
  caller.abort();
  assertEquals(await endsOf(clock, calls), [0, 0]);
  assertEquals(clock.pendingTimers, 0);
});

Deno.test("withLatency: closing ends waiting calls, and the adapter is not used afterwards", async () => {
  const { clock, inner, adapter, options, keys, store, load } = setUp({ callDelayMs: 100 });
  const calls = [store(), load(), adapter.lookupAndLock(keys, options)];
  const rejected = calls.map((call) =>
    assertRejects(() => call as Promise<unknown>, Error, "closed")
  );
  await adapter[Symbol.asyncDispose]();
  await Promise.all(rejected);
  assertEquals([clock.pendingTimers, inner.isDisposed], [0, true]);
  assertEquals([inner.stores, inner.loads, inner.lookups], [[], [], []]);
});

Deno.test("withLatency rejects invalid options", () => {
  const wrong: [Latency, string][] = [
    [{ bandwidth: 0 }, "bandwidth must be above 0: received 0"],
    [{ bandwidth: NaN }, "bandwidth must be above 0: received NaN"],
    [{ callDelayMs: -1 }, "callDelayMs must be at least 0: received -1"],
    [{ perKeyMs: NaN }, "perKeyMs must be at least 0: received NaN"],
  ];
  for (const [latency, message] of wrong) {
    assertThrows(() => withLatency(new RecordingAdapter(), latency), RangeError, message);
  }
});
