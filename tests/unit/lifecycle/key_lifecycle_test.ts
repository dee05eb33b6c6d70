import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import { Bitmap } from "../../../src/keys/bitmap.ts";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import { L1Cache } from "../../../src/l1/l1_cache.ts";
import { LruPolicy } from "../../../src/policies/eviction_policy.ts";
import type { L2Adapter } from "../../../src/adapter/contract.ts";
import type { AdapterGuard } from "../../../src/l2/adapter_guard.ts";
import { DEFAULT_ADAPTER_TIMEOUTS } from "../../../src/l2/adapter_status.ts";
import { bytesWithTrailer } from "../../../src/adapter/object_trailer.ts";
import { ForgetBarrier, type ForgetWriter } from "../../../src/lifecycle/forget_barrier.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import {
  type ForgetReport,
  type ForgetSelector,
  KeyLifecycle,
} from "../../../src/lifecycle/key_lifecycle.ts";
import { stage, writeObjects } from "../../support/l1.ts";
import { testKey, testKeys, testLayout } from "../../support/objects.ts";
import { gate, guardAll, RecordingAdapter } from "../../support/recording_adapter.ts";
import { runs } from "../../support/runs.ts";
import { sealedObject } from "../../support/sealed_objects.ts";

const LAYOUT = testLayout(1024);
/** Bytes of an object in L1 and in an adapter. */
const SIZE = 1024;
const SEALED = bytesWithTrailer(testKey(0), LAYOUT);

interface SetUp extends Disposable {
  readonly clock: ManualClock;
  readonly l1: L1Cache;
  readonly guards: readonly AdapterGuard[];
  readonly barrier: ForgetBarrier;
  readonly lifecycle: KeyLifecycle;
}

function setUp(
  adapters: readonly L2Adapter[] = [],
  settle?: ForgetWriter["settle"],
): SetUp {
  const clock = new ManualClock();
  const l1 = new L1Cache({
    device: new HostDevice(),
    clock,
    capacityBytes: 16 * SIZE,
    policy: new LruPolicy(),
  });
  const guards = guardAll(adapters, clock);
  const barrier = new ForgetBarrier();
  if (settle !== undefined) barrier.addWriter({ settle });
  const lifecycle = new KeyLifecycle({ l1, clock, adapters: () => guards, barrier });
  return {
    clock,
    l1,
    guards,
    barrier,
    lifecycle,
    [Symbol.dispose]() {
      lifecycle[Symbol.dispose]();
      l1[Symbol.dispose]();
      assertEquals(clock.pendingTimers, 0, "timers");
    },
  };
}

function saltKeys(cacheSalt: string, count: number): ObjectKey[] {
  return Array.from({ length: count }, (_, n) => testKey(n, { cacheSalt }));
}

function modelKeys(model: string, count: number): ObjectKey[] {
  return Array.from({ length: count }, (_, n) => testKey(n, { model }));
}

/** An adapter without optional methods. */
function limited(adapter: RecordingAdapter, lacks: { list?: true; delete?: true }): L2Adapter {
  return {
    capabilities: {},
    store: (objects, options) => adapter.store(objects, options),
    lookupAndLock: (keys, options) => adapter.lookupAndLock(keys, options),
    unlock: (keys) => adapter.unlock(keys),
    load: (objects, options) => adapter.load(objects, options),
    ...(lacks.delete ? {} : { delete: (keys, options) => adapter.delete(keys, options) }),
    ...(lacks.list ? {} : { list: (options) => adapter.list(options) }),
    [Symbol.asyncDispose]: () => adapter[Symbol.asyncDispose](),
  };
}

function residents(l1: L1Cache, keys: readonly ObjectKey[]): number[] {
  return keys.flatMap((key, i) => l1.has(key) ? [i] : []);
}

/** Advances the clock once pending work waits for it. */
async function advance(clock: ManualClock, ms: number): Promise<void> {
  await clock.advance(0);
  await clock.advance(ms);
}

/** Asserts that an adapter reports a problem and what to do about it. */
function assertProblem({ adapters }: ForgetReport, ...words: string[]): void {
  const [adapter] = adapters;
  assertEquals(adapter?.complete, false);
  for (const word of words) assertStringIncludes(adapter?.problem ?? "", word);
}

