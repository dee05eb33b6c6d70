import { assert, assertEquals, assertThrows } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import mock from "../../../adapters/mock.ts";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import { L1Cache } from "../../../src/l1/l1_cache.ts";
import { LruPolicy } from "../../../src/policies/eviction_policy.ts";
import { Bitmap, type L2Adapter } from "../../../src/adapter/contract.ts";
import type { AdapterEviction } from "../../../src/l2/eviction_config.ts";
import { AdapterGuard } from "../../../src/l2/adapter_guard.ts";
import { DEFAULT_ADAPTER_TIMEOUTS } from "../../../src/l2/adapter_status.ts";
import { bytesWithTrailer } from "../../../src/adapter/object_trailer.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { EvictionController } from "../../../src/eviction/eviction_controller.ts";
import type { AdapterEvictionStatus } from "../../../src/eviction/adapter_evictor.ts";
import { QuotaRegistry } from "../../../src/eviction/quota_registry.ts";
import { mapAdapter } from "../../support/adapters.ts";
import { writeObjects } from "../../support/l1.ts";
import { testKey, testKeys, testLayout } from "../../support/objects.ts";
import { gate, RecordingAdapter } from "../../support/recording_adapter.ts";
import { runs } from "../../support/runs.ts";
import { emptyObject, sealedObject } from "../../support/sealed_objects.ts";

const LAYOUT = testLayout(1024);
/** Bytes of an object in L1 and in an adapter. */
const SIZE = 1024;
const SEALED = bytesWithTrailer(testKey(0), LAYOUT);

interface SetUp extends Disposable {
  readonly clock: ManualClock;
  readonly l1: L1Cache;
  readonly quotas: QuotaRegistry;
  readonly eviction: EvictionController;
  /** Keys that must not be evicted from adapters. */
  readonly safe: Set<string>;
}

function setUp(
  { l1Watermark, l1Objects = 16 }: {
    l1Watermark?: { high: number; low: number };
    l1Objects?: number;
  } = {},
): SetUp {
  const clock = new ManualClock();
  const quotas = new QuotaRegistry();
  const l1 = new L1Cache({
    device: new HostDevice(),
    clock,
    capacityBytes: l1Objects * SIZE,
    policy: new LruPolicy(),
    quotaOf: (salt) => quotas.effective(salt).l1Bytes,
  });
  const safe = new Set<string>();
  const eviction = new EvictionController({
    l1,
    quotas,
    clock,
    isPinned: ({ id }) => safe.has(id),
    ...(l1Watermark === undefined ? {} : { l1Watermark }),
  });
  return {
    clock,
    l1,
    quotas,
    eviction,
    safe,
    [Symbol.dispose]() {
      eviction[Symbol.dispose]();
      l1[Symbol.dispose]();
      assertEquals(clock.pendingTimers, 0, "timers");
    },
  };
}

/** An adapter that has been listed already, with room for `high` objects. */
async function setUpBounded(
  high: number,
  low: number,
): Promise<SetUp & { adapter: RecordingAdapter; guard: AdapterGuard }> {
  const t = setUp();
  const adapter = new RecordingAdapter();
  const guard = guardOf(adapter, t.clock);
  t.eviction.attach(guard, room(high, low));
  await t.eviction.idle();
  return { ...t, adapter, guard };
}

function guardOf(adapter: L2Adapter, clock: ManualClock, id = 0): AdapterGuard {
  return new AdapterGuard(adapter, { id, type: "test", clock, timeouts: DEFAULT_ADAPTER_TIMEOUTS });
}

/** An adapter without optional methods, or with other capabilities. */
function limited(
  adapter: RecordingAdapter,
  lacks: { list?: true; delete?: true; capabilities?: L2Adapter["capabilities"] },
): L2Adapter {
  return {
    capabilities: lacks.capabilities ?? {},
    store: (objects, options) => adapter.store(objects, options),
    lookupAndLock: (keys, options) => adapter.lookupAndLock(keys, options),
    unlock: (keys) => adapter.unlock(keys),
    load: (objects, options) => adapter.load(objects, options),
    ...(lacks.delete ? {} : { delete: (keys, options) => adapter.delete(keys, options) }),
    ...(lacks.list ? {} : { list: (options) => adapter.list(options) }),
    [Symbol.asyncDispose]: () => adapter[Symbol.asyncDispose](),
  };
}

