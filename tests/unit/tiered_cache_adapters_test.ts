import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import type { TieredCacheOptions } from "../../src/cache_options.ts";
import { ConfigError } from "../../src/base/config_error.ts";
import { AdapterError } from "../../src/adapter/errors.ts";
import { ManualClock } from "../../src/testing/manual_clock.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { mapAdapter, moduleOf } from "../support/adapters.ts";
import { assertIdle, listen, optionsOf, put } from "../support/caches.ts";
import { objectFilesIn } from "../support/fs_adapter.ts";
import { countHits, putObjects } from "../support/fs_cache.ts";
import { testKey, testKeys, testLayout } from "../support/objects.ts";
import { settle } from "../support/prefetch.ts";
import { gate, RecordingAdapter } from "../support/recording_adapter.ts";
import { tempDirectory } from "../support/temp_directory.ts";

const LAYOUT = testLayout(1024);

/** A cache without adapters that knows types `a` and `b`, whose adapters are recorded. */
function openEmpty(
  options: TieredCacheOptions = {},
): Promise<{ cache: TieredCache; made: RecordingAdapter[] }> {
  const made: RecordingAdapter[] = [];
  const make = (): RecordingAdapter => {
    const adapter = new RecordingAdapter();
    made.push(adapter);
    return adapter;
  };
  const adapters = ["a", "b"].map((type) => moduleOf(make, type));
  return TieredCache.open(optionsOf({}, { adapters, l2: [], ...options }))
    .then((cache) => ({ cache, made }));
}

Deno.test("TieredCache.addAdapter() uses an adapter behind the others from then on", async () => {
  const { cache, made } = await openEmpty({ l2: [{ type: "a" }] });
  await using _ = cache;
  const added = listen(cache.events, "adapteradded");
  await putObjects(cache, testKeys(2), LAYOUT);
  assertEquals(await cache.addAdapter({ type: "b" }), 1);
  assertEquals(added, [["adapteradded", { id: 1, type: "b" }]]);
  assertEquals(cache.listAdapters().map(({ id, type }) => [id, type]), [[0, "a"], [1, "b"]]);
  await putObjects(cache, testKeys(2, 10), LAYOUT);
  const [first, second] = made as [RecordingAdapter, RecordingAdapter];
  assertEquals([first.held.size, second.held.size], [4, 2], "what was stored before stays there");
  // Objects that only the new one has are found.
  second.seed(testKeys(2, 20), LAYOUT);
  assertEquals(await countHits(cache, testKeys(2, 20), LAYOUT), 2);
  assertIdle(cache);
});

Deno.test("TieredCache can be opened without adapters, and get one later", async () => {
  const { cache, made } = await openEmpty();
  await using _ = cache;
  await putObjects(cache, testKeys(2), LAYOUT);
  assertEquals(await countHits(cache, testKeys(2), LAYOUT), 2);
  await cache.addAdapter({ type: "a" });
  await putObjects(cache, testKeys(2, 10), LAYOUT);
  cache.clearL1();
  assertEquals(await countHits(cache, testKeys(2), LAYOUT), 0);
  assertEquals([await countHits(cache, testKeys(2, 10), LAYOUT), made[0]?.held.size], [2, 2]);
});

Deno.test("TieredCache never uses an id twice", async () => {
  const { cache } = await openEmpty({ l2: [{ type: "a" }, { type: "a" }] });
  await using _ = cache;
  const removed = listen(cache.events, "adapterremoved");
  await cache.removeAdapter(1);
  await cache.removeAdapter(0);
  assertEquals(await cache.addAdapter({ type: "a" }), 2);
  assertEquals(cache.listAdapters(), [{ id: 2, type: "a", state: "active", isHealthy: true }]);
  assertEquals(removed.map(([, { id }]) => id), [1, 0]);
  await assertRejects(
    () => cache.removeAdapter(0),
    RangeError,
    "No adapter has id 0: the ids are 2",
  );
  assertEquals(cache.reportStatus().adapters.map(({ id }) => id), [2]);
});

Deno.test("TieredCache.addAdapter() refuses what cannot work, and goes on as before", async () => {
  const { cache } = await openEmpty({ l2: [{ type: "a" }] });
  await using _ = cache;
  const added = listen(cache.events, "adapteradded");
  await assertRejects(() => cache.addAdapter({ type: "papyrus" }), ConfigError, "papyrus");
  await assertRejects(() => cache.addAdapter({ type: "a", size: 1 }), ConfigError, "size");
  await assertRejects(
    () => cache.addAdapter({ type: "a", eviction: { "max_capacity_gb": -1 } }),
    ConfigError,
    "eviction.max_capacity_gb",
  );
  assertEquals([added, cache.listAdapters().length], [[], 1]);
  assertEquals(await cache.addAdapter({ type: "b" }), 1, "failures take no id");
});

