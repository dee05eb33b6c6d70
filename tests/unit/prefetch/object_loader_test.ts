import { assert, assertEquals } from "@std/assert";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { wait } from "../../../src/base/clock.ts";
import { defaultPrefetch, retain } from "../../../src/prefetch/prefetch_policy.ts";
import { assertNoLocks, assertRanges, writeObjects } from "../../support/l1.ts";
import { testKey, testKeys, testLayout } from "../../support/objects.ts";
import { BLOCK_BYTES, LAYOUT, ranges, residents, settle, setUp } from "../../support/prefetch.ts";
import { gate, RecordingAdapter } from "../../support/recording_adapter.ts";

/** Number of objects in a full batch, with the scratch of `setUp`. */
const BATCH = 12;

function ids(keys: readonly ObjectKey[]): string[] {
  return keys.map(({ id }) => id);
}

/** Two adapters that both have all of the keys. */
function twoWith(keys: readonly ObjectKey[]): [RecordingAdapter, RecordingAdapter] {
  const adapters: [RecordingAdapter, RecordingAdapter] = [
    new RecordingAdapter(),
    new RecordingAdapter(),
  ];
  for (const adapter of adapters) adapter.seed(keys, LAYOUT);
  return adapters;
}

Deno.test("ObjectLoader asks all adapters at once, each once", async () => {
  const keys = testKeys(4);
  const adapters = twoWith(keys);
  using t = setUp(new HostDevice(), adapters);
  const answers = adapters.map((adapter) => {
    const { promise, open } = gate();
    adapter.beforeLookup = () => promise;
    return open;
  });
  const pending = t.count(keys);
  await settle();
  assertEquals(adapters.map(({ lookups }) => lookups), [[ids(keys)], [ids(keys)]]);
  for (const open of answers) open();
  assertEquals(await pending, [4, 0]);
  assertEquals(adapters.map(({ lookups }) => lookups.length), [1, 1]);
});

Deno.test("ObjectLoader does not wait for an adapter when another one has everything", async () => {
  const keys = testKeys(4);
  const [slow, fast] = twoWith(keys);
  using t = setUp(new HostDevice(), [slow, fast]);
  const { promise, open } = gate();
  slow.beforeLookup = () => promise;
  assertEquals(await t.count(keys), [4, 0], "without any time");
  assertEquals(slow.loads, []);
  // No request wants what it locks now.
  open();
  await settle();
});

Deno.test("ObjectLoader waits a grace time for adapters that are slower to answer", async () => {
  const keys = testKeys(4);
  const [slow, fast] = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp(new HostDevice(), [slow, fast]);
  slow.seed(keys, LAYOUT);
  fast.seed(keys.slice(0, 2), LAYOUT);
  slow.beforeLookup = () => wait(t.clock, 100);
  fast.beforeLookup = () => wait(t.clock, 10);

  const pending = t.match(keys, LAYOUT);
  await t.pass(49);
  assertEquals(fast.loads, [], "four times as long as the first answer took");
  await t.pass(1);
  assertEquals(fast.loads, [ids(keys.slice(0, 2))]);
  assertEquals(slow.loads, []);
  // The late answer is used for what the prefix lacks.
  await t.pass(50);
  const hit = await pending;
  await assertRanges(t.l1.device, ranges(hit), keys);
  assertEquals(slow.loads, [ids(keys.slice(2))]);
  t.release(hit);
});

Deno.test("ObjectLoader is done when nothing is missing, though an adapter has not answered", async () => {
  const keys = testKeys(4);
  const [hung, first, second] = [1, 2, 3].map(() => new RecordingAdapter());
  using t = setUp(
    new HostDevice(),
    [hung, first, second].filter((adapter) => adapter !== undefined),
  );
  const { promise, open } = gate();
  (hung as RecordingAdapter).beforeLookup = () => promise;
  first?.seed(keys.slice(0, 2), LAYOUT);
  second?.seed(keys.slice(2), LAYOUT);
  (second as RecordingAdapter).beforeLookup = () => wait(t.clock, 30);

  let isAnswered = false;
  const pending = t.count(keys).finally(() => isAnswered = true);
  await t.pass(29);
  assertEquals(first?.loads.length, 1, "after the grace time");
  await t.pass(1);
  assert(isAnswered, "the one that hangs is not waited for");
  assertEquals(await pending, [4, 0]);
  open();
  await settle();
});

