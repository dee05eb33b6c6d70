import { assertEquals, assertRejects } from "@std/assert";
import { Bitmap } from "../../../src/adapter/contract.ts";
import type { AdapterGuard } from "../../../src/l2/adapter_guard.ts";
import type { ManualClock } from "../../../src/testing/manual_clock.ts";
import { gate, RecordingAdapter } from "../../support/recording_adapter.ts";
import { bound, empty, guardOf, hang, keys, layout, prefix, sealed, TIMEOUTS } from "./guarded.ts";

/** A guard around an adapter that holds the objects and counts its locks. */
function recordingGuard(): { guard: AdapterGuard; clock: ManualClock; adapter: RecordingAdapter } {
  const adapter = new RecordingAdapter();
  adapter.seed(keys, layout);
  return { ...guardOf(bound(adapter)), adapter };
}

/** Whether a promise is settled after all pending work has run. */
async function isSettled(promise: Promise<unknown>, clock: ManualClock): Promise<boolean> {
  let settled = false;
  promise.then(() => settled = true, () => settled = true);
  await clock.advance(0);
  return settled;
}

Deno.test("an adapter takes less and less, and never more again", async () => {
  const { guard } = guardOf();
  const states: string[] = [];
  guard.addListener({ stateChanged: () => states.push(guard.state) });
  const takes = () => [guard.state, guard.takesStores, guard.isStoring, guard.takesLookups];
  assertEquals(takes(), ["active", true, true, true]);
  guard.migrate();
  guard.migrate();
  assertEquals(takes(), ["migrating", false, false, true]);
  guard.drain();
  guard.migrate();
  assertEquals(takes(), ["draining", false, false, false]);
  await guard.close();
  guard.drain();
  assertEquals(takes(), ["closed", false, false, false]);
  assertEquals(states, ["migrating", "draining", "closed"]);
  assertEquals(guard.reportStatus().state, "closed");
});

Deno.test("an adapter that migrates skips stores, one that drains skips lookups and still loads", async () => {
  const { guard, adapter } = recordingGuard();
  guard.migrate();
  assertEquals((await guard.store(sealed)).status, "skipped");
  assertEquals(String((await guard.lookup(keys, prefix)).done), "111");
  guard.drain();
  assertEquals(String((await guard.lookup(keys, prefix)).done), "000");
  assertEquals(String((await guard.load(empty())).done), "111");
  assertEquals((await guard.delete(keys)).bytes, 3 * 320);
  assertEquals([adapter.stores.length, adapter.lookups.length], [0, 1]);
  assertEquals(guard.reportStatus().skippedCalls, 2);
});

Deno.test("locks are counted from the lookup until they are released, or the objects loaded", async () => {
  const { guard, adapter } = recordingGuard();
  await guard.lookup(keys, prefix);
  await guard.lookup(keys.slice(0, 2), prefix);
  assertEquals([guard.lockedKeys, adapter.lockCount], [5, 5]);
  guard.unlock(keys.slice(0, 1));
  assertEquals(guard.lockedKeys, 4);
  await guard.load(empty().slice(0, 2));
  assertEquals([guard.lockedKeys, adapter.lockCount], [2, 2]);
  await guard.load(empty().slice(1));
  assertEquals([guard.lockedKeys, adapter.lockCount, guard.reportStatus().lockedKeys], [0, 0, 0]);
});

Deno.test("locks from a late or abandoned lookup are not counted", async () => {
  for (const why of ["deadline", "caller"] as const) {
    const { guard, clock, adapter } = recordingGuard();
    const { promise, open } = gate();
    adapter.beforeLookup = () => promise;
    const caller = new AbortController();
    const looking = guard.lookup(keys, { prefix: true, signal: caller.signal });
    if (why === "deadline") await clock.advance(TIMEOUTS.lookupMs);
    else caller.abort();
    assertEquals(String((await looking).done), "000");
    open();
    await clock.advance(0);
    assertEquals([guard.lockedKeys, adapter.lockCount, adapter.lookups.length], [0, 0, 1]);
    assertEquals(await isSettled(guard.idle(), clock), true);
  }
});