/** Limits that allow `high` objects and evict down to `low`. */
function room(high: number, low: number): AdapterEviction {
  const objects = 100;
  return {
    capacityBytes: objects * SEALED,
    highWatermark: high / objects,
    lowWatermark: low / objects,
  };
}

async function store(guard: AdapterGuard, keys: readonly ObjectKey[]): Promise<void> {
  const { done } = await guard.store(keys.map((key) => sealedObject(key, LAYOUT)));
  assertEquals(done.popcount(), keys.length, "stored");
}

async function load(guard: AdapterGuard, keys: readonly ObjectKey[]): Promise<void> {
  const { done: found } = await guard.lookup(keys, { prefix: false });
  const { done } = await guard.load(found.gather(keys).map((key) => emptyObject(key, LAYOUT)));
  assertEquals(done.popcount(), keys.length, "loaded");
}

function status(t: SetUp, index = 0): AdapterEvictionStatus {
  const found = t.eviction.reportStatus().adapters[index];
  assert(found !== undefined);
  return found;
}

/** The numbers of the chunks that are in an adapter. */
function held(adapter: RecordingAdapter, keys: readonly ObjectKey[]): number[] {
  return keys.flatMap((key, i) => adapter.held.has(key.id) ? [i] : []);
}

function saltKeys(cacheSalt: string, count: number): ObjectKey[] {
  return Array.from({ length: count }, (_, n) => testKey(n, { cacheSalt }));
}

Deno.test("EvictionController keeps L1 below its watermark", () => {
  using t = setUp({ l1Watermark: { high: 0.75, low: 0.5 } });
  const keys = testKeys(16);

  writeObjects(t.l1, keys.slice(0, 12), LAYOUT);
  assertEquals(t.l1.usedBytes, 12 * SIZE, "at the mark");
  writeObjects(t.l1, keys.slice(12, 13), LAYOUT);

  assertEquals(t.l1.usedBytes, 8 * SIZE);
  assertEquals(t.eviction.reportStatus().l1EvictedBytes, 5 * SIZE);
  assert(t.l1.has(keys[0] as ObjectKey), "the head of the prefix stays");
  assert(!t.l1.has(keys[11] as ObjectKey), "its tail leaves first");
});

Deno.test("EvictionController leaves L1 alone without a watermark, and after its end", () => {
  using t = setUp();
  writeObjects(t.l1, testKeys(16), LAYOUT);
  assertEquals(t.l1.usedBytes, 16 * SIZE);

  using u = setUp({ l1Watermark: { high: 0.5, low: 0.5 } });
  u.eviction[Symbol.dispose]();
  writeObjects(u.l1, testKeys(16), LAYOUT);
  assertEquals(u.l1.usedBytes, 16 * SIZE);
});

Deno.test("EvictionController shrinks a salt in L1 when its quota is lowered", () => {
  using t = setUp();
  const [a, b] = [saltKeys("a", 6), saltKeys("b", 6)];
  writeObjects(t.l1, a, LAYOUT);
  writeObjects(t.l1, b, LAYOUT);

  t.quotas.set("a", { l1Bytes: 2 * SIZE });
  assertEquals([t.l1.usedBytesOf("a"), t.l1.usedBytesOf("b")], [2 * SIZE, 6 * SIZE]);

  t.quotas.setDefault({ l1Bytes: 3 * SIZE });
  assertEquals([t.l1.usedBytesOf("a"), t.l1.usedBytesOf("b")], [2 * SIZE, 3 * SIZE]);
  assertEquals(t.eviction.reportStatus().l1EvictedBytes, 7 * SIZE);

  t.eviction[Symbol.dispose]();
  t.quotas.set("a", { l1Bytes: 0 });
  assertEquals(t.l1.usedBytesOf("a"), 2 * SIZE, "after the end");
});

Deno.test("EvictionController refuses bounds that cannot work", () => {
  using t = setUp();
  const guard = guardOf(new RecordingAdapter(), t.clock);
  assertThrows(() => t.eviction.attach(guard, { capacityBytes: -1 }), RangeError, "received -1");
  assertThrows(() => t.eviction.attach(guard, { capacityBytes: NaN }), RangeError, "received NaN");
  assertThrows(() => t.eviction.attach(guard, { highWatermark: 1.1 }), RangeError, "high 1.1");
  assertThrows(() => t.eviction.attach(guard, { lowWatermark: 0.9 }), RangeError, "low 0.9");
  assertThrows(() => setUp({ l1Watermark: { high: 2, low: 1 } }), RangeError, "high 2");
  assertEquals(t.eviction.reportStatus().adapters, []);
});

