import { assert, assertEquals, assertRejects } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { WebGpuDevice } from "../../../src/memory/webgpu_device.ts";
import { wait } from "../../../src/base/clock.ts";
import { defaultPrefetch, retain } from "../../../src/prefetch/prefetch_policy.ts";
import { deviceTest, gpuTest } from "../../support/devices.ts";
import { assertNoLocks, assertRanges, writeObjects } from "../../support/l1.ts";
import { testKey, testKeys, testLayout } from "../../support/objects.ts";
import { BLOCK_BYTES, LAYOUT, ranges, residents, settle, setUp } from "../../support/prefetch.ts";
import { gate, RecordingAdapter } from "../../support/recording_adapter.ts";

Deno.test("PrefetchController.prefetch() of no keys is an empty hit", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  assertEquals(await t.count([]), [0, 0]);
  assertEquals(adapter.lookups, []);
});

Deno.test("PrefetchController.prefetch() asks no adapter for what is in L1", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(4);
  writeObjects(t.l1, keys, LAYOUT);

  const hit = await t.match(keys, LAYOUT);
  assertEquals([hit.leases.length, hit.l1Objects], [4, 4]);
  assertEquals(adapter.lookups, []);
  assertEquals(t.l1.delete(keys), keys.map(() => "key-is-locked"));
  t.release(hit);
});

Deno.test("PrefetchController.prefetch() without adapters serves what is in L1", async () => {
  using t = setUp(new HostDevice(), []);
  writeObjects(t.l1, testKeys(2), LAYOUT);
  writeObjects(t.l1, testKeys(1, 3), LAYOUT);
  assertEquals(await t.count(testKeys(4)), [2, 2]);
});

deviceTest("PrefetchController.prefetch() loads what an adapter has", async (device) => {
  const adapter = new RecordingAdapter();
  using t = setUp(device, [adapter]);
  const keys = testKeys(30);
  adapter.seed(keys, LAYOUT);
  let written = 0;
  t.l1.addListener({ written: (objects) => written += objects.length });

  const hit = await t.match(keys, LAYOUT);
  assertEquals(hit.l1Objects, 0);
  await assertRanges(device, ranges(hit), keys);
  assertEquals(t.l1.reportStatus().readLockedCount, 30);
  t.release(hit);

  assertEquals(await t.count(keys), [30, 30]);
  assertEquals(adapter.lookups.length, 1, "the second time all of it was in L1");
  assertEquals(written, 0, "nothing that was loaded is to be stored again");
  const { l1Objects, l2Objects, requestedObjects } = t.prefetch.reportStatus();
  assertEquals([l1Objects, l2Objects, requestedObjects], [30, 30, 60]);
});

deviceTest("PrefetchController.prefetch() joins L1 and an adapter", async (device) => {
  const adapter = new RecordingAdapter();
  using t = setUp(device, [adapter]);
  const keys = testKeys(6);
  writeObjects(t.l1, [...keys.slice(0, 2), ...keys.slice(4, 5)], LAYOUT);
  adapter.seed(keys, LAYOUT);

  const hit = await t.match(keys, LAYOUT);
  assertEquals(hit.l1Objects, 3);
  await assertRanges(device, ranges(hit), keys);
  t.release(hit);
  assertEquals(adapter.loads.flat().length, 3);
});

for (const adapterCount of [1, 2]) {
  Deno.test(`PrefetchController.prefetch() stops at a gap with ${adapterCount} adapter(s)`, async () => {
    const adapters = Array.from({ length: adapterCount }, () => new RecordingAdapter());
    using t = setUp(new HostDevice(), adapters);
    const keys = testKeys(5);
    for (const adapter of adapters) adapter.seed(keys.toSpliced(2, 1), LAYOUT);

    assertEquals(await t.count(keys), [2, 0]);
    assertEquals(
      adapters.flatMap(({ loads }) => loads.flat()),
      keys.slice(0, 2).map(({ id }) => id),
    );
    assertEquals(residents(t.l1, keys), [true, true, false, false, false]);
  });
}

Deno.test("PrefetchController.prefetch() gives back leases beyond a gap", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(5);
  adapter.seed(keys.slice(0, 2), LAYOUT);
  writeObjects(t.l1, keys.slice(3), LAYOUT);

  const hit = await t.match(keys, LAYOUT);
  assertEquals([hit.leases.length, hit.l1Objects], [2, 0]);
  assertEquals(t.l1.delete(keys.slice(3)), ["success", "success"]);
  t.release(hit);
});

Deno.test("PrefetchController.prefetch() loads nothing if the first object is missing", async () => {
  const adapters = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp(new HostDevice(), adapters);
  const keys = testKeys(4);
  for (const adapter of adapters) adapter.seed(keys.slice(1), LAYOUT);
  writeObjects(t.l1, keys.slice(3), LAYOUT);

  assertEquals(await t.count(keys), [0, 0]);
  assertEquals(adapters.flatMap(({ loads }) => loads), []);
});