Deno.test("idle waits for calls in flight and for locks, in whatever order they end", async () => {
  const { guard, clock, adapter } = recordingGuard();
  assertEquals(await isSettled(guard.idle(), clock), true, "at once");
  const lookup = gate();
  adapter.beforeLookup = () => lookup.promise;
  const looking = guard.lookup(keys, prefix);
  const idle = guard.idle();
  assertEquals([guard.callsInFlight, await isSettled(idle, clock)], [1, false]);
  lookup.open();
  await looking;
  assertEquals([guard.callsInFlight, guard.lockedKeys], [0, 3]);
  assertEquals(await isSettled(idle, clock), false, "locks are held");
  const load = gate();
  adapter.beforeLoad = () => load.promise;
  const loading = guard.load(empty().slice(0, 2));
  guard.unlock(keys.slice(2));
  assertEquals(await isSettled(idle, clock), false, "a load is in flight");
  load.open();
  await loading;
  assertEquals(await isSettled(idle, clock), true);
});

Deno.test("idle waits for an abandoned call, and not for one that missed its deadline", async () => {
  const { guard, clock } = guardOf({ lookupAndLock: hang, load: hang });
  const caller = new AbortController();
  const looking = guard.lookup(keys, { prefix: true, signal: caller.signal });
  caller.abort();
  await looking;
  const idle = guard.idle();
  assertEquals(await isSettled(idle, clock), false);
  await clock.advance(TIMEOUTS.lookupMs);
  assertEquals(await isSettled(idle, clock), true);
  assertEquals([guard.callsInFlight, guard.reportStatus().hungCalls], [0, 1]);
});

Deno.test("idle does not wait for the locks of a hanging load", async () => {
  const adapter = new RecordingAdapter();
  adapter.seed(keys, layout);
  const { guard, clock } = guardOf({ ...bound(adapter), load: hang });
  await guard.lookup(keys, prefix);
  const loading = guard.load(empty());
  const idle = guard.idle();
  await clock.advance(TIMEOUTS.loadMs);
  await loading;
  assertEquals([await isSettled(idle, clock), guard.lockedKeys], [true, 0]);
  assertEquals(adapter.lockCount, 3, "the adapter keeps them until it has ended");
});

Deno.test("waiting for idle can be aborted", async () => {
  const { guard, clock } = recordingGuard();
  await guard.lookup(keys, prefix);
  const caller = new AbortController();
  const idle = guard.idle(caller.signal);
  const other = guard.idle(new AbortController().signal);
  caller.abort(new Error("enough"));
  await assertRejects(() => idle, Error, "enough");
  await assertRejects(() => guard.idle(caller.signal), Error, "enough");
  assertEquals(await isSettled(other, clock), false);
  guard.unlock(keys);
  assertEquals(await isSettled(other, clock), true);
});

Deno.test("after closing everything is skipped and no call waits", async () => {
  const { guard, clock, adapter } = recordingGuard();
  await guard.lookup(keys, prefix);
  const idle = guard.idle();
  await guard.close();
  assertEquals([await isSettled(idle, clock), guard.lockedKeys], [true, 0]);
  const calls = () =>
    [adapter.stores, adapter.loads, adapter.lookups, adapter.deletes].flat().length;
  const before = calls();
  assertEquals((await guard.store(sealed)).status, "skipped");
  assertEquals((await guard.load(empty())).status, "skipped");
  assertEquals((await guard.delete(keys)).status, "skipped");
  assertEquals(String((await guard.lookup(keys, prefix)).done), "000");
  assertEquals(await Array.fromAsync(guard.list()), []);
  assertEquals(await guard.usage(), undefined);
  guard.unlock(keys);
  assertEquals([calls(), adapter.lockCount], [before, 3], "not even unlocked");
  assertEquals([guard.reportStatus().skippedCalls, guard.lockedKeys], [5, 0]);
});

Deno.test("an adapter is closed once, however many calls there are", async () => {
  let closed = 0;
  const { guard } = guardOf({
    [Symbol.asyncDispose]: () => Promise.resolve(void closed++),
  });
  await Promise.all([guard.close(), guard.close()]);
  await guard.close();
  assertEquals(closed, 1);
});

