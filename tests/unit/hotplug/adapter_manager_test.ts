import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { builtInAdapters } from "../../../adapters/mod.ts";
import type { AdapterEnvironment, L2Adapter } from "../../../src/adapter/contract.ts";
import { builtInAdapterSources } from "../../../src/l2/adapter_discovery.ts";
import { ConfigError } from "../../../src/base/config_error.ts";
import { AdapterError } from "../../../src/adapter/errors.ts";
import type { AdapterGuard } from "../../../src/l2/adapter_guard.ts";
import { DEFAULT_ADAPTER_TIMEOUTS } from "../../../src/l2/adapter_status.ts";
import { AdapterRegistry } from "../../../src/l2/adapter_registry.ts";
import type { L1Cache } from "../../../src/l1/l1_cache.ts";
import { ForgetBarrier } from "../../../src/lifecycle/forget_barrier.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { AdapterManager, type RemoveAdapterOptions } from "../../../src/hotplug/adapter_manager.ts";
import { checkConfig, type CheckedConfig } from "../../../src/l2/adapter_config.ts";
import { AdapterSet } from "../../../src/l2/adapter_set.ts";
import { EvictionController } from "../../../src/eviction/eviction_controller.ts";
import { QuotaRegistry } from "../../../src/eviction/quota_registry.ts";
import type { StoreController } from "../../../src/store/store_controller.ts";
import { mapAdapter, moduleOf } from "../../support/adapters.ts";
import { scratchPool, storeController } from "../../support/controllers.ts";
import { lruL1, writeObjects } from "../../support/l1.ts";
import { testKeys, testLayout } from "../../support/objects.ts";
import { settle } from "../../support/prefetch.ts";
import { gate, RecordingAdapter } from "../../support/recording_adapter.ts";

const LAYOUT = testLayout(1024);

interface SetUp extends AsyncDisposable {
  readonly clock: ManualClock;
  readonly l1: L1Cache;
  readonly set: AdapterSet;
  readonly store: StoreController;
  readonly manager: AdapterManager;
  readonly barrier: ForgetBarrier;
  readonly removed: number[];
  /** Adds an adapter; returns its id. */
  add(adapter: L2Adapter): Promise<number>;
  /** Creates the checked configuration of an adapter. */
  guard(id: number): AdapterGuard;
}

function setUp(): SetUp {
  const clock = new ManualClock();
  const l1 = lruL1(new HostDevice(), clock, 64 * 1024);
  const set = new AdapterSet();
  const store = storeController({ l1, adapters: set, clock });
  const eviction = new EvictionController({ l1, quotas: new QuotaRegistry(), clock });
  const scratch = scratchPool(4096, 4);
  const removed: number[] = [];
  const barrier = new ForgetBarrier();
  const manager = new AdapterManager({
    registry: new AdapterRegistry({ builtIn: [], custom: [] }),
    adapters: set,
    store,
    eviction,
    scratch,
    clock,
    timeouts: DEFAULT_ADAPTER_TIMEOUTS,
    breaker: {},
    l1Memory: () => ({ type: "host", maxObjectBytes: 1024, alignmentBytes: 256 }),
    barrier,
    listenerOf: () => ({}),
    onRemoved: ({ id }) => removed.push(id),
  });
  return {
    clock,
    l1,
    set,
    store,
    manager,
    barrier,
    removed,
    add: (adapter) => manager.add(checked(() => adapter)),
    guard: (id) => set.get(id) as AdapterGuard,
    async [Symbol.asyncDispose]() {
      eviction[Symbol.dispose]();
      await manager.close();
      store[Symbol.dispose]();
      l1[Symbol.dispose]();
      assertEquals([clock.pendingTimers, scratch.lentBytes], [0, 0]);
    },
  };
}

/** A configuration whose adapter comes from `create`. */
function checked(
  create: (environment: AdapterEnvironment) => L2Adapter | Promise<L2Adapter>,
): CheckedConfig {
  const module = {
    ...moduleOf(() => mapAdapter()),
    create: (_: unknown, e: AdapterEnvironment) => create(e),
  };
  return { module, values: {}, eviction: undefined };
}

/** Outcome of a promise, filled in when it settles. */
function outcomeOf(work: Promise<unknown>): { value?: unknown; error?: Error; isOver: boolean } {
  const outcome: { value?: unknown; error?: Error; isOver: boolean } = { isOver: false };
  work.then((value) => outcome.value = value, (error) => outcome.error = error)
    .finally(() => outcome.isOver = true);
  return outcome;
}