deviceTest(
  "PrefetchController.prefetch() combines the objects of several adapters",
  async (device) => {
    const adapters = [new RecordingAdapter(), new RecordingAdapter()];
    using t = setUp(device, adapters);
    const keys = testKeys(8);
    for (const [a, adapter] of adapters.entries()) {
      adapter.seed(keys.filter((_, i) => i % 2 === a), LAYOUT);
    }

    const hit = await t.match(keys, LAYOUT);
    await assertRanges(device, ranges(hit), keys);
    t.release(hit);
    assertEquals(adapters.map(({ loads }) => loads.flat().length), [4, 4]);
  },
);

Deno.test("PrefetchController.prefetch() divides objects among the adapters that have them", async () => {
  const adapters = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp(new HostDevice(), adapters);
  const keys = testKeys(8);
  adapters[0]?.seed(keys.slice(0, 4), LAYOUT);
  adapters[1]?.seed(keys, LAYOUT);

  assertEquals(await t.count(keys), [8, 0]);
  assertEquals(adapters.map(({ loads }) => loads.flat().sort()), [
    [keys[0], keys[2]].map((key) => key?.id ?? "").sort(),
    [keys[1], keys[3], ...keys.slice(4)].map((key) => key?.id ?? "").sort(),
  ]);
});

deviceTest(
  "PrefetchController.prefetch() ends before an object that fails to load",
  async (device) => {
    const adapter = new RecordingAdapter();
    using t = setUp(device, [adapter]);
    const keys = testKeys(6);
    adapter.seed(keys, LAYOUT);
    adapter.beforeLoad = () => void adapter.held.delete(keys[3]?.id ?? "");

    const hit = await t.match(keys, LAYOUT);
    await assertRanges(device, ranges(hit), keys.slice(0, 3));
    t.release(hit);
    assertEquals(t.l1.has(keys[3] as ObjectKey), false);
  },
);

Deno.test("PrefetchController.prefetch() stops loading behind an object that fails to load", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(48);
  adapter.seed(keys, LAYOUT);
  adapter.beforeLoad = () => void adapter.held.delete(keys[3]?.id ?? "");

  assertEquals(await t.count(keys), [3, 0]);
  assertEquals(adapter.loads.length, 2, "of four batches, two were under way");
});

Deno.test("PrefetchController.prefetch() ends before an object that is damaged", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(4);
  adapter.seed(keys, LAYOUT);
  const bytes = adapter.held.get(keys[1]?.id ?? "") as Uint8Array;
  bytes[17] = (bytes[17] ?? 0) ^ 1;

  assertEquals(await t.count(keys), [1, 0]);
  assertEquals(t.l1.has(keys[1] as ObjectKey), false);
});

Deno.test("PrefetchController.prefetch() survives an adapter that claims what it cannot load", async () => {
  const liar = new RecordingAdapter();
  using t = setUp(new HostDevice(), [liar]);
  const keys = testKeys(4);
  liar.seed(keys, LAYOUT);
  for (const failure of [new Error("broken"), undefined]) {
    liar.beforeLoad = () => Promise.reject(failure);
    assertEquals(await t.count(keys), [0, 0]);
    assertEquals(residents(t.l1, keys), keys.map(() => false));
  }
  // It is asked again later.
  liar.beforeLoad = () => {};
  assertEquals(await t.count(keys), [4, 0]);
});

Deno.test("PrefetchController.prefetch() does without an adapter whose lookup fails", async () => {
  const adapters = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp(new HostDevice(), adapters);
  const keys = testKeys(4);
  for (const adapter of adapters) adapter.seed(keys, LAYOUT);
  (adapters[0] as RecordingAdapter).beforeLookup = () => {
    throw new Error("broken");
  };
  assertEquals(await t.count(keys), [4, 0]);
  assertEquals(adapters[0]?.loads, []);
});

deviceTest(
  "PrefetchController.prefetch() of a prompt larger than L1 serves its head",
  async (device) => {
    const adapter = new RecordingAdapter();
    using t = setUp(device, [adapter], { capacityBytes: 4 * LAYOUT.byteLength });
    const keys = testKeys(9);
    adapter.seed(keys, LAYOUT);

    const hit = await t.match(keys, LAYOUT);
    await assertRanges(device, ranges(hit), keys.slice(0, 4));
    assertEquals(t.prefetch.reportStatus().outOfMemory, 1);
    t.release(hit);
  },
);

Deno.test("PrefetchController.prefetch() evicts the tail in L1 to load a missing head", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter], { capacityBytes: 4 * LAYOUT.byteLength });
  const keys = testKeys(6);
  adapter.seed(keys, LAYOUT);
  writeObjects(t.l1, keys.slice(2), LAYOUT);

  const hit = await t.match(keys, LAYOUT);
  await assertRanges(t.l1.device, ranges(hit), keys.slice(0, 4));
  t.release(hit);
});