for (const operation of ["store", "load", "delete"] as const) {
  Deno.test(`${operation}: a call in flight at closing settles for its caller`, async () => {
    for (const dispose of [() => Promise.resolve(), hang]) {
      const { guard, clock } = guardOf({
        store: hang,
        load: hang,
        delete: hang,
        [Symbol.asyncDispose]: dispose,
      });
      const calling = operation === "store"
        ? guard.store(sealed)
        : operation === "load"
        ? guard.load(empty())
        : guard.delete(keys);
      const closing = guard.close();
      assertEquals(guard.state, "closed");
      await clock.advance(TIMEOUTS.closeMs);
      await closing;
      const outcome = await calling;
      assertEquals(String(outcome.done), "000");
      assertEquals(guard.callsInFlight, 0);
      assertEquals(clock.pendingTimers, 0);
      if (outcome.settled !== undefined) {
        assertEquals(await isSettled(outcome.settled, clock), false);
      }
    }
  });
}

Deno.test("a call that ends while the adapter closes returns its result", async () => {
  const closing = gate();
  const storing = gate();
  const adapter = new RecordingAdapter();
  adapter.beforeStore = () => storing.promise;
  const { guard } = guardOf({ ...bound(adapter), [Symbol.asyncDispose]: () => closing.promise });
  const store = guard.store(sealed);
  const close = guard.close();
  storing.open();
  assertEquals(String((await store).done), "111");
  closing.open();
  await close;
});

Deno.test("what a lookup finds while the adapter closes is not unlocked", async () => {
  const { guard, clock, adapter } = recordingGuard();
  const lookup = gate();
  adapter.beforeLookup = () => lookup.promise;
  const looking = guard.lookup(keys, prefix);
  await guard.close();
  assertEquals(String((await looking).done), "000");
  lookup.open();
  await clock.advance(0);
  assertEquals(guard.lockedKeys, 0);
});

Deno.test("the speed of an adapter is measured, that of calls that fail or hang too", async () => {
  const adapter = new RecordingAdapter();
  adapter.seed(keys, layout);
  const { guard, clock } = guardOf({
    ...bound(adapter),
    store: () => Promise.reject(new Error("stores are not measured")),
  });
  const speed = () => {
    const { lookupMs, loadBytesPerMs } = guard.reportStatus();
    return [lookupMs, loadBytesPerMs];
  };
  /** Sets the duration of the next call of a kind in milliseconds. */
  const takes = (ms: number) => () =>
    new Promise<void>((resolve) => void clock.schedule(resolve, ms));
  const run = async (calling: Promise<unknown>, ms: number) => {
    await clock.advance(ms);
    await calling;
  };
  assertEquals([speed(), guard.estimateLoadMs(1e5)], [[undefined, undefined], 2]);
  await guard.store(sealed);
  assertEquals(speed(), [undefined, undefined]);
  adapter.beforeLookup = takes(8);
  await run(guard.lookup(keys, prefix), 8);
  adapter.beforeLoad = takes(10);
  await run(guard.load(empty()), 10);
  assertEquals([speed(), guard.estimateLoadMs(960)], [[8, 96], 10]);
  adapter.beforeLookup = () => takes(4)().then(() => Promise.reject(new Error("down")));
  await run(guard.lookup(keys, prefix), 4);
  assertEquals(speed(), [4, 96]);
  adapter.beforeLookup = hang;
  await run(guard.lookup(keys, prefix), TIMEOUTS.lookupMs);
  assertEquals(speed(), [8, 96]);
  adapter.beforeLoad = () => Promise.reject(new Error("fails at once"));
  await guard.load(empty());
  const [, rate = 0] = speed();
  assertEquals(Math.round(rate), 96, "a failure that is quick is no speed");
  adapter.beforeLoad = hang;
  await clock.advance(60_001);
  await run(guard.load(empty()), TIMEOUTS.loadMs);
  assertEquals((speed()[1] ?? 0) < rate, true, "a timeout counts with all of its deadline");
});

Deno.test("a load that misses does not count as a measurement, one with damaged objects does", async () => {
  let loaded = 3;
  const { guard, clock } = guardOf({
    async load() {
      await new Promise<void>((resolve) => void clock.schedule(resolve, 10));
      return new Bitmap(3, loaded);
    },
  });
  for (const [count, rate] of [[0, undefined], [3, 96], [0, 96], [0, 96]] as const) {
    loaded = count;
    const loading = guard.load(empty());
    await clock.advance(10);
    assertEquals(String((await loading).done), "000");
    assertEquals(guard.reportStatus().loadBytesPerMs, rate);
  }
});