// Adding

Deno.test("AdapterManager never reuses an id", async () => {
  await using t = setUp();
  assertEquals([await t.add(mapAdapter()), await t.add(mapAdapter())], [0, 1]);
  await t.manager.remove(1);
  await t.manager.remove(0);
  assertEquals([await t.add(mapAdapter()), await t.add(mapAdapter())], [2, 3]);
  assertEquals(
    t.manager.list(),
    [2, 3].map((id) => {
      return { id, type: "hand_made", state: "active", isHealthy: true };
    }),
  );
  assertEquals(t.removed, [1, 0]);
});

Deno.test("AdapterManager abandons an adapter that does not open in time, and closes it if it opens later", async () => {
  await using t = setUp();
  const late = new RecordingAdapter();
  const { promise, open } = gate();
  const added = outcomeOf(t.manager.add(checked(() => promise.then(() => late))));
  await t.clock.advance(29_999);
  assertEquals(added.isOver, false);
  await t.clock.advance(1);
  assertInstanceOf(added.error, AdapterError);
  assertEquals(
    added.error.message,
    "hand_made: open failed: TimeoutError: Not open within 30000 ms",
  );
  assertEquals(t.set.all, []);
  open();
  await settle();
  assert(late.isDisposed);
});

Deno.test("AdapterManager passes on why an adapter could not be opened", async () => {
  await using t = setUp();
  const config = new ConfigError({ subject: "x", expected: "a", received: "b" });
  const failures = [new Error("cannot be made"), config];
  for (const failure of failures) {
    const added = t.manager.add(checked(() => Promise.reject(failure)));
    assertEquals(await assertRejects(() => added), failure);
  }
  assertEquals(t.clock.pendingTimers, 0);
});

Deno.test("AdapterManager.close() ends what is being opened", async () => {
  const t = setUp();
  const late = new RecordingAdapter();
  const { promise, open } = gate();
  let signal: AbortSignal | undefined;
  const added = outcomeOf(t.manager.add(checked((environment) => {
    signal = environment.signal;
    return promise.then(() => late);
  })));
  await t[Symbol.asyncDispose]();
  await settle();
  assert(signal?.aborted);
  assertEquals(added.error?.message, "hand_made: open failed: Cache is closed: open a new one");
  open();
  await settle();
  assert(late.isDisposed, "what opens after all is closed");
});

// Draining

Deno.test("AdapterManager drains: what was written for the adapter is stored, nothing new", async () => {
  await using t = setUp();
  const [leaving, other] = [new RecordingAdapter(), new RecordingAdapter()];
  await t.add(leaving);
  await t.add(other);
  writeObjects(t.l1, testKeys(2), LAYOUT);
  const { promise, open } = gate();
  leaving.beforeStore = () => promise;
  const removed = outcomeOf(t.manager.remove(0));
  writeObjects(t.l1, testKeys(2, 10), LAYOUT);
  await t.clock.advance(50);
  assertEquals([removed.isOver, t.guard(0).state], [false, "active"], "it is still looked up in");
  open();
  await settle();
  assertEquals([removed.isOver, removed.error, t.set.get(0)], [true, undefined, undefined]);
  assertEquals([leaving.count(testKeys(2)), leaving.count(testKeys(2, 10))], [2, 0]);
  await t.store.flush();
  assertEquals(other.count([...testKeys(2), ...testKeys(2, 10)]), 4);
  assert(leaving.isDisposed);
  assert(!other.isDisposed);
});

Deno.test("AdapterManager drains: it waits for calls and locks, and the adapter finds no more", async () => {
  await using t = setUp();
  const leaving = new RecordingAdapter();
  await t.add(leaving);
  leaving.seed(testKeys(2), LAYOUT);
  const guard = t.guard(0);
  const { done: found } = await guard.lookup(testKeys(2), { prefix: true });
  assertEquals(found.popcount(), 2);
  const removed = outcomeOf(t.manager.remove(0));
  await settle();
  assertEquals([removed.isOver, guard.state, t.set.serving], [false, "draining", []]);
  assertEquals((await guard.lookup(testKeys(2), { prefix: true })).done.popcount(), 0);
  guard.unlock(testKeys(1));
  await settle();
  assertEquals([removed.isOver, leaving.isDisposed], [false, false], "a lock is left");
  guard.unlock(testKeys(1, 1));
  await settle();
  assertEquals([removed.isOver, leaving.isDisposed], [true, true]);
});