Deno.test("ObjectLoader waits for all adapters while what it found is of no use", async () => {
  const keys = testKeys(4);
  const [slow, fast] = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp(new HostDevice(), [slow, fast]);
  slow.seed(keys.slice(0, 2), LAYOUT);
  fast.seed(keys.slice(1), LAYOUT);
  slow.beforeLookup = () => wait(t.clock, 1_000);
  const pending = t.count(keys);
  await t.pass(999);
  assertEquals(fast.loads, []);
  await t.pass(1);
  assertEquals(await pending, [4, 0]);
});

Deno.test("ObjectLoader gives more to an adapter that is faster", async () => {
  const keys = testKeys(44);
  const [slow, fast] = twoWith(keys);
  using t = setUp(new HostDevice(), [slow, fast]);
  slow.beforeLoad = (batch) => wait(t.clock, 3 * batch.length);
  fast.beforeLoad = (batch) => wait(t.clock, batch.length);
  // Their speed is measured with objects that only one of them has.
  for (const [i, adapter] of [slow, fast].entries()) {
    const own = testKeys(12, 100 * (i + 1));
    adapter.seed(own, LAYOUT);
    const pending = t.count(own);
    await t.pass(36);
    assertEquals(await pending, [12, 0]);
  }

  const pending = t.count(keys);
  await t.pass(1_000);
  assertEquals(await pending, [44, 0]);
  const [slowLoads, fastLoads] = [slow, fast].map(({ loads }) => loads.slice(1).flat().length);
  assertEquals([slowLoads, fastLoads], [11, 33]);
});

Deno.test("ObjectLoader asks the next adapter when one fails, and each one once", async () => {
  const keys = testKeys(30);
  const [broken, good] = twoWith(keys);
  using t = setUp(new HostDevice(), [broken, good]);
  broken.beforeLoad = () => Promise.reject(new Error("broken"));
  const hit = await t.match(keys, LAYOUT);
  await assertRanges(t.l1.device, ranges(hit), keys);
  t.release(hit);
  assertEquals(good.loads.flat().toSorted(), ids(keys).toSorted());
  assertEquals(new Set(broken.loads.flat()).size, broken.loads.flat().length);
});

Deno.test("ObjectLoader asks the next adapter for single objects that are damaged or gone", async () => {
  const keys = testKeys(8);
  const adapters = twoWith(keys);
  using t = setUp(new HostDevice(), adapters);
  for (const { id } of keys.slice(0, 4)) adapters[0].held.get(id)?.fill(7);
  adapters[1].beforeLoad = () => {
    for (const { id } of keys.slice(4)) adapters[1].held.delete(id);
  };
  const hit = await t.match(keys, LAYOUT);
  await assertRanges(t.l1.device, ranges(hit), keys);
  t.release(hit);
});

Deno.test("ObjectLoader hedges a load that takes far longer than expected", async () => {
  const keys = testKeys(60);
  const [hung, good] = twoWith(keys);
  using t = setUp(new HostDevice(), [hung, good], { capacityBytes: 2 ** 20 });
  const { promise, open } = gate();
  hung.beforeLoad = () => promise;

  let isAnswered = false;
  const pending = t.match(keys, LAYOUT).finally(() => isAnswered = true);
  await t.pass(99);
  assert(!isAnswered);
  await t.pass(1);
  assert(isAnswered, "all that was planned on it is asked of the other one at once");
  const hit = await pending;
  await assertRanges(t.l1.device, ranges(hit), keys);
  t.release(hit);
  assertEquals(hung.loads.length, 2, "batches that were under way");
  assertEquals(t.l1.reportStatus().stagingObjectCount, 0, "their room is given back");

  // While it hangs, other adapters come first.
  const more = testKeys(10, 100);
  for (const adapter of [hung, good]) adapter.seed(more, LAYOUT);
  good.beforeLookup = () => wait(t.clock, 5);
  const next = t.count(more);
  await t.pass(5);
  assertEquals(await next, [10, 0]);
  assertEquals(hung.loads.length, 2);
  good.beforeLookup = () => {};

  open();
  // After a minute its measurements are outdated.
  await t.pass(61_000);
  const others = testKeys(10, 200);
  for (const adapter of [hung, good]) adapter.seed(others, LAYOUT);
  assertEquals(await t.count(others), [10, 0]);
  assertEquals(hung.loads.length, 3, "it is one of them again");
});