Deno.test("EvictionController keeps an adapter between its watermarks", async () => {
  using t = await setUpBounded(8, 4);
  const { adapter, guard } = t;
  const keys = testKeys(9);

  for (const key of keys.slice(0, 8)) await store(guard, [key]);
  await t.eviction.idle();
  assertEquals(adapter.deletes, [], "at the mark");
  await load(guard, keys.slice(0, 1));
  await store(guard, keys.slice(8));
  await t.eviction.idle();

  assertEquals(held(adapter, keys), [0, 6, 7, 8]);
  assertEquals(status(t), {
    id: 0,
    trackedObjects: 4,
    trackedBytes: 4 * SEALED,
    evictedObjects: 5,
    evictedBytes: 5 * SEALED,
    failedEvictions: 0,
    droppedObjects: 0,
    isSeeding: false,
  });
});

Deno.test("EvictionController evicts the tail of a prefix first", async () => {
  using t = setUp();
  const adapter = new RecordingAdapter();
  const guard = guardOf(adapter, t.clock);
  t.eviction.attach(guard, room(8, 4));
  const keys = testKeys(9);

  await store(guard, keys);
  await t.eviction.idle();

  assertEquals(held(adapter, keys), [0, 1, 2, 3]);
});

Deno.test("EvictionController counts an object once, however often it is stored", async () => {
  using t = setUp();
  const adapter = new RecordingAdapter();
  const guard = guardOf(adapter, t.clock);
  t.eviction.attach(guard, room(4, 2));

  for (let round = 0; round < 3; round++) await store(guard, testKeys(4));
  await t.eviction.idle();

  assertEquals(adapter.deletes, []);
  assertEquals(status(t).trackedBytes, 4 * SEALED);
});

Deno.test("EvictionController no longer counts what another process deleted", async () => {
  using t = setUp();
  const adapter = new RecordingAdapter();
  const guard = guardOf(adapter, t.clock);
  t.eviction.attach(guard, room(4, 2));
  const keys = testKeys(5);
  await store(guard, keys.slice(0, 4));

  await guard.delete(keys.slice(0, 1));
  await store(guard, keys.slice(4));
  await t.eviction.idle();

  assertEquals(held(adapter, keys), [1, 2, 3, 4]);
  assertEquals(status(t).evictedObjects, 0);
});

Deno.test("EvictionController learns what an adapter held before, as its oldest", async () => {
  using t = setUp();
  const adapter = new RecordingAdapter();
  const old = testKeys(4);
  const recent = testKeys(3, 4);
  adapter.seed(old, LAYOUT);
  const guard = guardOf(adapter, t.clock);
  t.eviction.attach(guard, room(6, 4));
  assertEquals(status(t).isSeeding, true);

  // Used and stored before they are listed.
  const used = Promise.all([load(guard, old.slice(0, 1)), store(guard, recent)]);
  await used;
  await t.eviction.idle();

  assertEquals(status(t).isSeeding, false);
  assertEquals(held(adapter, old), [0], "what was used since");
  assertEquals(held(adapter, recent), [0, 1, 2]);
  assertEquals(status(t).trackedBytes, 4 * SEALED);
});

Deno.test("EvictionController knows as used what was used before it was listed", async () => {
  using t = setUp();
  const listing = gate();
  class SlowList extends RecordingAdapter {
    override async *list(...options: Parameters<RecordingAdapter["list"]>) {
      await listing.promise;
      yield* super.list(...options);
    }
  }
  const adapter = new SlowList();
  const keys = testKeys(7);
  adapter.seed(keys, LAYOUT);
  const guard = guardOf(adapter, t.clock);
  t.eviction.attach(guard, room(6, 2));

  await load(guard, keys.slice(3, 5));
  assertEquals(status(t).trackedObjects, 0);
  listing.open();
  await t.eviction.idle();

  assertEquals(held(adapter, keys), [3, 4]);
});