// pin()

Deno.test("KeyLifecycle.pin() keeps objects from eviction until unpin()", () => {
  using t = setUp();
  const keys = testKeys(16);
  writeObjects(t.l1, keys.slice(0, 8), LAYOUT);

  t.l1.pin(keys.slice(6, 10));
  assertEquals(keys.map((key) => t.l1.pinned.has(key.id)).indexOf(true), 6);
  assertEquals(t.lifecycle.reportStatus().pinned, 4);
  t.l1.evictTo(0);
  assertEquals(residents(t.l1, keys), [6, 7]);
  writeObjects(t.l1, keys.slice(9, 11), LAYOUT);
  t.l1.evictTo(0);
  assertEquals(residents(t.l1, keys), [6, 7, 9], "what comes later");

  t.l1.unpin(keys.slice(6, 10));
  t.l1.unpin(keys);
  assertEquals(keys.some((key) => t.l1.pinned.has(key.id)), false);
  assertEquals(t.lifecycle.reportStatus().pinned, 0);
  t.l1.evictTo(0);
  assertEquals(residents(t.l1, keys), []);
});

// ttl()

Deno.test("KeyLifecycle.ttl() removes objects from every tier in their time", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp([adapter]);
  const keys = testKeys(4);
  writeObjects(t.l1, keys, LAYOUT);
  adapter.seed(keys, LAYOUT);

  t.lifecycle.ttl(keys.slice(0, 2), 1_000);
  t.lifecycle.ttl(keys.slice(2, 3), 2_000);
  assertEquals(t.clock.pendingTimers, 1, "one timer at a time");
  await t.clock.advance(999);
  assertEquals([residents(t.l1, keys).length, adapter.held.size], [4, 4]);
  await t.clock.advance(1);
  assertEquals([residents(t.l1, keys), adapter.held.size], [[2, 3], 2]);
  await t.clock.advance(1_000);
  assertEquals([residents(t.l1, keys), adapter.held.size], [[3], 1]);
  assertEquals(t.clock.pendingTimers, 0);
  assertEquals(t.lifecycle.reportStatus(), { pinned: 0, expiring: 0, forgetting: 0 });
});

Deno.test("KeyLifecycle.ttl() is replaced by a later one, and null takes it back", async () => {
  using t = setUp();
  const keys = testKeys(4);
  writeObjects(t.l1, keys, LAYOUT);

  t.lifecycle.ttl(keys, 1_000);
  t.lifecycle.ttl(keys.slice(0, 1), 5_000);
  t.lifecycle.ttl(keys.slice(1, 2), 10);
  t.lifecycle.ttl(keys.slice(2, 3), null);
  assertEquals(t.lifecycle.reportStatus().expiring, 3);
  await t.clock.advance(10);
  assertEquals(residents(t.l1, keys), [0, 2, 3]);
  await t.clock.advance(990);
  assertEquals(residents(t.l1, keys), [0, 2]);
  await t.clock.advance(4_000);
  assertEquals(residents(t.l1, keys), [2]);

  t.lifecycle.ttl(keys, 1);
  t.lifecycle.ttl(keys, null);
  assertEquals(t.clock.pendingTimers, 0);
});

Deno.test("KeyLifecycle.ttl() can be renewed as often as one likes", async () => {
  const keys = testKeys(8);
  for (let renewals = 0; renewals < 160; renewals++) {
    using t = setUp();
    writeObjects(t.l1, keys, LAYOUT);
    for (const [n, key] of keys.entries()) t.lifecycle.ttl([key], 10 - n);
    for (let i = 0; i < renewals; i++) t.lifecycle.ttl(keys.slice(0, 1), 10);
    for (const left of [8, 8, 7, 6, 5, 4, 3, 2, 1, 0]) {
      await t.clock.advance(1);
      assertEquals(residents(t.l1, keys).length, left, `${renewals} renewals`);
    }
  }
});