Deno.test("PrefetchController.prefetch() evicts idle objects, never leased ones", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter], { capacityBytes: 4 * LAYOUT.byteLength });
  writeObjects(t.l1, testKeys(4), LAYOUT);
  const read = await t.match(testKeys(2), LAYOUT);
  adapter.seed(testKeys(4, 10), LAYOUT);

  assertEquals(await t.count(testKeys(4, 10)), [2, 0]);
  await assertRanges(t.l1.device, ranges(read), testKeys(2));
  t.release(read);
});

deviceTest("PrefetchController serves the same keys to concurrent requests", async (device) => {
  const adapter = new RecordingAdapter();
  using t = setUp(device, [adapter], { capacityBytes: 128 * 1024 });
  const keys = testKeys(10);
  adapter.seed(keys, LAYOUT);

  const hits = await Promise.all(
    Array.from({ length: 6 }, () => t.match(keys, LAYOUT)),
  );
  for (const hit of hits) await assertRanges(device, ranges(hit), keys);
  for (const hit of hits) t.release(hit);
  assertEquals(t.l1.reportStatus().totalObjectCount, 10);
});

Deno.test("PrefetchController finishes more requests than fit into its scratch", async () => {
  const adapter = new RecordingAdapter();
  // One object fills one of the two blocks.
  const layout = testLayout(BLOCK_BYTES - 64);
  using t = setUp(new HostDevice(), [adapter], { capacityBytes: 2 ** 20, scratchBlocks: 2 });
  const prompts = Array.from({ length: 20 }, (_, i) => testKeys(5, i * 5));
  adapter.seed(prompts.flat(), layout);
  let open = 0;
  let most = 0;
  adapter.beforeLoad = async (batch) => {
    most = Math.max(most, open += batch.length);
    await Promise.resolve();
    open -= batch.length;
  };

  const hits = await Promise.all(prompts.map((keys) => t.match(keys, layout)));
  for (const [i, hit] of hits.entries()) {
    await assertRanges(t.l1.device, ranges(hit), prompts[i] ?? []);
  }
  for (const hit of hits) t.release(hit);
  assertEquals(most, 2, "objects in flight");
});

Deno.test("PrefetchController.prefetch() serves the same key twice in a chain as one gap at most", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const [a, b] = testKeys(2);
  const chain = [a, b, a, b] as ObjectKey[];
  adapter.seed(chain, LAYOUT);
  const hit = await t.match(chain, LAYOUT);
  await assertRanges(t.l1.device, ranges(hit), chain.slice(0, hit.leases.length));
  assert(hit.leases.length >= 2);
  t.release(hit);
  assertEquals(await t.count(chain), [4, 4]);
});

Deno.test("PrefetchController.prefetch() misses a resident object of another layout", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(3);
  writeObjects(t.l1, keys.slice(1, 2), testLayout(512));
  assertEquals(await t.count(keys.slice(1)), [0, 0]);

  // The adapter has the requested layout, but L1 has a single place for a key.
  adapter.seed(keys, LAYOUT);
  const hit = await t.match(keys, LAYOUT);
  assertEquals(hit.leases.map(({ layout }) => layout.byteLength), [1024]);
  t.release(hit);
});

Deno.test("PrefetchController.prefetch() misses an object whose layout has changed in the meantime", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(2);
  adapter.seed(keys, LAYOUT);
  adapter.beforeLoad = () => writeObjects(t.l1, keys, testLayout(512));
  assertEquals(await t.count(keys), [0, 0]);
});

Deno.test("PrefetchController.prefetch() at its deadline serves what is there: in a lookup", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(4);
  adapter.seed(keys, LAYOUT);
  writeObjects(t.l1, keys.slice(0, 2), LAYOUT);
  const { promise, open } = gate();
  adapter.beforeLookup = () => promise;

  const pending = t.count(keys, { deadlineMs: 100 });
  await t.clock.advance(99);
  assertEquals(t.prefetch.reportStatus().deadlines, 0);
  await t.clock.advance(1);
  assertEquals(await pending, [2, 2]);
  assertEquals(t.prefetch.reportStatus().deadlines, 1);

  open(); // What it locks now is unlocked, and nothing is loaded.
  await settle();
  assertEquals(adapter.loads, []);
});

Deno.test("PrefetchController.prefetch() at its deadline serves what is there: in a load", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(30);
  adapter.seed(keys, LAYOUT);
  const { promise, open } = gate();
  // The first batch of twelve arrives in time.
  adapter.beforeLoad = () => adapter.loads.length === 1 ? undefined : promise;

  const pending = t.match(keys, LAYOUT, { deadlineMs: 100 });
  await settle();
  await t.clock.advance(100);
  const hit = await pending;
  await assertRanges(t.l1.device, ranges(hit), keys.slice(0, 12));
  t.release(hit);
  assertEquals(t.l1.reportStatus().readLockedCount, 0);
  assert(t.scratch.lentBytes > 0, "buffers stay with the adapter");

  open(); // An object that arrives late is kept, but not leased.
  await settle();
  assert(residents(t.l1, keys.slice(12, 24)).every((isResident) => isResident));
  assertNoLocks(t.l1);
});