Deno.test("EvictionController lists again later if that failed", async () => {
  using t = setUp();
  class BadList extends RecordingAdapter {
    lists = 0;
    override async *list(...options: Parameters<RecordingAdapter["list"]>) {
      let yielded = 0;
      this.lists++;
      for await (const object of super.list(...options)) {
        if (this.lists <= 2 && yielded++ === 2) throw new Error("no more");
        yield object;
      }
    }
  }
  const adapter = new BadList();
  adapter.seed(testKeys(8), LAYOUT);
  const guard = guardOf(adapter, t.clock);
  t.eviction.attach(guard, room(6, 4));
  await t.eviction.idle();
  assertEquals([adapter.lists, status(t).isSeeding, status(t).trackedObjects], [1, true, 2]);

  await t.clock.advance(1_000);
  assertEquals(adapter.lists, 2);
  await t.clock.advance(1_999);
  assertEquals(adapter.lists, 2, "each time later");
  await t.clock.advance(1);
  await t.eviction.idle();

  assertEquals([adapter.lists, status(t).isSeeding, adapter.held.size], [3, false, 4]);
});

Deno.test("EvictionController bounds an adapter that cannot list by what it saw", async () => {
  using t = setUp();
  const adapter = new RecordingAdapter();
  adapter.seed(testKeys(3, 10), LAYOUT);
  const guard = guardOf(limited(adapter, { list: true }), t.clock);
  t.eviction.attach(guard, room(4, 2));
  await load(guard, testKeys(3, 10));
  await store(guard, testKeys(5));
  await t.eviction.idle();
  assertEquals(adapter.held.size, 3 + 2);
  assertEquals(status(t).isSeeding, false);
});

Deno.test("EvictionController keeps no book of an adapter that nothing bounds", async () => {
  using t = setUp();
  const adapter = new RecordingAdapter();
  const guards = [
    guardOf(adapter, t.clock, 0),
    guardOf(limited(adapter, { capabilities: { evicts: true } }), t.clock, 1),
    guardOf(limited(adapter, { delete: true }), t.clock, 2),
  ];
  t.eviction.attach(guards[0] as AdapterGuard, { highWatermark: 0.5, lowWatermark: 0.1 });
  t.eviction.attach(guards[1] as AdapterGuard, room(1, 1));
  t.eviction.attach(guards[2] as AdapterGuard, room(1, 1));
  for (const guard of guards) await store(guard, testKeys(4));
  await t.eviction.idle();

  assertEquals(adapter.deletes, []);
  for (const i of [0, 1, 2]) {
    assertEquals([status(t, i).id, status(t, i).trackedObjects], [i, 0]);
  }
});

Deno.test("EvictionController keeps salts within their quotas, by their own objects", async () => {
  using t = setUp();
  const adapter = new RecordingAdapter();
  const guard = guardOf(adapter, t.clock);
  t.eviction.attach(guard);
  t.quotas.set("a", { l2Bytes: 2 * SEALED });
  const [a, b] = [saltKeys("a", 5), saltKeys("b", 5)];

  await store(guard, b);
  for (const key of a) await store(guard, [key]);
  await t.eviction.idle();

  assertEquals(held(adapter, a), [3, 4]);
  assertEquals(held(adapter, b), [0, 1, 2, 3, 4]);
});

Deno.test("EvictionController keeps a book as long as there are quotas", async () => {
  using t = setUp();
  const adapter = new RecordingAdapter();
  const guard = guardOf(limited(adapter, { capabilities: { evicts: true } }), t.clock);
  t.eviction.attach(guard, room(1, 1));
  const a = saltKeys("a", 5);
  await store(guard, a);

  t.quotas.setDefault({ l2Bytes: 3 * SEALED });
  await t.eviction.idle();
  assertEquals([adapter.held.size, status(t).trackedObjects], [3, 3], "those it had before");

  t.quotas.set("a", { l2Bytes: SEALED });
  await t.eviction.idle();
  assertEquals([adapter.held.size, status(t).trackedObjects], [1, 1]);

  t.quotas.delete("a");
  t.quotas.setDefault({});
  assertEquals(status(t).trackedObjects, 0);
  await store(guard, a);
  await t.eviction.idle();
  assertEquals(adapter.held.size, 5);
});