Deno.test("KeyLifecycle.ttl() knows lives longer than a timer", async () => {
  using t = setUp();
  const keys = testKeys(1);
  writeObjects(t.l1, keys, LAYOUT);
  const month = 31 * 24 * 3600 * 1000;
  t.lifecycle.ttl(keys, month);
  let longest = 0;
  const schedule = t.clock.schedule.bind(t.clock);
  t.clock.schedule = (callback, delayMs) => {
    longest = Math.max(longest, delayMs);
    return schedule(callback, delayMs);
  };
  t.lifecycle.ttl(keys, month + 1);
  await t.clock.advance(month);
  assertEquals(residents(t.l1, keys), [0]);
  await t.clock.advance(1);
  assertEquals(residents(t.l1, keys), []);
  assert(longest < 2 ** 31, `timer of ${longest} ms`);
});

Deno.test("KeyLifecycle.ttl() refuses what is no length of time", () => {
  using t = setUp();
  for (const ms of [-1, NaN, Infinity]) {
    assertThrows(() => t.lifecycle.ttl(testKeys(1), ms), RangeError, `received ${ms}`);
  }
  assertEquals(t.lifecycle.reportStatus().expiring, 0);
});

Deno.test("KeyLifecycle bars expired objects while an adapter still has them", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp([adapter]);
  const [key, other] = testKeys(2) as [ObjectKey, ObjectKey];
  adapter.seed([key], LAYOUT);
  const removing = gate();
  adapter.beforeDelete = () => removing.promise;
  t.lifecycle.ttl([key], 10);
  assertEquals(t.barrier.blocks(key), false);

  await t.clock.advance(10);
  assertEquals([t.barrier.blocks(key), t.barrier.blocks(other)], [true, false]);

  removing.open();
  await t.clock.advance(0);
  assertEquals(t.barrier.blocks(key), false);
});

Deno.test("KeyLifecycle tries expired objects again until an adapter removed them", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp([adapter]);
  const [key] = testKeys(1) as [ObjectKey];
  adapter.seed([key], LAYOUT);
  let isBroken = true;
  adapter.beforeDelete = () => {
    if (isBroken) throw new Error("read-only");
  };

  t.lifecycle.ttl([key], 10);
  await t.clock.advance(60_000);
  assertEquals([adapter.count([key]), t.barrier.blocks(key)], [1, true]);
  assertEquals(t.lifecycle.reportStatus().expiring, 1);
  const tries = adapter.deletes.length;
  assert(tries > 3 && tries < 20, `${tries} tries`);

  isBroken = false;
  await t.clock.advance(120_000);
  assertEquals([adapter.count([key]), t.barrier.blocks(key)], [0, false]);
  assertEquals(t.lifecycle.reportStatus().expiring, 0);
  assertEquals(t.clock.pendingTimers, 0);
});

Deno.test("KeyLifecycle.ttl() decides anew about what could not be removed", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp([adapter]);
  const keys = testKeys(2);
  adapter.seed(keys, LAYOUT);
  adapter.beforeDelete = () => {
    throw new Error("read-only");
  };
  t.lifecycle.ttl(keys, 10);
  await t.clock.advance(500);
  assertEquals(keys.map((key) => t.barrier.blocks(key)), [true, true]);

  t.lifecycle.ttl(keys.slice(0, 1), null);
  t.lifecycle.ttl(keys.slice(1), 1_000_000);
  assertEquals(keys.map((key) => t.barrier.blocks(key)), [false, false]);
  assertEquals(t.lifecycle.reportStatus().expiring, 1);
  adapter.beforeDelete = () => {};
  await t.clock.advance(500_000);
  assertEquals(adapter.held.size, 2);
});

Deno.test("KeyLifecycle does not insist where an adapter can never remove objects", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp([limited(adapter, { delete: true })]);
  const keys = testKeys(1);
  t.lifecycle.ttl(keys, 10);
  await t.clock.advance(10);
  assertEquals(t.clock.pendingTimers, 0);
  assertEquals(t.barrier.blocks(keys[0] as ObjectKey), false);
});

