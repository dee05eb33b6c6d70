import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import type { L2Adapter } from "../../src/adapter/contract.ts";
import { ManualClock } from "../../src/testing/manual_clock.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { listen, optionsOf, put } from "../support/caches.ts";
import { testKeys, testLayout } from "../support/objects.ts";
import { gate, RecordingAdapter } from "../support/recording_adapter.ts";
import type { TieredCacheOptions } from "../../src/cache_options.ts";

const LAYOUT = testLayout(1024);
const NEVER = new Promise<void>(() => {});

async function open(adapters: Record<string, L2Adapter>, options: TieredCacheOptions = {}) {
  const clock = new ManualClock();
  const cache = await TieredCache.open(optionsOf(adapters, { clock, ...options }));
  return { cache, clock };
}

function failing(): RecordingAdapter {
  const adapter = new RecordingAdapter();
  adapter.beforeStore = () => {
    throw new Error("No space left");
  };
  return adapter;
}

Deno.test("flush() says how many objects which adapter has not got, and why", async () => {
  const { cache, clock } = await open({ broken: failing(), sound: new RecordingAdapter() }, {
    store: { attempts: 2 },
  });
  assertEquals(put(cache, testKeys(41), LAYOUT).length, 41);
  const flushed = cache.flush();
  await clock.advance(0);
  await clock.advance(1_000);
  assertEquals(await flushed, {
    isComplete: false,
    unwritten: [{ adapter: { id: 0, type: "broken" }, reason: "failed", objects: 41 }],
  });
  assertEquals(await cache.flush(), { isComplete: true, unwritten: [] }, "it is said once");
  await cache.close();
});

Deno.test("flush() also reports what had failed before it was called", async () => {
  const { cache, clock } = await open({ broken: failing() }, { store: { attempts: 1 } });
  put(cache, testKeys(3), LAYOUT);
  await clock.advance(1_000);
  assertEquals(cache.reportStatus().store.unsavedObjects, 0);
  assertEquals((await cache.flush()).unwritten.map(({ objects }) => objects), [3]);
  await cache.close();
});

Deno.test("flush() does not miss what was forgotten", async () => {
  const { promise, open: letGo } = gate();
  const adapter = new RecordingAdapter();
  adapter.beforeStore = () => promise;
  const { cache, clock } = await open({ slow: adapter }, { store: { flushBytes: 1 } });
  put(cache, testKeys(3), LAYOUT);
  await clock.advance(0);
  const forgotten = cache.forget({ keys: testKeys(3) });
  letGo();
  await clock.advance(1_000);
  await forgotten;
  assertEquals(await cache.flush(), { isComplete: true, unwritten: [] });
  await cache.close();
});

Deno.test("flush() ends at its deadline, and goes on in the background", async () => {
  const { promise, open: letGo } = gate();
  const slow = new RecordingAdapter();
  slow.beforeStore = () => promise;
  const { cache, clock } = await open({ slow, quick: new RecordingAdapter() });
  put(cache, testKeys(5), LAYOUT);
  const flushed = cache.flush({ deadlineMs: 100 });
  await clock.advance(0);
  await clock.advance(100);
  assertEquals((await flushed).unwritten, [
    { adapter: { id: 0, type: "slow" }, reason: "deadline", objects: 5 },
  ]);
  letGo();
  assertEquals(await cache.flush(), { isComplete: true, unwritten: [] });
  assertEquals(slow.held.size, 5);
  await cache.close();
});

Deno.test("close() takes no longer than its deadline, whatever hangs, and says what it cost", async () => {
  const hung = new RecordingAdapter();
  hung.beforeStore = () => NEVER;
  hung.beforeLoad = () => NEVER;
  hung[Symbol.asyncDispose] = () => NEVER;
  hung.seed(testKeys(1, 90), LAYOUT);
  for (const [options, ms] of [[{}, 10_000], [{ deadlineMs: 50 }, 50]] as const) {
    const sound = new RecordingAdapter();
    const { cache, clock } = await open({ hung, sound });
    put(cache, testKeys(4), LAYOUT);
    cache.match(testKeys(1, 90), LAYOUT).then((hit) => hit[Symbol.dispose](), () => {});
    await clock.advance(0);
    const closed = cache.close(options);
    let isClosed = false;
    closed.then(() => isClosed = true);
    await clock.advance(ms - 1);
    assert(!isClosed);
    await clock.advance(1);
    assert(isClosed);
    assertEquals(await closed, {
      isComplete: false,
      unwritten: [{ adapter: { id: 0, type: "hung" }, reason: "deadline", objects: 4 }],
    });
    assertEquals([sound.held.size, sound.isDisposed, clock.pendingTimers], [4, true, 0]);
  }
});