Deno.test("EvictionController never evicts what is protected", async () => {
  using t = setUp();
  const adapter = new RecordingAdapter();
  const guard = guardOf(adapter, t.clock);
  t.eviction.attach(guard, room(4, 2));
  const a = saltKeys("a", 8);
  for (const { id } of a.slice(0, 6)) t.safe.add(id);
  t.quotas.set("a", { l2Bytes: 2 * SEALED });

  for (const key of a) await store(guard, [key]);
  await t.eviction.idle();

  assertEquals(held(adapter, a), [0, 1, 2, 3, 4, 5]);
  assertEquals(status(t).failedEvictions, 0);
});

Deno.test("EvictionController passes over what is in use, and comes back to it", async () => {
  using t = setUp();
  const adapter = new RecordingAdapter();
  const guard = guardOf(adapter, t.clock);
  t.eviction.attach(guard, room(4, 2));
  const keys = testKeys(12);
  await store(guard, keys.slice(0, 1));
  await guard.lookup(keys.slice(0, 1), { prefix: false });

  for (const key of keys.slice(1, 5)) await store(guard, [key]);
  await t.eviction.idle();
  assertEquals(held(adapter, keys), [0, 4], "others leave instead");
  assertEquals([status(t).failedEvictions, status(t).trackedObjects], [1, 2]);
  assertEquals(guard.lockedKeys, 1, "only the lock of the reader");

  guard.unlock(keys.slice(0, 1));
  for (const key of keys.slice(5, 8)) await store(guard, [key]);
  await t.eviction.idle();
  assertEquals(held(adapter, keys), [6, 7], "in its turn");
});

Deno.test("EvictionController tries others before what could not leave last time", async () => {
  using t = setUp();
  const adapter = new RecordingAdapter();
  const guard = guardOf(adapter, t.clock);
  t.eviction.attach(guard, room(4, 3));
  const keys = testKeys(7);
  await store(guard, keys.slice(0, 1));
  await guard.lookup(keys.slice(0, 1), { prefix: false });

  for (const key of keys.slice(1)) {
    await store(guard, [key]);
    await t.eviction.idle();
  }

  const numbers = adapter.deletes.map((ids) => ids.map((id) => keys.findIndex((k) => k.id === id)));
  assertEquals(numbers, [[0, 1], [2], [3, 4]]);
});

Deno.test("EvictionController tries what a quota forbids again at the next occasion", async () => {
  using t = setUp();
  const adapter = new RecordingAdapter();
  const guard = guardOf(adapter, t.clock);
  t.eviction.attach(guard);
  const a = saltKeys("a", 2);
  await store(guard, a);
  await guard.lookup(a, { prefix: false });
  t.quotas.set("a", { l2Bytes: 0 });
  await t.eviction.idle();
  assertEquals(held(adapter, a), [0, 1]);

  guard.unlock(a);
  await store(guard, saltKeys("b", 1));
  await t.eviction.idle();

  assertEquals(held(adapter, a), []);
});

Deno.test("EvictionController no longer counts what is not there", async () => {
  using t = setUp();
  const adapter = new RecordingAdapter();
  const guard = guardOf(adapter, t.clock);
  t.eviction.attach(guard, room(4, 2));
  const keys = testKeys(5);
  await store(guard, keys.slice(0, 4));
  // Another process that shares the adapter removes them.
  for (const { id } of keys.slice(2, 4)) adapter.held.delete(id);

  await store(guard, keys.slice(4));
  await t.eviction.idle();

  const { trackedObjects, failedEvictions } = status(t);
  assertEquals([trackedObjects, failedEvictions], [2, 0]);
  assertEquals(adapter.held.size, 2);
});

Deno.test("EvictionController counts what is stored while it is being removed", async () => {
  using t = await setUpBounded(2, 1);
  const { adapter, guard } = t;
  const keys = testKeys(3);
  const removing = gate();
  adapter.beforeDelete = () => removing.promise;
  await store(guard, keys);
  await store(guard, keys.slice(2));
  assertEquals(adapter.deletes.length, 1);

  removing.open();
  await t.eviction.idle();

  assertEquals(held(adapter, keys), [0], "the store was before the removal");
  assertEquals(status(t).trackedObjects, 1);
});