Deno.test("KeyLifecycle lets objects expire exactly when the plainest model does", async () => {
  const step = fc.record({
    chunks: fc.uniqueArray(fc.integer({ min: 0, max: 7 }), { minLength: 1, maxLength: 4 }),
    ms: fc.option(fc.integer({ min: 0, max: 50 }), { nil: null }),
    wait: fc.integer({ min: 0, max: 20 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 200 }), async (steps) => {
      using t = setUp();
      const keys = testKeys(8);
      const ends = new Map<number, number>();
      writeObjects(t.l1, keys, LAYOUT);
      for (const { chunks, ms, wait } of steps) {
        t.lifecycle.ttl(chunks.map((n) => keys[n] as ObjectKey), ms);
        for (const n of chunks) {
          if (ms === null) ends.delete(n);
          else ends.set(n, t.clock.now() + ms);
        }
        assert(t.clock.pendingTimers <= 1);
        await t.clock.advance(wait);
        const due = [...ends].filter(([, at]) => at <= t.clock.now()).map(([n]) => n).sort();
        for (const n of due) ends.delete(n);
        assertEquals(keys.flatMap((key, n) => t.l1.has(key) ? [] : [n]), due);
        assertEquals(t.lifecycle.reportStatus().expiring, ends.size);
        writeObjects(t.l1, due.map((n) => keys[n] as ObjectKey), LAYOUT);
      }
    }),
    runs(100),
  );
});

// forget()

Deno.test("KeyLifecycle.forget() removes keys, a salt or a model from every tier", async () => {
  const cases: { selector: ForgetSelector; gone: ObjectKey[]; rest: ObjectKey[] }[] = [
    { selector: { keys: testKeys(2) }, gone: testKeys(2), rest: testKeys(2, 2) },
    { selector: { salt: "a" }, gone: saltKeys("a", 2), rest: saltKeys("b", 2) },
    { selector: { salt: "" }, gone: testKeys(2), rest: saltKeys("b", 2) },
    { selector: { model: "m" }, gone: modelKeys("m", 2), rest: modelKeys("n", 2) },
  ];
  for (const { selector, gone, rest } of cases) {
    const adapters = [new RecordingAdapter(), new RecordingAdapter()];
    using t = setUp(adapters);
    const keys = [...gone, ...rest];
    writeObjects(t.l1, keys, LAYOUT);
    for (const adapter of adapters) adapter.seed(keys, LAYOUT);

    const report = await t.lifecycle.forget(selector);

    const removed = { objects: 2, bytes: 2 * SEALED, complete: true };
    assertEquals(report, {
      l1: { objects: 2, bytes: 2 * SIZE },
      adapters: [{ id: 0, type: "adapter0", ...removed }, { id: 1, type: "adapter1", ...removed }],
    });
    assertEquals(residents(t.l1, keys), [2, 3]);
    for (const adapter of adapters) {
      assertEquals([adapter.count(gone), adapter.count(rest)], [0, 2]);
      assertEquals(adapter.lockCount, 0);
    }
  }
});

Deno.test("KeyLifecycle.forget() of what is nowhere is complete", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp([adapter]);
  const nothing = { id: 0, type: "adapter0", objects: 0, bytes: 0, complete: true };
  for (const selector of [{ keys: testKeys(3) }, { keys: [] }, { salt: "a" }, { model: "m" }]) {
    assertEquals(await t.lifecycle.forget(selector), {
      l1: { objects: 0, bytes: 0 },
      adapters: [nothing],
    });
  }
});

Deno.test("KeyLifecycle.forget() removes many objects in batches, and none twice", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp([adapter]);
  const keys = testKeys(600);
  adapter.seed(keys, LAYOUT);
  const report = await t.lifecycle.forget({ keys: [...keys, ...keys] });
  assertEquals(adapter.deletes.map((ids) => ids.length), [256, 256, 88]);
  assertEquals(report.adapters[0]?.objects, 600);

  adapter.seed(keys, LAYOUT);
  await t.lifecycle.forget({ salt: "" });
  assertEquals(adapter.deletes.slice(3).map((ids) => ids.length), [256, 256, 88]);
});