Deno.test("TieredCache.addAdapter() gives up an adapter that never opens", async () => {
  const clock = new ManualClock();
  const late = new RecordingAdapter();
  const { promise, open } = gate();
  const module = { ...moduleOf(() => late, "slow"), create: () => promise.then(() => late) };
  const { cache } = await openEmpty({ clock, adapters: [module] });
  const added = cache.addAdapter({ type: "slow" });
  const rejected = assertRejects(() => added, AdapterError, "Not open within 30000 ms");
  await settle();
  await clock.advance(30_000);
  await rejected;
  assertEquals(cache.listAdapters(), []);
  open();
  await settle();
  assert(late.isDisposed);
  await cache.close();
  assertEquals(clock.pendingTimers, 0);
});

Deno.test("TieredCache.close() ends what is being opened or removed", async () => {
  const clock = new ManualClock();
  const slow = {
    ...moduleOf(() => mapAdapter(), "slow"),
    create: () => new Promise<never>(() => {}),
  };
  const leaving = new RecordingAdapter();
  const adapters = [moduleOf(() => leaving, "a"), slow];
  const { cache } = await openEmpty({ clock, adapters, l2: [{ type: "a" }] });
  const added = assertRejects(() => cache.addAdapter({ type: "slow" }), Error, "Cache is closed");
  leaving.beforeStore = () => new Promise(() => {});
  put(cache, testKeys(1), LAYOUT);
  const removed = assertRejects(() => cache.removeAdapter(0), Error, "Cache is closed");
  await settle();
  const closed = cache.close();
  await assertRejects(() => cache.addAdapter({ type: "a" }), Error, "Cache is closed");
  await assertRejects(() => cache.removeAdapter(0), Error, "Cache is closed");
  // The hanging store misses its deadline, and is retried twice.
  for (let turn = 0; turn < 10; turn++) await clock.advance(20_000);
  await Promise.all([closed, added, removed]);
  assert(leaving.isDisposed);
  assertEquals(clock.pendingTimers, 0);
});

// Removing

Deno.test("TieredCache.removeAdapter() drains: what others have is served without a gap", async () => {
  const { cache, made } = await openEmpty({
    clock: new ManualClock(), // Both adapters are as fast: the first one is asked.
    l2: [{ type: "a" }, { type: "b" }],
  });
  await using _ = cache;
  const [first, second] = made as [RecordingAdapter, RecordingAdapter];
  await putObjects(cache, testKeys(6), LAYOUT);
  cache.clearL1();
  // Requests that asked before the removal still find what only that adapter has.
  for (const { id } of testKeys(4)) second.held.delete(id);
  const { promise, open } = gate();
  const reached = gate();
  first.beforeLoad = () => {
    reached.open();
    return promise;
  };
  const matched = countHits(cache, testKeys(4), LAYOUT);
  await reached.promise;
  let isRemoved = false;
  const removed = cache.removeAdapter(0).then((report) => {
    isRemoved = true;
    return report;
  });
  await settle();
  assertEquals([isRemoved, cache.listAdapters()[0]?.state], [false, "draining"]);
  assertEquals(await countHits(cache, testKeys(2, 4), LAYOUT), 2, "the other one serves");
  open();
  assertEquals(await matched, 4);
  assertEquals(await removed, {
    copiedObjects: 0,
    copiedBytes: 0,
    presentObjects: 0,
    failedObjects: 0,
  });
  cache.clearL1();
  assertEquals(await countHits(cache, testKeys(4), LAYOUT), 0);
  assertEquals(await countHits(cache, testKeys(2, 4), LAYOUT), 2);
  assertEquals([first.isDisposed, second.isDisposed], [true, false]);
  assertIdle(cache);
});

Deno.test("TieredCache.removeAdapter() drops: a match under way comes from another adapter", async () => {
  const { cache, made } = await openEmpty({
    clock: new ManualClock(), // Both adapters are as fast: the first one is asked.
    l2: [{ type: "a" }, { type: "b" }],
  });
  await using _ = cache;
  const [first] = made as [RecordingAdapter, RecordingAdapter];
  await putObjects(cache, testKeys(4), LAYOUT);
  cache.clearL1();
  const reached = gate();
  first.beforeLoad = () => {
    reached.open();
    return new Promise(() => {});
  };
  const matched = countHits(cache, testKeys(4), LAYOUT);
  await reached.promise;
  await cache.removeAdapter(0, { mode: "drop" });
  assert(first.isDisposed);
  assertEquals(await matched, 4);
  assertIdle(cache);
});

Deno.test("TieredCache.removeAdapter() migrates from directory to directory", async () => {
  await using from = await tempDirectory();
  await using to = await tempDirectory();
  const l2 = [{ type: "fs", base_path: from.path }];
  await using cache = await TieredCache.open(optionsOf({}, { l2 }));
  const keys = [...testKeys(20), testKey(30, { model: "other", cacheSalt: "alice" })];
  for (const key of keys) put(cache, [key], LAYOUT);
  await cache.flush();
  const id = await cache.addAdapter({ type: "fs", base_path: to.path });
  await putObjects(cache, testKeys(3, 100), LAYOUT);
  const report = await cache.removeAdapter(0, { mode: "migrate" });
  assertEquals([report.copiedObjects, report.presentObjects, report.failedObjects], [21, 3, 0]);
  assertEquals(
    await objectFilesIn(to.path),
    await objectFilesIn(from.path),
    "what it left stays where it is",
  );
  cache.clearL1();
  for (const key of [...keys, ...testKeys(3, 100)]) {
    assertEquals(await countHits(cache, [key], LAYOUT), 1);
  }
  assertEquals(cache.listAdapters().map((adapter) => adapter.id), [id]);
  assertIdle(cache);
});