Deno.test("EvictionController counts what is stored after it was removed", async () => {
  using t = setUp();
  const adapter = new RecordingAdapter();
  const answering = gate();
  const slow: L2Adapter = {
    ...limited(adapter, {}),
    async delete(keys, options) {
      const result = await adapter.delete(keys, options);
      await answering.promise;
      return result;
    },
  };
  const guard = guardOf(slow, t.clock);
  t.eviction.attach(guard, room(2, 1));
  await t.eviction.idle();
  const keys = testKeys(3);
  await store(guard, keys);
  await store(guard, keys.slice(2));

  answering.open();
  await t.eviction.idle();

  assertEquals(held(adapter, keys), [2], "the latest stays");
  assertEquals(status(t).trackedObjects, 1);
});

Deno.test("EvictionController waits for a failing adapter, each time longer", async () => {
  using t = await setUpBounded(4, 2);
  const { adapter, guard } = t;
  const keys = testKeys(6);
  let isBroken = true;
  adapter.beforeDelete = () => {
    if (isBroken) throw new Error("read-only");
  };

  for (const key of keys.slice(0, 5)) await store(guard, [key]);
  await t.eviction.idle();
  assertEquals(adapter.deletes.length, 1);
  await store(guard, keys.slice(5));
  await t.eviction.idle();
  assertEquals(adapter.deletes.length, 1, "paused for a while");
  await t.clock.advance(1_000);
  assertEquals(adapter.deletes.length, 2);
  await t.clock.advance(1_999);
  assertEquals(adapter.deletes.length, 2);
  await t.clock.advance(1);
  assertEquals(adapter.deletes.length, 3, "the circuit opens");
  await t.clock.advance(4_000);
  assertEquals(adapter.deletes.length, 3, "the guard does not ask");
  assertEquals(t.clock.pendingTimers, 1);

  isBroken = false;
  await t.clock.advance(60_000);
  await t.eviction.idle();
  assertEquals(held(adapter, keys), [4, 5], "in the order of their use");
  assertEquals(status(t).failedEvictions > 0, true);
  assertEquals(t.clock.pendingTimers, 0);
});

Deno.test("EvictionController takes an answer of a broken adapter for no knowledge", async () => {
  using t = await setUpBounded(4, 2);
  const { adapter, guard } = t;
  const keys = testKeys(5);
  await store(guard, keys.slice(0, 4));
  await guard.lookup(keys.slice(3, 4), { prefix: false });
  adapter.beforeLookup = () => {
    throw new Error("no answer");
  };

  await store(guard, keys.slice(4));
  await t.eviction.idle();

  // Whether the locked one exists is unknown: it stays in the index.
  assertEquals(status(t).trackedBytes, adapter.held.size * SEALED);
});

Deno.test("EvictionController does not let a slow adapter delay another", async () => {
  using t = setUp();
  const adapters = [new RecordingAdapter(), new RecordingAdapter()];
  const guards = adapters.map((adapter, id) => guardOf(adapter, t.clock, id));
  const removing = gate();
  (adapters[0] as RecordingAdapter).beforeDelete = () => removing.promise;
  for (const guard of guards) t.eviction.attach(guard, room(4, 2));
  const keys = testKeys(5);

  for (const guard of guards) await store(guard, keys);
  await t.clock.advance(0);
  assertEquals(adapters.map((adapter) => adapter.held.size), [5, 2]);

  removing.open();
  await t.eviction.idle();
  assertEquals(adapters.map((adapter) => adapter.held.size), [2, 2]);
});

Deno.test("EvictionController removes many objects in batches", async () => {
  using t = setUp();
  const adapter = new RecordingAdapter();
  const guard = guardOf(adapter, t.clock);
  const keys = testKeys(600);
  adapter.seed(keys, LAYOUT);
  t.quotas.setDefault({ l2Bytes: 10 * SEALED });
  t.eviction.attach(guard);
  await t.eviction.idle();

  assertEquals(adapter.deletes.map((ids) => ids.length), [256, 256, 78]);
  assertEquals(adapter.held.size, 10);
});

Deno.test("EvictionController.detach() ends everything that it does to an adapter", async () => {
  using t = await setUpBounded(4, 2);
  const { adapter, guard } = t;
  const removing = gate();
  adapter.beforeDelete = () => removing.promise;
  await store(guard, testKeys(400));
  assertEquals(adapter.deletes.map((ids) => ids.length), [256]);

  t.eviction.detach(guard);
  removing.open();
  await t.eviction.idle();
  await store(guard, testKeys(400));
  await t.eviction.idle();

  assertEquals(adapter.deletes.length, 1);
  assertEquals(t.eviction.reportStatus().adapters, []);
});