Deno.test("ObjectLoader returns to a slow adapter in the end, and then waits", async () => {
  const keys = testKeys(4);
  const [slow, broken] = twoWith(keys);
  using t = setUp(new HostDevice(), [slow, broken]);
  slow.beforeLoad = () => wait(t.clock, slow.loads.length === 1 ? 120 : 2_000);
  broken.beforeLookup = () => wait(t.clock, 5);
  broken.beforeLoad = () => wait(t.clock, 100).then(() => Promise.reject(new Error("broken")));
  let isAnswered = false;
  const pending = t.match(keys, LAYOUT).finally(() => isAnswered = true);
  for (let ms = 0; ms < 3_000 && !isAnswered; ms += 20) await t.pass(20);
  const hit = await pending;
  await assertRanges(t.l1.device, ranges(hit), keys);
  t.release(hit);
  assertEquals([slow.loads.length, broken.loads.length], [2, 1]);
});

Deno.test("ObjectLoader waits for a slow adapter that alone has an object of a batch", async () => {
  const keys = testKeys(4);
  const [slow, good] = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp(new HostDevice(), [slow, good]);
  slow.seed(keys, LAYOUT);
  good.seed(keys.slice(0, 3), LAYOUT);
  slow.beforeLoad = () => wait(t.clock, 5_000);
  const pending = t.count(keys);
  await t.pass(5_000);
  assertEquals(await pending, [4, 0]);
});

Deno.test("ObjectLoader hedges with an adapter whose lookup was late", async () => {
  const keys = testKeys(4);
  const [late, hung] = twoWith(keys);
  using t = setUp(new HostDevice(), [late, hung]);
  const { promise, open } = gate();
  late.beforeLookup = () => wait(t.clock, 150);
  hung.beforeLoad = () => promise;
  const pending = t.count(keys);
  await t.pass(199);
  assertEquals(late.loads, []);
  await t.pass(1);
  assertEquals(await pending, [4, 0]);
  assertEquals(late.loads, [ids(keys)]);
  open();
  await settle();
});

Deno.test("ObjectLoader limits a hanging adapter to its share of the scratch", async () => {
  const [hung, good] = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp(new HostDevice(), [hung, good], { capacityBytes: 2 ** 20 });
  const { promise, open } = gate();
  hung.beforeLoad = () => promise;
  const hanging = Array.from({ length: 5 }, (_, i) => testKeys(30, i * 30));
  hung.seed(hanging.flat(), LAYOUT);
  const pending = hanging.map((keys) => t.count(keys, { deadlineMs: 1_000 }));
  await settle();
  assertEquals(t.scratch.lentBytes, t.scratch.capacityBytes / 2);

  const keys = testKeys(60, 1_000);
  good.seed(keys, LAYOUT);
  assertEquals(await t.count(keys), [60, 0]);

  await t.pass(1_000);
  assertEquals(await Promise.all(pending), hanging.map(() => [0, 0]));
  assertEquals(t.prefetch.reportStatus().drainingRequests, 2, "no load waits for buffers any more");
  open();
  await settle();
});

Deno.test("ObjectLoader lends no more than the scratch has", async () => {
  const adapters = [1, 2, 3].map(() => new RecordingAdapter());
  using t = setUp(new HostDevice(), adapters, { capacityBytes: 2 ** 20, scratchBlocks: 6 });
  const prompts = Array.from({ length: 12 }, (_, i) => testKeys(20, i * 20));
  for (const adapter of adapters) adapter.seed(prompts.flat(), LAYOUT);
  let most = 0;
  for (const adapter of adapters) {
    adapter.beforeLoad = async () => {
      most = Math.max(most, t.scratch.lentBytes);
      await Promise.resolve();
    };
  }
  const counts = await Promise.all(prompts.map((keys) => t.count(keys)));
  assertEquals(counts, prompts.map(() => [20, 0]));
  assert(most > 0 && most <= 6 * BLOCK_BYTES, `${most} bytes`);
  assertEquals(t.scratch.peakBytes <= 6 * BLOCK_BYTES, true);
});

Deno.test("ObjectLoader releases locks as soon as they are not needed", async () => {
  const keys = testKeys(40);
  const [adapter, other] = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp(new HostDevice(), [adapter, other]);
  adapter.seed(keys.toSpliced(30, 1), LAYOUT);
  other.seed(keys.slice(0, 3), LAYOUT);
  const reached = gate();
  const { promise, open } = gate();
  adapter.beforeLoad = () => {
    reached.open();
    return promise;
  };
  const pending = t.count(keys);
  await reached.promise;
  await settle();
  const [guard, beside] = t.adapters.all;
  assertEquals(guard?.lockedKeys, 29, "neither what is behind the gap nor what is there by now");
  assertEquals(beside?.lockedKeys, 2, "what another one is loading may be needed yet");
  assertEquals(other.loads, [ids(keys.slice(1, 2))]);
  open();
  assertEquals(await pending, [30, 0]);
});