Deno.test("TieredCache.removeAdapter() refuses migrations that cannot work", async () => {
  const options = optionsOf({ plain: mapAdapter(), listing: new RecordingAdapter() });
  await using cache = await TieredCache.open(options);
  const migration = (id: number): Promise<unknown> => cache.removeAdapter(id, { mode: "migrate" });
  await assertRejects(() => migration(0), ConfigError, "cannot list its objects");
  await cache.removeAdapter(0);
  await assertRejects(() => migration(1), ConfigError, "there is no other adapter to copy to");
  assertEquals(cache.listAdapters().map(({ state }) => state), ["active"]);
});

Deno.test("TieredCache says which adapter could not be removed, until it is", async () => {
  const clock = new ManualClock();
  const { cache, made } = await openEmpty({ clock, l2: [{ type: "a" }, { type: "b" }] });
  const [first] = made as [RecordingAdapter, RecordingAdapter];
  first.seed(testKeys(2), LAYOUT);
  first.beforeLoad = () => new Promise(() => {});
  const matched = cache.match(testKeys(2), LAYOUT);
  await settle();
  const removed = cache.removeAdapter(0, { timeoutMs: 1_000 });
  const rejected = assertRejects(() => removed, AdapterError, "Not removed within 1000 ms");
  await settle();
  assertEquals(cache.reportStatus().problems, [], "it is on its way");
  await clock.advance(1_000);
  await rejected;
  const { isHealthy, problems } = cache.reportStatus();
  assertEquals([isHealthy, problems.length], [false, 1]);
  assertStringIncludes(problems[0] ?? "", "adapter 0 (a): ");
  assertStringIncludes(problems[0] ?? "", "call again to continue");
  assertEquals(cache.listAdapters().map(({ state }) => state), ["draining", "active"]);
  await cache.removeAdapter(0, { mode: "drop" });
  assertEquals([cache.reportStatus().problems, (await matched).length], [[], 0]);
  await cache.close();
  assertEquals(clock.pendingTimers, 0);
});

Deno.test("TieredCache.removeAdapter() migrates nothing that is being forgotten", async () => {
  const { cache, made } = await openEmpty({ l2: [{ type: "a" }] });
  await using _ = cache;
  await putObjects(cache, testKeys(4), LAYOUT);
  await cache.addAdapter({ type: "b" });
  const [first, second] = made as [RecordingAdapter, RecordingAdapter];
  // The copy is in flight when everything is forgotten.
  const [reached, released] = [gate(), gate()];
  second.beforeStore = () => {
    reached.open();
    return released.promise;
  };
  const removed = cache.removeAdapter(0, { mode: "migrate" });
  await reached.promise;
  const forgotten = cache.forget({ model: "test/model" });
  await settle();
  assertEquals(second.deletes, [], "it waits for the copy");
  released.open();
  const { adapters } = await forgotten;
  await removed;
  // The other one may have been removed by then.
  assertEquals([adapters.at(-1)?.objects, adapters.at(-1)?.complete], [4, true]);
  assertEquals([first.isDisposed, second.held.size], [true, 0]);
  assertEquals(await countHits(cache, testKeys(4), LAYOUT), 0);
});

// Eviction by the cache

Deno.test("TieredCache bounds an adapter by its eviction block", async () => {
  const adapter = new RecordingAdapter();
  const sealed = LAYOUT.byteLength + 64;
  const eviction = {
    "max_capacity_gb": 10 * sealed / 2 ** 30,
    "trigger_watermark": 0.8,
    "eviction_ratio": 0.3,
  };
  const l2 = [{ type: "a", eviction }];
  await using cache = await TieredCache.open(optionsOf({ a: adapter }, { l2 }));
  const deleted = listen(cache.events, "deleted");
  for (let n = 0; n < 8; n++) await putObjects(cache, [testKey(n)], LAYOUT);
  assertEquals([adapter.held.size, deleted.length], [8, 0]);
  const gone = Promise.withResolvers<void>();
  cache.events.addEventListener("deleted", () => gone.resolve());
  await putObjects(cache, [testKey(8)], LAYOUT);
  await gone.promise;
  assertEquals(adapter.held.size, 5, "down to half of the capacity");
  assertEquals(deleted, [["deleted", {
    adapter: { id: 0, type: "a" },
    objects: 4,
    bytes: 4 * sealed,
  }]]);
  cache.clearL1();
  assertEquals(await countHits(cache, testKeys(5, 4), LAYOUT), 5, "the last ones are there");
  const [status] = cache.reportStatus().eviction.adapters;
  assertEquals([status?.evictedObjects, status?.trackedObjects], [4, 5]);
});