Deno.test("PrefetchController.prefetch() at its deadline serves what is there: waiting for scratch", async () => {
  const adapter = new RecordingAdapter();
  // The load of one object fills the scratch.
  const layout = testLayout(2 * BLOCK_BYTES - 64);
  using t = setUp(new HostDevice(), [adapter], { scratchBlocks: 2 });
  const [first, second] = [testKeys(1), testKeys(1, 1)];
  adapter.seed([...first, ...second], layout);
  const { promise, open } = gate();
  adapter.beforeLoad = () => promise;

  const loading = t.match(first, layout);
  const waiting = t.match(second, layout, { deadlineMs: 100 });
  await settle();
  assertEquals(
    t.l1.reportStatus().stagingObjectCount,
    1,
    "a waiting request holds no device memory",
  );
  await t.clock.advance(100);
  assertEquals((await waiting).leases, []);

  open();
  t.release(await loading);
  await settle();
  assertEquals(adapter.loads, [first.map(({ id }) => id)], "no request waits for the second");
});

Deno.test("PrefetchController.prefetch() that is answered in time leaves no timer behind", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  adapter.seed(testKeys(2), LAYOUT);
  assertEquals(await t.count(testKeys(2), { deadlineMs: 100 }), [2, 0]);
  assertEquals(t.clock.pendingTimers, 0);
  assertEquals(t.prefetch.reportStatus().deadlines, 0);
});

deviceTest(
  "PrefetchController never writes into room that it has held for too long",
  async (device) => {
    const adapter = new RecordingAdapter();
    const capacityBytes = LAYOUT.byteLength;
    using t = setUp(device, [adapter], { capacityBytes, writeTtlMs: 10_000 });
    const [key, other] = [testKey(0), testKey(1)];
    adapter.seed([key], LAYOUT);
    const { promise, open } = gate();
    adapter.beforeLoad = () => promise;
    const waiting = t.count([key]);
    await settle();
    await t.clock.advance(10_000);
    // The only memory goes to another object before the load ends.
    writeObjects(t.l1, [other], LAYOUT);
    const hit = await t.match([other], LAYOUT);
    open();
    assertEquals(await waiting, [0, 0]);
    await assertRanges(device, ranges(hit), [other]);
    t.release(hit);
  },
);

deviceTest(
  "PrefetchController never lends buffers that an adapter may still write to",
  async (device) => {
    const [slow, good] = [new RecordingAdapter(), new RecordingAdapter()];
    using t = setUp(device, [slow, good]);
    const [slowKeys, goodKeys] = [testKeys(10), testKeys(60, 100)];
    slow.seed(slowKeys, LAYOUT);
    good.seed(goodKeys.slice(0, 40), LAYOUT);
    const { promise, open } = gate();
    slow.beforeLoad = async (batch) => {
      await promise;
      for (const { parts } of batch) for (const part of parts) part.fill(0xee);
    };
    const waiting = t.count(slowKeys, { deadlineMs: 100 });
    await settle();
    await t.clock.advance(100);
    assertEquals(await waiting, [0, 0]);
    // The adapter's own deadline passes as well, and it still uses the buffers.
    await t.clock.advance(30_000);

    // The hung adapter writes while objects of another one wait to be verified and uploaded.
    const load = good.load.bind(good);
    good.load = async (...args) => {
      const loaded = await load(...args);
      open();
      await settle();
      return loaded;
    };
    const hit = await t.match(goodKeys, LAYOUT);
    await assertRanges(device, ranges(hit), goodKeys.slice(0, 40));
    t.release(hit);
    await settle();
    assertEquals(residents(t.l1, slowKeys), slowKeys.map(() => false));
  },
);

Deno.test("PrefetchController works while a hanging adapter keeps its share of the scratch", async () => {
  const [hung, good] = [new RecordingAdapter(), new RecordingAdapter()];
  // A single load of the hung adapter takes all of the scratch.
  const layout = testLayout(2 * BLOCK_BYTES - 64);
  using t = setUp(new HostDevice(), [hung, good], { scratchBlocks: 2 });
  const keys = testKeys(3);
  hung.seed(keys, layout);
  good.seed(keys, layout);
  const { promise, open } = gate();
  hung.beforeLoad = () => promise;

  const pending = t.match(keys, layout);
  await t.clock.advance(0);
  await t.clock.advance(29_999);
  assertEquals(good.loads, []);
  await t.clock.advance(1);
  const hit = await pending;
  await assertRanges(t.l1.device, ranges(hit), keys);
  t.release(hit);
  await t.prefetch.idle();
  assertEquals(hung.loads.length, 1);

  open();
  await settle();
});