Deno.test("flush() and close() refuse options that cannot be", async () => {
  const { cache } = await open({});
  const options = { deadlineMS: 1 } as { deadlineMs?: number };
  await assertRejects(() => cache.flush(options), TypeError, "did you mean deadlineMs?");
  assertThrows(() => cache.close(options), TypeError, "did you mean deadlineMs?");
  await assertRejects(() => cache.flush({ deadlineMs: -1 }), RangeError, "deadlineMs must be");
  assertEquals(await cache.close(), { isComplete: true, unwritten: [] });
});

Deno.test("an adapter that fails is asked again after 30 s at most, however often it failed", async () => {
  const adapter = failing();
  const { cache, clock } = await open({ broken: adapter }, {
    store: { attempts: 40 },
    breaker: { failures: 1_000 },
  });
  put(cache, testKeys(1), LAYOUT);
  await clock.advance(50);
  // Jitter adds a half.
  for (let attempt = 1; attempt < 40; attempt++) {
    assertEquals(adapter.stores.length, attempt);
    const before = adapter.stores.length;
    for (let ms = 0; ms < 45_000 && adapter.stores.length === before; ms += 100) {
      await clock.advance(100);
    }
  }
  assertEquals([adapter.stores.length, cache.reportStatus().store.failedObjects], [40, 1]);
  await cache.close();
});

Deno.test("objects that L1 has no room for are counted, told, and in the end a problem", async () => {
  const { cache, clock } = await open({ hung: hungStore() }, { l1: { capacityBytes: 4096 } });
  const heard = listen(cache.events, "skipped");
  assertEquals(put(cache, testKeys(4), LAYOUT).length, 4);
  for (let n = 0; n < 3; n++) {
    assertEquals(cache.reportStatus().problems, [], "once is no problem");
    put(cache, testKeys(2, 10 + n), LAYOUT);
  }
  assertEquals(heard, Array(3).fill(["skipped", { objects: 2, reason: "out-of-memory" }]));
  const { skippedWrites, problems, isHealthy } = cache.reportStatus();
  assertEquals([skippedWrites["out-of-memory"], isHealthy], [6, false]);
  assertStringIncludes(problems.join(), "L1 recently had no room for 6 objects");
  assertStringIncludes(problems.join(), "await storeReady()", "L1 is full of what is not stored");
  await clock.advance(30_001);
  assertEquals(cache.reportStatus().problems, [], "it is over");
  assertEquals(cache.reportStatus().skippedWrites["out-of-memory"], 6);
  await Promise.all([cache.close({ deadlineMs: 0 }), clock.advance(0)]);
});

Deno.test("what to change depends on what fills L1", async () => {
  const { cache } = await open({}, { l1: { capacityBytes: 4096 } });
  put(cache, testKeys(4), LAYOUT);
  cache.pin(testKeys(4));
  using _ = cache.leaseResident(testKeys(4));
  for (let n = 0; n < 3; n++) put(cache, testKeys(1, 10 + n), LAYOUT);
  assertStringIncludes(cache.reportStatus().problems.join(), "raise l1.capacityBytes");
  cache.quota.setDefault({ l1Bytes: 512 });
  for (let n = 0; n < 3; n++) put(cache, testKeys(1, 20 + n), LAYOUT);
  const { problems, skippedWrites } = cache.reportStatus();
  assertStringIncludes(
    problems.join(),
    "quotas recently left no room for 3 objects: raise l1Bytes",
  );
  assertEquals(skippedWrites, { "out-of-memory": 3, "quota-exceeded": 3, "device-lost": 0 });
  await cache.close();
});

Deno.test("full queues that cost adapters objects are a problem as long as that goes on", async () => {
  const store = { whenFull: "drop_new", maxQueuedBytes: 1024, flushBytes: 1 } as const;
  const { cache, clock } = await open({ hung: hungStore() }, { store });
  for (let n = 0; n < 8; n++) {
    put(cache, testKeys(1, n), LAYOUT);
    await clock.advance(0);
  }
  const { store: { droppedObjects }, problems } = cache.reportStatus();
  assertStringIncludes(
    problems.join(),
    `${droppedObjects} objects were recently dropped because queues were full`,
  );
  await clock.advance(30_001);
  assertEquals(cache.reportStatus().problems, []);
  await Promise.all([cache.close({ deadlineMs: 0 }), clock.advance(0)]);
});

function hungStore(): RecordingAdapter {
  const adapter = new RecordingAdapter();
  adapter.beforeStore = () => NEVER;
  return adapter;
}