Deno.test("EvictionController no longer listens to an adapter that it left", async () => {
  using t = setUp();
  const guard = guardOf(new RecordingAdapter(), t.clock);
  let listeners = 0;
  const add = guard.addListener.bind(guard);
  guard.addListener = (listener) => {
    const remove = add(listener);
    listeners++;
    return () => {
      listeners--;
      remove();
    };
  };
  t.eviction.attach(guard, room(4, 2));
  t.eviction.attach(guard, room(8, 4));
  assertEquals(listeners, 1);
  t.eviction.detach(guard);
  assertEquals(listeners, 0);
  await t.eviction.idle();
});

Deno.test("EvictionController does not try again what it left while that failed", async () => {
  using t = await setUpBounded(4, 2);
  const { adapter, guard } = t;
  const removing = gate();
  adapter.beforeDelete = async () => {
    await removing.promise;
    throw new Error("read-only");
  };
  await store(guard, testKeys(5));
  t.eviction.detach(guard);
  removing.open();
  await t.eviction.idle();
  assertEquals(t.clock.pendingTimers, 0);
});

Deno.test("EvictionController ends with a retry pending and a listing under way", async () => {
  using t = setUp();
  const [broken, stuck] = [new RecordingAdapter(), new RecordingAdapter()];
  broken.beforeDelete = () => {
    throw new Error("read-only");
  };
  const listing = gate();
  const list = stuck.list.bind(stuck);
  stuck.list = async function* (options) {
    await listing.promise;
    yield* list(options);
  };
  const guards = [broken, stuck].map((adapter, id) => guardOf(adapter, t.clock, id));
  for (const guard of guards) t.eviction.attach(guard, room(4, 2));
  await store(guards[0] as AdapterGuard, testKeys(5));
  await t.clock.advance(0);
  assertEquals(t.clock.pendingTimers, 2);

  t.eviction[Symbol.dispose]();
  await t.eviction.idle();

  assertEquals(t.clock.pendingTimers, 1, "the deadline of the call that is stuck");
  listing.open();
  await t.clock.advance(0);
});

Deno.test("EvictionController bounds the salts of an adapter that bounds itself", async () => {
  using t = setUp();
  const adapter = await mock.create({ max_size_gb: 1, mock_bandwidth_gb: 1 }, {
    clock: t.clock,
    signal: new AbortController().signal,
    l1Memory: { type: "host", maxObjectBytes: 4096, alignmentBytes: 256 },
    onError: () => {},
  });
  const guard = guardOf(adapter, t.clock);
  t.quotas.setDefault({ l2Bytes: 2 * SEALED });
  t.eviction.attach(guard, room(1, 1));

  const stored = store(guard, [...saltKeys("a", 4), ...saltKeys("b", 2)]);
  await t.clock.advance(1);
  await stored;
  await t.eviction.idle();

  const usage = await guard.usage();
  assertEquals(usage?.objectCount, 4);
  assertEquals(status(t).evictedBytes, 2 * SEALED);
  await guard.close();
});

/** Steps of a random run, by chunk numbers. */
type Action =
  | { readonly kind: "store" | "load" | "delete"; readonly chunks: readonly number[] }
  | { readonly kind: "pin"; readonly chunks: readonly number[] }
  | { readonly kind: "quota"; readonly salt: string; readonly objects: number | undefined };

const SALTS = ["a", "b", "c"];
const CHUNKS = 24;

const actions: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant("store" as const), chunks: someChunks() }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("load" as const), chunks: someChunks() }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("delete" as const), chunks: someChunks() }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("pin" as const), chunks: someChunks() }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("quota" as const),
      salt: fc.constantFrom(...SALTS),
      objects: fc.option(fc.integer({ min: 0, max: 5 }), { nil: undefined }),
    }),
  },
);

function someChunks(): fc.Arbitrary<number[]> {
  return fc.uniqueArray(fc.integer({ min: 0, max: CHUNKS - 1 }), { minLength: 1, maxLength: 6 });
}