Deno.test("PrefetchController.prefetch() rejects when the caller aborts", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(4);
  adapter.seed(keys, LAYOUT);
  writeObjects(t.l1, keys.slice(0, 1), LAYOUT);
  const signal = AbortSignal.abort(new Error("before"));
  await assertRejects(() => t.match(keys, LAYOUT, { signal }), Error, "before");
  assertEquals(adapter.lookups, []);

  for (const phase of ["beforeLookup", "beforeLoad"] as const) {
    const { promise, open } = gate();
    const reached = gate();
    adapter[phase] = () => {
      reached.open();
      return promise;
    };
    const controller = new AbortController();
    const pending = t.match(keys, LAYOUT, {
      signal: controller.signal,
      deadlineMs: 100,
    });
    await reached.promise;
    controller.abort(new Error(phase));
    await assertRejects(() => pending, Error, phase);
    assertEquals(t.l1.reportStatus().readLockedCount, 0);
    open();
    await settle();
    assertNoLocks(t.l1);
    assertEquals(t.clock.pendingTimers, 0);
    adapter[phase] = () => {};
  }
});

Deno.test("PrefetchController.prefetch() answers once, whenever the caller aborts", async () => {
  let answers = 0;
  // The answer may arrive in any turn of the microtask queue: all are tried.
  for (let turns = 0; turns < 60; turns++) {
    const adapter = new RecordingAdapter();
    using t = setUp(new HostDevice(), [adapter]);
    const keys = testKeys(4);
    adapter.seed(keys, LAYOUT);
    const reached = gate();
    adapter.beforeLoad = () => reached.open();
    const controller = new AbortController();

    const outcome = t.match(keys, LAYOUT, {
      signal: controller.signal,
      deadlineMs: 100,
    }).catch(() => null);
    await reached.promise;
    for (let turn = 0; turn < turns; turn++) await Promise.resolve();
    controller.abort();
    const hit = await outcome;
    await settle();

    assertEquals(t.l1.reportStatus().readLockedCount, hit === null ? 0 : 4, `${turns} turns`);
    if (hit === null) continue;
    answers++;
    assert(hit.leases.length === 4 && hit.leases.every((lease) => t.l1.isLeased(lease)));
    t.release(hit);
  }
  assert(answers > 0 && answers < 60, "both outcomes were seen");
});

gpuTest(
  "PrefetchController.prefetch() serves nothing of a device that is lost meanwhile",
  async (gpuDevice) => {
    using device = WebGpuDevice.adopt(gpuDevice);
    const adapter = new RecordingAdapter();
    using t = setUp(device, [adapter]);
    device.lost.then(() => t.l1[Symbol.dispose]());
    const keys = testKeys(30);
    adapter.seed(keys, LAYOUT);
    adapter.beforeLoad = async () => {
      if (adapter.loads.length < 2) return;
      gpuDevice.destroy();
      await device.lost;
    };

    const hit = await t.match(keys, LAYOUT);
    assert(!hit.leases.some((lease) => t.l1.isLeased(lease)));
    t.release(hit);
    assertEquals(await t.count(keys), [0, 0]);
    assertEquals(adapter.count(keys), 30, "objects of the adapter");
  },
);

Deno.test("PrefetchController.prefetch() serves the longest prefix from any mix of adapters", async () => {
  const LENGTH = 30;
  const someOf = fc.uniqueArray(fc.nat(LENGTH - 1), { maxLength: LENGTH });
  const almostAll = someOf.map((absent) =>
    Array.from({ length: LENGTH }, (_, i) => i).filter((i) => !absent.slice(0, 3).includes(i))
  );
  const places = fc.oneof(someOf, almostAll);
  await fc.assert(
    fc.asyncProperty(places, places, places, someOf, async (inL1, inFirst, inSecond, faulty) => {
      const adapters = [new RecordingAdapter(), new RecordingAdapter()];
      using t = setUp(new HostDevice(), adapters);
      const keys = testKeys(LENGTH);
      const pick = (indices: number[]): ObjectKey[] =>
        indices.toSorted((a, b) => a - b).map((i) => keys[i] as ObjectKey);
      const broken = new Set(pick(faulty.slice(0, 2)).map(({ id }) => id));
      writeObjects(t.l1, pick(inL1), LAYOUT);
      for (const [a, indices] of [inFirst, inSecond].entries()) {
        const adapter = adapters[a] as RecordingAdapter;
        adapter.seed(pick(indices), LAYOUT);
        adapter.beforeLoad = (batch) => {
          for (const { key } of batch) if (broken.has(key.id)) adapter.held.delete(key.id);
        };
      }
      const isServed = (i: number): boolean =>
        inL1.includes(i) ||
        (inFirst.includes(i) || inSecond.includes(i)) && !broken.has(keys[i]?.id ?? "");
      const expected = keys.findIndex((_, i) => !isServed(i));

      const hit = await t.match(keys, LAYOUT);
      await assertRanges(
        t.l1.device,
        ranges(hit),
        keys.slice(0, expected < 0 ? LENGTH : expected),
      );
      t.release(hit);
    }),
    { numRuns: 60 },
  );
});