Deno.test("AdapterManager.remove() fails at its time limit, and can be called again", async () => {
  await using t = setUp();
  const leaving = new RecordingAdapter();
  await t.add(leaving);
  leaving.seed(testKeys(1), LAYOUT);
  const guard = t.guard(0);
  await guard.lookup(testKeys(1), { prefix: true });
  const first = outcomeOf(t.manager.remove(0, { timeoutMs: 100 }));
  await t.clock.advance(99);
  assertEquals([first.isOver, t.manager.problems()], [false, []]);
  await t.clock.advance(1);
  const message = `hand_made: remove failed: TimeoutError: Not removed within 100 ms: ` +
    `call again to continue, or use mode "drop"`;
  assertInstanceOf(first.error, AdapterError);
  assertEquals(first.error.message, message);
  assertEquals(t.manager.problems(), [`adapter 0 (hand_made): ${message}`]);
  assertEquals([t.manager.list()[0]?.state, leaving.isDisposed], ["draining", false]);

  const second = outcomeOf(t.manager.remove(0));
  assertEquals(t.manager.problems(), [], "it is being removed again");
  guard.unlock(testKeys(1));
  await settle();
  assertEquals([second.isOver, second.error, t.manager.list()], [true, undefined, []]);
  assertEquals(t.manager.problems(), []);
});

Deno.test("AdapterManager.remove() can go on with a hung adapter by dropping it", async () => {
  await using t = setUp();
  const [leaving, other] = [new RecordingAdapter(), new RecordingAdapter()];
  await t.add(leaving);
  await t.add(other);
  leaving.beforeStore = () => new Promise(() => {});
  writeObjects(t.l1, testKeys(2), LAYOUT);
  const first = outcomeOf(t.manager.remove(0, { timeoutMs: 10 }));
  await t.clock.advance(10);
  assertInstanceOf(first.error, AdapterError);
  const second = outcomeOf(t.manager.remove(0, { mode: "drop" }));
  await settle();
  assertEquals([second.isOver, second.error, leaving.isDisposed], [true, undefined, true]);
  await t.store.flush();
  assertEquals([other.count(testKeys(2)), t.l1.reportStatus().heldCount], [2, 0]);
});

Deno.test("AdapterManager.remove() waits indefinitely if the deadline is infinite", async () => {
  await using t = setUp();
  const leaving = new RecordingAdapter();
  await t.add(leaving);
  leaving.seed(testKeys(1), LAYOUT);
  const guard = t.guard(0);
  await guard.lookup(testKeys(1), { prefix: true });
  const removed = outcomeOf(t.manager.remove(0, { timeoutMs: Infinity }));
  await settle();
  assertEquals(t.clock.pendingTimers, 0);
  await t.clock.advance(2 ** 40);
  assertEquals(removed.isOver, false);
  guard.unlock(testKeys(1));
  await settle();
  assertEquals([removed.isOver, removed.error], [true, undefined]);
});

// Migrating

Deno.test("AdapterManager migrates what only the removed adapter has, which serves meanwhile", async () => {
  await using t = setUp();
  const [leaving, other] = [new RecordingAdapter(), new RecordingAdapter()];
  await t.add(leaving);
  await t.add(other);
  leaving.seed(testKeys(5), LAYOUT);
  other.seed(testKeys(2), LAYOUT);
  const { promise, open } = gate();
  other.beforeStore = () => promise;
  const removed = outcomeOf(t.manager.remove(0, { mode: "migrate" }));
  await settle();
  assertEquals([removed.isOver, t.guard(0).state], [false, "migrating"]);
  assertEquals(t.set.serving.map(({ id }) => id), [0, 1]);
  open();
  await settle();
  assertEquals(removed.value, {
    copiedObjects: 3,
    copiedBytes: 3 * (1024 + 64),
    presentObjects: 2,
    failedObjects: 0,
  });
  assertEquals([other.count(testKeys(5)), leaving.isDisposed], [5, true]);
});

Deno.test("AdapterManager migrates what is still being stored in the removed adapter", async () => {
  await using t = setUp();
  const [leaving, other] = [new RecordingAdapter(), new RecordingAdapter()];
  await t.add(leaving);
  await t.add(other);
  other.beforeStore = () => Promise.reject(new Error("not yet"));
  writeObjects(t.l1, testKeys(2), LAYOUT);
  const removed = outcomeOf(t.manager.remove(0, { mode: "migrate" }));
  other.beforeStore = (batch) => {
    if (leaving.held.size === 0) throw new Error(`not yet ${batch.length}`);
  };
  await settle();
  assertEquals([removed.error, removed.isOver], [undefined, true]);
  assertEquals(other.count(testKeys(2)), 2);
  await t.clock.advance(10_000);
});