Deno.test("KeyLifecycle.forget() removes pinned objects, with their pins and lives", async () => {
  using t = setUp();
  const keys = [...saltKeys("a", 2), ...saltKeys("b", 2)];
  writeObjects(t.l1, keys, LAYOUT);
  t.l1.pin(keys);
  t.lifecycle.ttl(keys, 1_000);

  await t.lifecycle.forget({ salt: "a" });
  assertEquals(residents(t.l1, keys), [2, 3]);
  assertEquals(keys.map((key) => t.l1.pinned.has(key.id)), [false, false, true, true]);
  assertEquals(t.l1.reportStatus().protectedCount, 2);
  assertEquals(t.lifecycle.reportStatus(), { pinned: 2, expiring: 2, forgetting: 0 });

  await t.lifecycle.forget({ keys: keys.slice(2) });
  assertEquals(t.lifecycle.reportStatus(), { pinned: 0, expiring: 0, forgetting: 0 });
  assertEquals(t.clock.pendingTimers, 0);
});

Deno.test("KeyLifecycle.forget() bars what it removes until its answer", async () => {
  const adapter = new RecordingAdapter();
  const settled = gate();
  const asked: boolean[] = [];
  const [a, b] = [...saltKeys("a", 1), ...saltKeys("b", 1)] as [ObjectKey, ObjectKey];
  using t = setUp([adapter], ({ matches }) => {
    asked.push(matches(a), matches(b));
    return settled.promise;
  });
  writeObjects(t.l1, [a, b], LAYOUT);
  adapter.seed([a, b], LAYOUT);

  const forgetting = t.lifecycle.forget({ salt: "a" });
  assertEquals(t.l1.has(a), false, "at once");
  assertEquals([t.barrier.blocks(a), t.barrier.blocks(b)], [true, false]);
  assertEquals(t.lifecycle.reportStatus().forgetting, 1);
  await t.clock.advance(0);
  assertEquals(adapter.deletes, [], "first what is on its way arrives");
  assertEquals(asked, [true, false]);

  settled.open();
  await forgetting;
  assertEquals(t.barrier.blocks(a), false);
  assertEquals(t.lifecycle.reportStatus().forgetting, 0);
});

Deno.test("KeyLifecycle.forget() removes what arrives while it is at work", async () => {
  const adapter = new RecordingAdapter();
  const [key] = testKeys(1) as [ObjectKey];
  using t = setUp([adapter], async () => {
    // A store that was in flight.
    await t.guards[0]?.store([sealedObject(key, LAYOUT)]);
  });
  const removing = gate();
  adapter.beforeDelete = () => removing.promise;

  const forgetting = t.lifecycle.forget({ keys: [key] });
  await t.clock.advance(0);
  // A load that was in flight.
  const staged = stage(t.l1, [key], LAYOUT, { writer: "prefetch" });
  removing.open();
  const report = await forgetting;

  assertEquals(adapter.held.size, 0);
  assertEquals(report.l1.objects, 1);
  assertEquals(t.l1.finishWriteAndReserveRead(staged), [
    { status: "key-not-exist" },
  ]);
});

Deno.test("KeyLifecycle.forget() waits a little for objects that are in use", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp([adapter]);
  const keys = testKeys(3);
  adapter.seed(keys, LAYOUT);
  await t.guards[0]?.lookup(keys.slice(1), { prefix: false });

  const forgetting = t.lifecycle.forget({ salt: "" });
  await advance(t.clock, 150);
  assertEquals(adapter.held.size, 2);
  t.guards[0]?.unlock(keys.slice(1));
  await t.clock.advance(50);
  const report = await forgetting;

  assertEquals(report.adapters[0], {
    id: 0,
    type: "adapter0",
    objects: 3,
    bytes: 3 * SEALED,
    complete: true,
  });
});

Deno.test("KeyLifecycle.forget() says what stays in use", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp([adapter]);
  const keys = testKeys(3);
  adapter.seed(keys, LAYOUT);
  await t.guards[0]?.lookup(keys.slice(1), { prefix: false });

  const forgetting = t.lifecycle.forget({ keys });
  await advance(t.clock, 300);
  const report = await forgetting;

  assertEquals(adapter.deletes.length, 4);
  assertEquals(report.adapters[0]?.objects, 1);
  assertProblem(report, "2 objects are in use", "forget again");
  assertEquals(t.guards[0]?.lockedKeys, 2, "those of the reader");
});