Deno.test("ObjectLoader releases its locks when the request is answered", async () => {
  const keys = testKeys(60);
  const [hung, slow] = twoWith(keys);
  using t = setUp(new HostDevice(), [hung, slow]);
  const { promise, open } = gate();
  hung.beforeLoad = () => promise;
  slow.beforeLookup = () => promise;
  const pending = t.count(keys, { deadlineMs: 50 });
  await t.pass(49);
  assertEquals(t.adapters.all[0]?.lockedKeys, 60);
  await t.pass(1);
  assertEquals(await pending, [0, 0]);
  assertEquals(t.adapters.all.map(({ lockedKeys }) => lockedKeys), [2 * BATCH, 0], "only loads");
  assertEquals(t.prefetch.reportStatus().drainingRequests, 1);
  open();
  await settle();
});

for (const policy of [retain, defaultPrefetch]) {
  Deno.test(`ObjectLoader completes loads in flight: policy ${policy.name}`, async () => {
    const keys = testKeys(40);
    const adapter = new RecordingAdapter();
    using t = setUp(new HostDevice(), [adapter], { policy });
    adapter.seed(keys, LAYOUT);
    const { promise, open } = gate();
    adapter.beforeLoad = () => promise;
    const pending = t.count(keys, { deadlineMs: 50 });
    await t.pass(50);
    assertEquals(await pending, [0, 0]);
    open();
    await settle();
    assertEquals(adapter.loads.length, 2);
    const isKept = (_: ObjectKey, i: number): boolean => policy === retain && i < 2 * BATCH;
    assertEquals(residents(t.l1, keys), keys.map(isKept));
    assertNoLocks(t.l1);
  });
}

Deno.test("ObjectLoader loads no blocked object", async () => {
  const keys = testKeys(4);
  const adapter = new RecordingAdapter();
  const blocked = new Set([keys[2]?.id]);
  using t = setUp(new HostDevice(), [adapter], {
    barrier: { blocks: ({ id }) => blocked.has(id) },
  });
  adapter.seed(keys, LAYOUT);
  assertEquals(await t.count(keys), [2, 0]);
  const [looked] = adapter.lookups;
  assert(!looked?.includes(keys[2]?.id ?? ""));

  // Not even if that began after the lookup.
  const others = testKeys(4, 10);
  adapter.seed(others, LAYOUT);
  adapter.beforeLookup = () => void blocked.add(others[1]?.id);
  assertEquals(await t.count(others), [1, 0]);
  assert(!adapter.loads.flat().includes(others[1]?.id ?? ""));
});

Deno.test("ObjectLoader loads what the last chunks need, where a group has a window", async () => {
  const [full, windowed] = [testKeys(10), testKeys(10, 50)];
  for (const adapterCount of [1, 2]) {
    const adapters = Array.from({ length: adapterCount }, () => new RecordingAdapter());
    using t = setUp(new HostDevice(), adapters);
    for (const adapter of adapters) adapter.seed([...full, ...windowed], LAYOUT);
    const { length, leases } = await t.prefetch.prefetch([
      { keys: full, layout: LAYOUT },
      { keys: windowed, layout: LAYOUT, windowChunks: 3 },
    ]);
    assertEquals(length, 10);
    assertEquals(leases.map((group) => group.map(({ key }) => key.id)), [
      ids(full),
      ids(windowed.slice(7)),
    ]);
    await assertRanges(t.l1.device, ranges({ leases: leases.flat() }), [
      ...full,
      ...windowed.slice(7),
    ]);
    assertEquals(adapters.flatMap(({ loads }) => loads.flat()).length, 13);
    t.l1.finishRead(leases.flat());
  }
});

Deno.test("ObjectLoader takes a shorter prefix where a window's object fails to load", async () => {
  const [full, windowed] = [testKeys(10), testKeys(10, 50)];
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  adapter.seed([...full, ...windowed], LAYOUT);
  adapter.beforeLoad = () => void adapter.held.delete(windowed[8]?.id ?? "");
  const { length, leases } = await t.prefetch.prefetch([
    { keys: full, layout: LAYOUT },
    { keys: windowed, layout: LAYOUT, windowChunks: 3 },
  ]);
  assertEquals(length, 8, "9 and 10 chunks would need what could not be loaded");
  assertEquals(leases[1]?.map(({ key }) => key.id), ids(windowed.slice(5, 8)));
  t.l1.finishRead(leases.flat());
  assertEquals(residents(t.l1, full).slice(0, 8), full.slice(0, 8).map(() => true));
});