Deno.test("AdapterManager keeps an adapter until another one has taken its objects", async () => {
  await using t = setUp();
  const [leaving, other] = [new RecordingAdapter(), new RecordingAdapter()];
  await t.add(leaving);
  await t.add(other);
  leaving.seed(testKeys(3), LAYOUT);
  other.beforeStore = () => Promise.reject(new Error("full"));
  const failure = await assertRejects(() => t.manager.remove(0, { mode: "migrate" }), AdapterError);
  assertEquals(
    failure.message,
    `hand_made: remove failed: 3 objects could not be copied: call again, or use mode "drain"`,
  );
  assertEquals(t.manager.problems(), [`adapter 0 (hand_made): ${failure.message}`]);
  assertEquals([t.guard(0).state, leaving.isDisposed], ["migrating", false]);
  other.beforeStore = () => {};
  const { copiedObjects } = await t.manager.remove(0, { mode: "migrate" });
  assertEquals([copiedObjects, other.count(testKeys(3)), leaving.isDisposed], [3, 3, true]);
});

Deno.test("AdapterManager refuses an impossible migration, and continues as before", async () => {
  await using t = setUp();
  const failsWith = async (id: number, reason: string): Promise<void> => {
    const removed = t.manager.remove(id, { mode: "migrate" });
    const error = await assertRejects(() => removed, ConfigError, reason);
    assertEquals(error.adapter, `removeAdapter(${id})`);
  };
  await t.add(new RecordingAdapter());
  await failsWith(0, "there is no other adapter to copy to");
  await t.add(mapAdapter());
  await failsWith(1, "a hand_made adapter cannot list its objects");
  assertEquals(t.set.storing.map(({ id }) => id), [0, 1], "both still get objects");

  const guard = t.guard(0);
  guard as { lockedKeys: number } & AdapterGuard;
  const adapter = new RecordingAdapter();
  adapter.seed(testKeys(1), LAYOUT);
  await t.add(adapter);
  await t.guard(2).lookup(testKeys(1), { prefix: true });
  const draining = outcomeOf(t.manager.remove(2, { timeoutMs: 1 }));
  await settle();
  await t.clock.advance(1);
  assertInstanceOf(draining.error, AdapterError);
  await failsWith(2, "the adapter is already being drained");
  t.guard(2).unlock(testKeys(1));

  // One that leaves does not count as another one.
  await t.manager.remove(1);
  await failsWith(0, "there is no other adapter to copy to");
});

// Dropping

Deno.test("AdapterManager drops an adapter at once: calls in flight end, nothing stays dirty", async () => {
  await using t = setUp();
  const leaving = new RecordingAdapter();
  await t.add(leaving);
  leaving.seed(testKeys(1), LAYOUT);
  const guard = t.guard(0);
  await guard.lookup(testKeys(1), { prefix: true });
  leaving.beforeStore = () => new Promise(() => {});
  writeObjects(t.l1, testKeys(2, 10), LAYOUT);
  const flushed = outcomeOf(t.store.flush());
  await settle();
  writeObjects(t.l1, testKeys(1, 20), LAYOUT);
  const removed = outcomeOf(t.manager.remove(0, { mode: "drop" }));
  await settle();
  assertEquals([removed.isOver, removed.error, leaving.isDisposed], [true, undefined, true]);
  assertEquals(flushed.isOver, true);
  const { unsavedObjects, droppedObjects } = t.store.reportStatus();
  assertEquals([unsavedObjects, droppedObjects, t.l1.reportStatus().heldCount], [0, 3, 0]);
});

// Wrong calls, and closing

Deno.test("AdapterManager.remove() refuses unknown ids and modes", async () => {
  await using t = setUp();
  await assertRejects(
    () => t.manager.remove(0),
    RangeError,
    "No adapter has id 0: there are no adapters",
  );
  await t.add(mapAdapter());
  await t.add(mapAdapter());
  await assertRejects(
    () => t.manager.remove(7),
    RangeError,
    "No adapter has id 7: the ids are 0, 1",
  );
  for (const timeoutMs of [-1, NaN]) {
    await assertRejects(() => t.manager.remove(0, { timeoutMs }), RangeError, "timeoutMs");
  }
  const options = { mode: "explode" } as unknown as RemoveAdapterOptions;
  const error = await assertRejects(() => t.manager.remove(0, options), ConfigError);
  assertEquals([error.key, error.expected], ["mode", '"drain", "migrate", "drop"']);
  assertEquals(t.set.storing.length, 2);
});