Deno.test("KeyLifecycle.forget() believes no adapter that says that it removed what is there", async () => {
  const adapter = new RecordingAdapter();
  const keys = testKeys(3);
  adapter.seed(keys, LAYOUT);
  const lying: L2Adapter = {
    ...limited(adapter, {}),
    delete: (asked) => {
      const deleted = Bitmap.from(asked, () => true);
      return Promise.resolve({ deleted, bytes: deleted.popcount() * SEALED });
    },
  };
  for (const selector of [{ keys }, { salt: "" }]) {
    using t = setUp([lying]);
    const forgetting = t.lifecycle.forget(selector);
    await advance(t.clock, 300);
    const report = await forgetting;
    assertEquals(report.adapters[0]?.objects, 0);
    assertProblem(report, "3 objects still exist after their removal", "forget again");
  }
});

Deno.test("KeyLifecycle.forget() names adapters that cannot do it", async () => {
  const [noList, noDelete] = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp([limited(noList, { list: true }), limited(noDelete, { delete: true })]);
  const keys = testKeys(2);
  for (const adapter of [noList, noDelete]) adapter.seed(keys, LAYOUT);

  const bySalt = await t.lifecycle.forget({ salt: "" });
  assertEquals(bySalt.adapters.map(({ complete }) => complete), [false, false]);
  assertStringIncludes(bySalt.adapters[0]?.problem ?? "", "forget them by their keys");
  assertStringIncludes(bySalt.adapters[1]?.problem ?? "", "cannot delete");

  const byKeys = await t.lifecycle.forget({ keys });
  assertEquals(byKeys.adapters.map(({ complete }) => complete), [true, false]);
  assertEquals([noList.held.size, noDelete.held.size], [0, 2]);
});

Deno.test("KeyLifecycle.forget() does not take failing lookups for missing objects", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp([adapter]);
  const keys = testKeys(1);
  adapter.seed(keys, LAYOUT);
  await t.guards[0]?.lookup(keys, { prefix: false });
  adapter.beforeLookup = () => {
    throw new Error("no answer");
  };
  const forgetting = t.lifecycle.forget({ keys });
  await advance(t.clock, 300);
  assertProblem(await forgetting, "1 objects may still be there", "no answer");
});

Deno.test("KeyLifecycle.forget() names an adapter that fails, and serves the others", async () => {
  const [broken, sound] = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp([broken, sound]);
  const keys = testKeys(2);
  for (const adapter of [broken, sound]) adapter.seed(keys, LAYOUT);
  broken.beforeDelete = () => {
    throw new Error("read-only");
  };

  const forgetting = t.lifecycle.forget({ keys });
  await advance(t.clock, 300);
  const report = await forgetting;
  assertProblem(report, "2 objects may still be there", "forget again", "read-only");
  assertEquals(report.adapters[1]?.complete, true);
  assertEquals([broken.held.size, sound.held.size], [2, 0]);
  assertEquals(t.barrier.blocks(keys[0] as ObjectKey), false);

  // Its circuit is open now: it is neither called nor awaited.
  const calls = broken.deletes.length;
  assertProblem(await t.lifecycle.forget({ keys }), "2 objects may still be there");
  assertEquals(broken.deletes.length, calls);
});

Deno.test("KeyLifecycle.forget() says when a listing broke off", async () => {
  class BadList extends RecordingAdapter {
    override async *list(...options: Parameters<RecordingAdapter["list"]>) {
      for await (const object of super.list(...options)) {
        yield object;
        throw new Error("no more");
      }
    }
  }
  const adapter = new BadList();
  using t = setUp([adapter]);
  adapter.seed(testKeys(3), LAYOUT);
  const report = await t.lifecycle.forget({ model: "test/model" });
  assertProblem(report, "not all objects could be listed", "forget again", "no more");
  assertEquals([report.adapters[0]?.objects, adapter.held.size], [1, 2]);
});