Deno.test("ObjectLoader uses a late answer behind a window's object that failed to load", async () => {
  const keys = testKeys(10);
  const [late, fast] = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp(new HostDevice(), [late, fast]);
  late.seed(keys.slice(8), LAYOUT);
  fast.seed(keys.slice(0, 6), LAYOUT);
  late.beforeLookup = () => wait(t.clock, 40);
  fast.beforeLoad = () => {
    fast.held.delete(keys[4]?.id ?? "");
    return wait(t.clock, 50);
  };
  const pending = t.prefetch.prefetch([{ keys, layout: LAYOUT, windowChunks: 2 }]);
  for (const ms of [20, 20, 30]) await t.pass(ms);
  const { length, leases } = await pending;
  assertEquals(length, 10);
  t.l1.finishRead(leases.flat());
});

Deno.test("ObjectLoader looks beyond a gap where groups have windows", async () => {
  const keys = testKeys(10);
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  adapter.seed(keys.toSpliced(3, 1), LAYOUT);
  const { length, leases } = await t.prefetch.prefetch([{ keys, layout: LAYOUT, windowChunks: 2 }]);
  assertEquals([length, leases[0]?.length], [10, 2]);
  t.l1.finishRead(leases.flat());
  assertEquals(adapter.loads.flat(), ids(keys.slice(8)));
});

Deno.test("ObjectLoader misses one object of another layout, not the window behind it", async () => {
  const keys = testKeys(6);
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  adapter.seed(keys, LAYOUT);
  const { promise, open } = gate();
  adapter.beforeLookup = () => promise;
  const pending = t.prefetch.prefetch([{ keys, layout: LAYOUT, windowChunks: 2 }]);
  writeObjects(t.l1, keys.slice(4, 5), testLayout(512));
  open();
  const { length, leases } = await pending;
  assertEquals(length, 4);
  t.l1.finishRead(leases.flat());
});

Deno.test("ObjectLoader finishes in time with one adapter that hangs and one that fails", async () => {
  const keys = testKeys(1_000);
  const [hung, broken, good] = [1, 2, 3].map(() => new RecordingAdapter());
  for (const hangs of ["beforeLookup", "beforeLoad"] as const) {
    for (const fails of ["beforeLookup", "beforeLoad"] as const) {
      const adapters = [hung, broken, good].filter((adapter) => adapter !== undefined);
      using t = setUp(new HostDevice(), adapters, { capacityBytes: 2 ** 21, scratchBlocks: 48 });
      const { promise, open } = gate();
      for (const adapter of adapters) {
        adapter.seed(keys, LAYOUT);
        adapter.beforeLookup = adapter.beforeLoad = () => wait(t.clock, 1);
      }
      (hung as RecordingAdapter)[hangs] = () => promise;
      (broken as RecordingAdapter)[fails] = () => Promise.reject(new Error("broken"));

      const startedAt = t.clock.now();
      let answeredAt = Infinity;
      const pending = t.match(keys, LAYOUT, { deadlineMs: 400 })
        .finally(() => answeredAt = t.clock.now());
      for (let ms = 0; ms < 450; ms += 10) await t.pass(10);
      assert(answeredAt - startedAt <= 400 + 50, `${answeredAt - startedAt} ms`);
      const hit = await pending;
      await assertRanges(t.l1.device, ranges(hit), keys);
      t.release(hit);
      await t.pass(30_000);
      open();
      await settle();
    }
  }
});

Deno.test("ObjectLoader never loads an object twice at the same time from an adapter", async () => {
  const keys = testKeys(30);
  const adapters = twoWith(keys);
  using t = setUp(new HostDevice(), adapters);
  const loading = new Set<string>();
  for (const adapter of adapters) {
    adapter.beforeLoad = async (batch) => {
      for (const { key } of batch) {
        assert(!loading.has(key.id));
        loading.add(key.id);
      }
      await wait(t.clock, 10);
      for (const { key } of batch) loading.delete(key.id);
    };
  }
  const pending = Array.from({ length: 5 }, (_, i) => t.count(keys.slice(0, 10 + 5 * i)));
  for (let ms = 0; ms < 60; ms += 10) await t.pass(10);
  assertEquals((await Promise.all(pending)).map(([objects]) => objects), [10, 15, 20, 25, 30]);
  assertEquals(adapters.flatMap(({ loads }) => loads.flat()).length, 30);
});