Deno.test("PrefetchController loads what concurrent requests want once, with any policy", async () => {
  for (const policy of [retain, defaultPrefetch]) {
    const adapters = [new RecordingAdapter(), new RecordingAdapter()];
    using t = setUp(new HostDevice(), adapters, { policy });
    const keys = testKeys(30);
    for (const adapter of adapters) {
      adapter.seed(keys, LAYOUT);
      adapter.beforeLoad = () => wait(t.clock, 10);
    }
    const lengths = [30, 12, 30, 5, 21];
    const pending = lengths.map((length) => t.match(keys.slice(0, length), LAYOUT));
    await t.pass(10);
    await t.pass(10);
    await t.pass(10);
    const hits = await Promise.all(pending);
    for (const [i, hit] of hits.entries()) {
      await assertRanges(t.l1.device, ranges(hit), keys.slice(0, lengths[i]));
      // What one reader releases stays for the others.
      t.release(hit);
    }
    assertEquals(adapters.flatMap(({ loads }) => loads.flat()).length, 30);
    assertEquals(adapters.map(({ lookups }) => lookups.length), [1, 1]);
    assertEquals(residents(t.l1, keys), keys.map(() => policy === retain));
    assertEquals(t.prefetch.reportStatus().sharedLoads, 12 + 30 + 5 + 21);
  }
});

Deno.test("PrefetchController leases what another request loads as soon as it is resident", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter], { policy: defaultPrefetch });
  const keys = testKeys(2);
  adapter.seed(keys, LAYOUT);
  const { promise, open } = gate();
  adapter.beforeLoad = () => promise;
  // The request that loads it has been answered: it goes with its last lease.
  const first = t.count(keys, { deadlineMs: 10 });
  const second = t.count(keys);
  await t.pass(10);
  assertEquals(await first, [0, 0]);
  open();
  assertEquals(await second, [2, 0]);
  assertEquals(adapter.loads, [keys.map(({ id }) => id)]);
  assertEquals(residents(t.l1, keys), [false, false]);
});

Deno.test("PrefetchController loads by itself when another request has given up", async () => {
  const keys = testKeys(4);
  for (const phase of ["beforeLookup", "beforeLoad"] as const) {
    const adapter = new RecordingAdapter();
    using t = setUp(new HostDevice(), [adapter]);
    adapter.seed(keys, LAYOUT);
    const { promise, open } = gate();
    adapter[phase] = () => {
      adapter[phase] = () => {};
      return promise;
    };
    const first = t.count(keys.slice(0, 2), { deadlineMs: 10 });
    const second = t.count(keys);
    await t.pass(10);
    assertEquals(await first, [0, 0]);
    // Objects that the first one is loading are awaited, objects that it only looked up are not.
    if (phase === "beforeLoad") open();
    assertEquals(await second, [4, 0], phase);
    assertEquals(adapter.lookups.length, phase === "beforeLookup" ? 3 : 2);
    open();
    await settle();
  }
});

Deno.test("PrefetchController does not look up again what another request found absent", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(3);
  adapter.seed(keys.slice(0, 1), LAYOUT);
  const counts = await Promise.all([t.count(keys), t.count(keys), t.count(keys)]);
  assertEquals(counts, [[1, 0], [1, 0], [1, 0]]);
  // The answer for a chain covers a known number of objects: not the last one.
  const asked = adapter.lookups.flat().filter((id) => id === keys[1]?.id);
  assertEquals(asked.length, 1);
});

Deno.test("PrefetchController looks up again what lay behind the gap of another request", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(3);
  adapter.seed(keys.slice(1), LAYOUT);
  const { promise, open } = gate();
  adapter.beforeLookup = () => promise;
  const first = t.count(keys);
  writeObjects(t.l1, keys.slice(0, 1), LAYOUT);
  const second = t.count(keys);
  open();
  await first;
  assertEquals(await second, [3, 1]);
});

Deno.test("PrefetchController does not wait for a request that hangs if others can serve", async () => {
  const [hung, good] = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp(new HostDevice(), [hung, good]);
  const keys = testKeys(4);
  for (const adapter of [hung, good]) adapter.seed(keys, LAYOUT);
  const answer = gate();
  const load = gate();
  good.beforeLookup = () => answer.promise;
  hung.beforeLoad = () => load.promise;

  const first = t.count(keys, { deadlineMs: 50 });
  await t.pass(30);
  assertEquals(hung.loads.length, 1);
  const second = t.count(keys);
  await t.pass(20);
  assertEquals(await first, [0, 0]);
  good.beforeLookup = () => {};
  await t.pass(200);
  assertEquals(await second, [4, 0]);
  assertEquals(hung.loads.length, 1);
  assertEquals(good.loads.length, 1);
  answer.open();
  load.open();
  await settle();
});