Deno.test("EvictionController removes what the plainest model removes", async () => {
  const all = Array.from(
    { length: CHUNKS },
    (_, n) => testKey(n, { cacheSalt: SALTS[n % SALTS.length] as string }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(actions, { maxLength: 30 }), async (steps) => {
      using t = setUp();
      const adapter = new RecordingAdapter();
      const guard = guardOf(adapter, t.clock);
      t.eviction.attach(guard, room(12, 6));
      await t.eviction.idle();
      let order: number[] = [];
      let safe: readonly number[] = [];
      const quotas = new Map<string, number>();
      const renew = (chunks: readonly number[]): void => {
        order = [...order.filter((n) => !chunks.includes(n)), ...chunks.toReversed()];
      };
      const shrink = (isOf: (n: number) => boolean, limit: number): void => {
        for (const n of order.filter(isOf)) {
          if (order.filter(isOf).length <= limit) return;
          if (!safe.includes(n)) order = order.filter((other) => other !== n);
        }
      };
      for (const step of steps) {
        const wanted = "chunks" in step ? step.chunks : [];
        const chunks = step.kind === "load" || step.kind === "delete"
          ? wanted.filter((n) => order.includes(n))
          : wanted;
        const keys = chunks.map((n) => all[n] as ObjectKey);
        if (step.kind === "store") await store(guard, keys);
        if (step.kind === "load") await load(guard, keys);
        if (step.kind === "delete") await guard.delete(keys);
        if (step.kind === "pin") {
          // They stay pinned: passing over a pinned object counts as a use of it.
          for (const { id } of keys) t.safe.add(id);
          safe = [...safe, ...chunks];
          continue;
        }
        if (step.kind === "quota") {
          const { salt, objects } = step;
          t.quotas.set(salt, objects === undefined ? {} : { l2Bytes: objects * SEALED });
          quotas.set(salt, objects ?? Infinity);
        }
        await t.eviction.idle();

        if (step.kind === "store" || step.kind === "load") renew(chunks);
        if (step.kind === "delete") order = order.filter((n) => !chunks.includes(n));
        const isFull = order.length > 12;
        const touched = step.kind === "quota"
          ? [SALTS.indexOf(step.salt)]
          : step.kind === "store"
          ? chunks.map((n) => n % SALTS.length)
          : [];
        for (const s of new Set(touched)) {
          shrink((n) => n % SALTS.length === s, quotas.get(SALTS[s] as string) ?? Infinity);
        }
        if (isFull && (step.kind === "store" || step.kind === "quota")) shrink(() => true, 6);
        assertEquals(held(adapter, all), order.toSorted((x, y) => x - y));
        assertEquals(status(t).trackedBytes, order.length * SEALED);
      }
    }),
    runs(200),
  );
});

Deno.test("EvictionController passes over so many pinned objects at a time", async () => {
  const many = 5_000;
  const held = new Map<string, Uint8Array<ArrayBuffer>>();
  const clock = new ManualClock();
  let looks = 0;
  let areAllPinned = true;
  const quotas = new QuotaRegistry();
  const l1 = new L1Cache({
    device: new HostDevice(),
    clock,
    capacityBytes: SIZE,
    policy: new LruPolicy(),
    quotaOf: () => undefined,
  });
  const last = testKey(many - 1);
  using eviction = new EvictionController({
    l1,
    quotas,
    clock,
    isPinned: ({ id }) => {
      looks++;
      return areAllPinned || id !== last.id;
    },
  });
  const adapter: L2Adapter = {
    ...mapAdapter(held),
    async *list() {
      for (const key of testKeys(many)) yield { key, byteLength: SEALED };
    },
    delete: (keys) =>
      Promise.resolve({ deleted: new Bitmap(keys.length, keys.length), bytes: SEALED }),
  };
  eviction.attach(guardOf(adapter, clock), room(10, 5));
  await turns();
  assertEquals(looks, 1024, "the engine has a turn before the next ones");
  // Every object is visited once, and then none until the retry.
  for (let i = 0; i < 10; i++) {
    await clock.advance(1);
    await turns();
  }
  assert(looks <= many + 1024, `${looks}`);
  assertEquals(eviction.reportStatus().adapters[0]?.evictedObjects, 0);
  areAllPinned = false;
  for (let i = 0; i < 10; i++) {
    await clock.advance(1_000);
    await turns();
  }
  assertEquals(eviction.reportStatus().adapters[0]?.evictedObjects, 1);
  l1[Symbol.dispose]();
});

async function turns(): Promise<void> {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setTimeout(resolve, 0));
}