Deno.test("KeyLifecycle.forget() is incomplete where objects do not tell their keys", async () => {
  class Keyless extends RecordingAdapter {
    override async *list(...options: Parameters<RecordingAdapter["list"]>) {
      yield* super.list(...options);
      options[0].onKeyless?.();
    }
  }
  const adapter = new Keyless();
  using t = setUp([adapter]);
  adapter.seed(testKeys(3), LAYOUT);
  const keys = testKeys(1);
  const byKeys = await t.lifecycle.forget({ keys });
  assertEquals(byKeys.adapters[0]?.complete, true);
  const report = await t.lifecycle.forget({ model: "test/model" });
  assertProblem(report, "1 objects do not tell their keys", "forget them by keys");
  assertEquals([report.adapters[0]?.objects, adapter.held.size], [2, 0]);
});

Deno.test("KeyLifecycle.forget() is not sure while a call hangs", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp([adapter]);
  const keys = testKeys(1);
  const storing = gate();
  adapter.beforeStore = () => storing.promise;
  const stored = t.guards[0]?.store(keys.map((key) => sealedObject(key, LAYOUT)));
  await t.clock.advance(DEFAULT_ADAPTER_TIMEOUTS.storeMs);
  await stored;

  assertProblem(await t.lifecycle.forget({ keys }), "1 calls have not finished", "forget again");

  storing.open();
  await t.clock.advance(0);
  assertEquals(adapter.held.size, 1);
  const report = await t.lifecycle.forget({ keys });
  assertEquals([report.adapters[0]?.complete, adapter.held.size], [true, 0]);
});

Deno.test("KeyLifecycle.forget() names an adapter that is closed", async () => {
  using t = setUp([new RecordingAdapter()]);
  await t.guards[0]?.close();
  assertProblem(await t.lifecycle.forget({ keys: testKeys(1) }), "closed", "add it again");
});

Deno.test("KeyLifecycle.forget() refuses a selector that is none", async () => {
  using t = setUp();
  const wrong: [unknown, string][] = [
    [{}, "received none"],
    [{ salt: "a", model: "m" }, "received salt and model"],
    [{ keys: [], salt: undefined, model: "" }, "received keys and model"],
    [{ salt: undefined }, "must have a value for salt"],
    [{ salt: null }, "must have a value for salt"],
    [{ salt: undefined, model: "m" }, "must have a value for salt"],
    [{ salt: "a", keys: null }, "received keys and salt"],
    [{ salt: 7 }, "must be a string: received a number"],
    [{ Salt: "a" }, "did you mean salt?"],
    [undefined, "must be an object: received undefined"],
    [{ salt: "a\nb" }, "received U+000A"],
    [{ salt: "x".repeat(129) }, "at most 128"],
    [{ model: "" }, "must not be empty"],
    [{ model: "a@b" }, "received '@'"],
  ];
  for (const [selector, message] of wrong) {
    await assertRejects(() => t.lifecycle.forget(selector as ForgetSelector), TypeError, message);
  }
  assertEquals(t.lifecycle.reportStatus().forgetting, 0);
});

Deno.test("KeyLifecycle lifts the bar even if preparing fails", async () => {
  using t = setUp([], () => Promise.reject(new Error("bug")));
  const [key] = testKeys(1) as [ObjectKey];
  await assertRejects(() => t.lifecycle.forget({ keys: [key] }), Error, "bug");
  assertEquals(t.barrier.blocks(key), false);
});

Deno.test("KeyLifecycle ends with objects that expire, and with one that waits", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp([adapter]);
  const keys = testKeys(2);
  adapter.seed(keys, LAYOUT);
  await t.guards[0]?.lookup(keys, { prefix: false });
  t.lifecycle.ttl(keys, 1_000);
  const forgetting = t.lifecycle.forget({ keys: keys.slice(0, 1) });
  await t.clock.advance(0);
  assertEquals(t.clock.pendingTimers, 2);

  t.lifecycle[Symbol.dispose]();
  await t.clock.advance(0);

  assertEquals(t.clock.pendingTimers, 0);
  assertProblem(await forgetting, "in use");
  t.lifecycle.ttl(keys, 1);
  assertEquals(t.clock.pendingTimers, 0);
});