Deno.test("ObjectLoader leaves nothing behind when the scratch is closed", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  adapter.seed([testKey(0)], LAYOUT);
  adapter.beforeLookup = () => t.scratch[Symbol.dispose]();
  assertEquals(await t.count([testKey(0)]), [0, 0]);
  assertEquals(t.adapters.all[0]?.lockedKeys, 0);
});

Deno.test("ObjectLoader tells all waiting requests at once that there is no room", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter], { capacityBytes: 2 * LAYOUT.byteLength });
  const keys = testKeys(4);
  adapter.seed(keys, LAYOUT);
  const hits = await Promise.all(Array.from({ length: 64 }, () => t.match(keys, LAYOUT)));
  assertEquals(hits.map(({ leases }) => leases.length), hits.map(() => 2));
  for (const hit of hits) t.release(hit);
  assertEquals(adapter.lookups.length, 1);
});

Deno.test("ObjectLoader gives up the tail of a waiting request for its head", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter], { capacityBytes: 4 * LAYOUT.byteLength });
  const [head, tail, others] = [testKeys(1), testKeys(2, 10), testKeys(2, 20)];
  adapter.seed([...head, ...others], LAYOUT);
  writeObjects(t.l1, tail, LAYOUT);
  const hits = await Promise.all([
    t.match([...others, ...head], LAYOUT),
    t.match([...head, ...tail], LAYOUT),
  ]);
  assertEquals(hits.map(({ leases }) => leases.length), [2, 2]);
  for (const hit of hits) t.release(hit);
});

Deno.test("ObjectLoader releases the locks of an adapter that finds more than a prefix", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(4);
  adapter.seed(keys.toSpliced(1, 1), LAYOUT);
  const lookup = adapter.lookupAndLock.bind(adapter);
  adapter.lookupAndLock = (keys, options) => lookup(keys, { ...options, prefix: false });
  assertEquals(await t.count(keys), [1, 0]);
});

/** Host memory into which other threads copy until the gate opens. */
class ThreadedDevice extends HostDevice {
  readonly #copied: Promise<void>;

  constructor(copied: Promise<void>) {
    super();
    this.#copied = copied;
  }

  override async uploadAll(uploads: Parameters<HostDevice["uploadAll"]>[0]): Promise<void> {
    await this.#copied;
    super.uploadAll(uploads);
  }
}

Deno.test("ObjectLoader keeps memory that threads write to, and shows it when they are done", async () => {
  const keys = testKeys(4);
  const [first, second] = twoWith(keys);
  const { promise, open } = gate();
  // No more than one request fits.
  const room = { capacityBytes: 4 * 1024, writeTtlMs: 50 };
  using t = setUp(new ThreadedDevice(promise), [first, second], room);
  let isAnswered = false;
  const pending = t.match(keys, LAYOUT).finally(() => isAnswered = true);
  await t.pass(10_000);
  const loaded = [...first.loads, ...second.loads].flat();
  assertEquals(
    loaded.toSorted(),
    ids(keys).sort(),
    "no load is hedged that an adapter has answered",
  );
  assertEquals(residents(t.l1, keys), [false, false, false, false]);
  const [other] = testKeys(1, 100);
  assert(other !== undefined);
  assertEquals(t.l1.reserveWrite([other], LAYOUT).map(({ status }) => status), ["out-of-memory"]);
  assert(!isAnswered);
  open();
  const hit = await pending;
  await assertRanges(t.l1.device, ranges(hit), keys);
  t.release(hit);
});

Deno.test("ObjectLoader leaves an object out that is forgotten while threads copy it", async () => {
  const keys = testKeys(4);
  const adapter = new RecordingAdapter();
  adapter.seed(keys, LAYOUT);
  const { promise, open } = gate();
  using t = setUp(new ThreadedDevice(promise), [adapter]);
  const pending = t.count(keys);
  await settle();
  t.l1.forget(({ id }) => id === keys[2]?.id);
  open();
  assertEquals(await pending, [4, 0]);
  assertEquals(adapter.loads, [ids(keys), ids(keys.slice(2, 3))], "it is loaded anew");
});