Deno.test("PrefetchController serves what does not depend on the adapters of a hung request", async () => {
  const [hung, good] = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp(new HostDevice(), [hung, good], { capacityBytes: 2 ** 18 });
  const keys = testKeys(80);
  hung.seed(keys.slice(0, 1), LAYOUT);
  good.seed(keys.slice(1), LAYOUT);
  const { promise, open } = gate();
  hung.beforeLoad = () => promise;
  const others = gate();
  good.beforeLoad = () => others.promise;

  const first = t.count(keys, { deadlineMs: 50 });
  await t.pass(10);
  writeObjects(t.l1, keys.slice(0, 1), LAYOUT);
  const second = t.count(keys);
  await t.pass(40);
  assertEquals(await first, [1, 0]);
  // Objects that the first one had not started to load are free at once, although it still waits
  // for the other.
  others.open();
  await settle();
  assertEquals(await second, [80, 1]);
  open();
  await settle();
});

Deno.test("PrefetchController does not wait for a request that has failed, though it hangs", async () => {
  const [hung, broken] = [new RecordingAdapter(), new RecordingAdapter()];
  using t = setUp(new HostDevice(), [hung, broken]);
  const keys = testKeys(2);
  hung.seed(keys.slice(0, 1), LAYOUT);
  broken.seed(keys.slice(1), LAYOUT);
  const { promise, open } = gate();
  hung.beforeLoad = () => promise;
  broken.beforeLoad = () => {
    broken.beforeLoad = () => {};
    return wait(t.clock, 30).then(() => Promise.reject(new Error("broken")));
  };
  const first = t.count(keys, { deadlineMs: 20 });
  await t.pass(10);
  const second = t.count(keys.slice(1));
  await t.pass(10);
  assertEquals(await first, [0, 0]);
  await t.pass(10);
  assertEquals(await second, [1, 0], "the other object of the first one is still being loaded");
  open();
  await settle();
});

Deno.test("PrefetchController serves 64 requests at the same time, the others in order", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter], { capacityBytes: 2 ** 20 });
  const prompts = Array.from({ length: 200 }, (_, i) => testKeys(1, i));
  adapter.seed(prompts.flat(), LAYOUT);
  let most = 0;
  const order: number[] = [];
  adapter.beforeLookup = async () => {
    most = Math.max(most, t.prefetch.reportStatus().activeRequests);
    await wait(t.clock, 10);
  };
  const pending = prompts.map((keys, i) => t.count(keys).then(() => order.push(i)));
  assertEquals(t.prefetch.reportStatus().queuedRequests, 136);
  for (let turn = 0; turn < 4; turn++) await t.pass(10);
  await Promise.all(pending);
  assertEquals(most, 64);
  assertEquals(order, prompts.map((_, i) => i));
});

Deno.test("PrefetchController answers queued requests at their deadline", async () => {
  const adapter = new RecordingAdapter();
  const told: number[] = [];
  using t = setUp(new HostDevice(), [adapter], {
    capacityBytes: 2 ** 20,
    onDeadline: ({ servedObjects }) => void told.push(servedObjects),
  });
  const { promise, open } = gate();
  adapter.beforeLookup = () => promise;
  const keys = testKeys(64);
  adapter.seed(keys, LAYOUT);
  const active = keys.map((key) => t.count([key]));

  const chain = testKeys(4, 100);
  writeObjects(t.l1, chain.slice(0, 2), LAYOUT);
  const late = t.count(chain, { deadlineMs: 50 });
  const controller = new AbortController();
  const aborted = t.count(chain, { signal: controller.signal, deadlineMs: 60 });
  const patient = t.count(chain);
  assertEquals(t.prefetch.reportStatus().queuedRequests, 3);
  await t.pass(50);
  assertEquals(await late, [2, 2]);
  assertEquals(told, [2]);
  controller.abort(new Error("left"));
  await assertRejects(() => aborted, Error, "left");
  assertEquals(t.prefetch.reportStatus().queuedRequests, 1);
  assertEquals(t.prefetch.reportStatus().deadlines, 1);
  open();
  assertEquals(await patient, [2, 2]);
  assertEquals(await Promise.all(active), keys.map(() => [1, 0]));
  assertEquals(adapter.lookups.length, 65, "an aborted request is not served");
});

Deno.test("PrefetchController counts the time in the queue for the deadline", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter], { capacityBytes: 2 ** 20 });
  adapter.beforeLookup = () => wait(t.clock, 30);
  const active = testKeys(64).map((key) => t.count([key]));
  adapter.seed(testKeys(1, 100), LAYOUT);
  let answeredAt = 0;
  const late = t.count(testKeys(1, 100), { deadlineMs: 40 })
    .finally(() => answeredAt = t.clock.now());
  await t.pass(39);
  await t.pass(100);
  assertEquals(await late, [0, 0]);
  assertEquals(answeredAt, 40);
  await Promise.all(active);
});