Deno.test("AdapterManager removes an adapter once, however many concurrent calls there are", async () => {
  await using t = setUp();
  await t.add(new RecordingAdapter());
  const modes = ["drain", "drain", "drop"] as const;
  await Promise.all(modes.map((mode) => t.manager.remove(0, { mode })));
  assertEquals([t.removed, t.set.all], [[0], []]);
});

Deno.test("AdapterManager.close() ends removals, and leaves nothing running", async () => {
  for (const mode of ["drain", "migrate"] as const) {
    const t = setUp();
    const [leaving, other] = [new RecordingAdapter(), new RecordingAdapter()];
    await t.add(leaving);
    await t.add(other);
    leaving.seed(testKeys(1), LAYOUT);
    const guard = t.guard(0);
    await guard.lookup(testKeys(1), { prefix: true });
    leaving.beforeLoad = () => new Promise(() => {});
    const removed = outcomeOf(t.manager.remove(0, { mode }));
    await settle();
    assertEquals(removed.isOver, false);
    await t[Symbol.asyncDispose]();
    assertEquals(
      removed.error?.message,
      "hand_made: remove failed: Cache is closed: open a new one",
    );
    assert(leaving.isDisposed && other.isDisposed);
  }
});

Deno.test("AdapterManager makes a forget wait for the batch that is being copied", async () => {
  await using t = setUp();
  const [leaving, other] = [new RecordingAdapter(), new RecordingAdapter()];
  await t.add(leaving);
  await t.add(other);
  leaving.seed(testKeys(2), LAYOUT);
  const target = { matches: () => true };
  await t.barrier.passed(target);
  const { promise, open } = gate();
  other.beforeStore = () => promise;
  const removed = outcomeOf(t.manager.remove(0, { mode: "migrate" }));
  await settle();
  const copied = outcomeOf(t.barrier.passed(target));
  await settle();
  assertEquals([copied.isOver, removed.isOver], [false, false]);
  open();
  await settle();
  assertEquals([copied.isOver, removed.isOver], [true, true]);
});

// Configurations

Deno.test("checkConfig() takes the eviction block, unless the adapter has one of its own", async () => {
  const custom = [moduleOf(() => mapAdapter(), "plain"), {
    ...moduleOf(() => mapAdapter(), "own"),
    config: { eviction: { type: "string", default: "", help: "Its own." } } as const,
  }].map((module) => ({
    name: module.type,
    origin: "a test",
    load: () => Promise.resolve({ default: module }),
  }));
  const builtIn = await builtInAdapterSources(
    new URL("../../../adapters/", import.meta.url),
    builtInAdapters,
  );
  const registry = new AdapterRegistry({ builtIn, custom });
  const eviction = { "max_capacity_gb": 1, "trigger_watermark": 1, "eviction_ratio": 0.5 };
  const bounds = { capacityBytes: 2 ** 30, highWatermark: 1, lowWatermark: 0.5, policy: "LRU" };

  const plain = await checkConfig(registry, { type: "plain", eviction });
  assertEquals([plain.values, plain.eviction], [{}, bounds]);
  // The fs adapter evicts by itself, whichever processes share its directory.
  const watermarks = { "trigger_watermark": 1, "eviction_ratio": 0.5 };
  const fs = await checkConfig(registry, { type: "fs", base_path: "x", eviction: watermarks });
  assertEquals([fs.values["max_capacity_gb"], fs.eviction], [10, undefined]);
  assertEquals<unknown>(fs.values["eviction"], { eviction_policy: "LRU", ...watermarks });
  assertEquals((await checkConfig(registry, { type: "plain" })).eviction, undefined);
  const own = await checkConfig(registry, { type: "own", eviction: "mine" });
  assertEquals<unknown>([own.values, own.eviction], [{ eviction: "mine" }, undefined]);
  await assertRejects(
    () => checkConfig(registry, { type: "fs", base_path: "x", eviction: { capacity: 5 } }),
    ConfigError,
    "eviction.capacity",
  );
  await assertRejects(
    () => checkConfig(registry, { type: "fs", base_path: "x", eviction }),
    ConfigError,
    "eviction.max_capacity_gb",
  );
});