Deno.test("PrefetchController takes little memory for requests that wait", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter], { capacityBytes: 2 ** 20 });
  const { promise, open } = gate();
  adapter.beforeLookup = () => promise;
  const keys = testKeys(2);
  const before = Deno.memoryUsage().heapUsed;
  const pending = Array.from(
    { length: 20_000 },
    () => t.prefetch.prefetch([{ keys, layout: LAYOUT }]),
  );
  assertEquals(t.prefetch.reportStatus().queuedRequests, 20_000 - 64);
  const bytes = Deno.memoryUsage().heapUsed - before;
  assert(bytes < 20_000 * 2_048, `${bytes} bytes`);
  open();
  const results = await Promise.all(pending);
  assert(results.every(({ length }) => length === 0));
});

Deno.test("PrefetchController.warm() loads objects into L1 to stay and leases none", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter], { policy: defaultPrefetch });
  const keys = testKeys(6);
  adapter.seed(keys.slice(0, 5), LAYOUT);
  writeObjects(t.l1, keys.slice(1, 2), LAYOUT);
  const { length, l1Objects } = await t.prefetch.warm([{ keys, layout: LAYOUT }]);
  assertEquals([length, l1Objects], [5, 1]);
  assertNoLocks(t.l1);
  assertEquals(residents(t.l1, keys), [true, true, true, true, true, false]);
  assertEquals(await t.count(keys.slice(0, 5)), [5, 5]);
  assertEquals(residents(t.l1, keys.slice(0, 5)), [true, true, true, true, true]);

  const again = await t.prefetch.warm([{ keys: keys.slice(0, 5), layout: LAYOUT }]);
  assertEquals([again.length, again.l1Objects], [5, 5]);
  assertNoLocks(t.l1);
});

Deno.test("PrefetchController keeps what the policy retains, and the rest while it is leased", async () => {
  const adapter = new RecordingAdapter();
  const keys = testKeys(4);
  const policy = { name: "odd", retains: (key: ObjectKey) => key.id === keys[1]?.id };
  using t = setUp(new HostDevice(), [adapter], { policy });
  adapter.seed(keys, LAYOUT);
  const [first, second] = await Promise.all([t.match(keys, LAYOUT), t.match(keys, LAYOUT)]);
  t.release(first);
  assertEquals(residents(t.l1, keys), [true, true, true, true]);
  await assertRanges(t.l1.device, ranges(second), keys);
  t.release(second);
  assertEquals(residents(t.l1, keys), [false, true, false, false]);
});

Deno.test("PrefetchController counts a match as a use", async () => {
  using t = setUp(new HostDevice(), [], { capacityBytes: 2 * LAYOUT.byteLength });
  const keys = testKeys(3);
  for (const key of keys.slice(0, 2)) writeObjects(t.l1, [key], LAYOUT);
  assertEquals(await t.count(keys.slice(0, 1)), [1, 1]);
  writeObjects(t.l1, keys.slice(2), LAYOUT);
  assertEquals(residents(t.l1, keys), [true, false, true]);
});

Deno.test("PrefetchController serves no invalid leases", async () => {
  for (const loss of ["device", "time"]) {
    const adapter = new RecordingAdapter();
    using t = setUp(new HostDevice(), [adapter], { readTtlMs: 1_000 });
    const keys = testKeys(4);
    writeObjects(t.l1, keys.slice(0, 2), LAYOUT);
    adapter.seed(keys, LAYOUT);
    const { promise, open } = gate();
    adapter.beforeLookup = () => promise;
    const pending = t.match(keys, LAYOUT);
    await settle();
    if (loss === "device") {
      t.l1.detach();
      t.l1.attach(new HostDevice());
      open();
    } else {
      await t.pass(1_000);
      // Expired objects are evictable, and are evicted here.
      t.l1.evictTo(0);
      open();
    }
    const hit = await pending;
    assertEquals(hit.leases.length, 0, loss);
    await settle();
    assertNoLocks(t.l1);
  }
});

Deno.test("PrefetchController continues when its device is replaced during a load", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(4);
  adapter.seed(keys, LAYOUT);
  adapter.beforeLoad = () => {
    adapter.beforeLoad = () => {};
    t.l1.detach();
    t.l1.attach(new HostDevice());
  };
  const hit = await t.match(keys, LAYOUT);
  await assertRanges(t.l1.device, ranges(hit), keys);
  assertEquals(adapter.loads.length, 2);
  t.release(hit);
});

Deno.test("PrefetchController leaves no rejection unhandled, whenever the caller aborts", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  adapter.beforeLookup = () => wait(t.clock, 1);
  const keys = testKeys(65);
  const controllers = keys.map(() => new AbortController());
  const pending = keys.map((key, i) =>
    t.count([key], { signal: (controllers[i] as AbortController).signal }).catch(() => "rejected")
  );
  // At once, and in the turn in which it is dequeued.
  for (const controller of controllers.slice(1)) controller.abort();
  await t.pass(1);
  const outcomes = await Promise.all(pending);
  assertEquals(outcomes.filter((outcome) => outcome === "rejected").length, 64);
  await t.pass(1);
});
