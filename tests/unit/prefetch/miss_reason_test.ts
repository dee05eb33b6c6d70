import { assertEquals } from "@std/assert";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import type { PrefetchOptions } from "../../../src/prefetch/prefetch_controller.ts";
import type { PrefetchResult } from "../../../src/prefetch/prefetch_request.ts";
import { writeObjects } from "../../support/l1.ts";
import { testKeys, testLayout } from "../../support/objects.ts";
import { LAYOUT, settle, type SetUp, setUp } from "../../support/prefetch.ts";
import { gate, RecordingAdapter } from "../../support/recording_adapter.ts";

/** Prefetches a chain and ends its leases. */
async function request(
  t: SetUp,
  keys: readonly ObjectKey[],
  options: PrefetchOptions & { windowChunks?: number } = {},
): Promise<PrefetchResult> {
  const { windowChunks, ...others } = options;
  const group = { keys, layout: LAYOUT, ...(windowChunks === undefined ? {} : { windowChunks }) };
  const result = await t.prefetch.prefetch([group], others);
  t.l1.finishRead(result.leases.flat());
  return result;
}

function two(): [RecordingAdapter, RecordingAdapter] {
  return [new RecordingAdapter(), new RecordingAdapter()];
}

Deno.test("PrefetchResult.miss is left out if nothing is missing", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(4);
  adapter.seed(keys, LAYOUT);
  assertEquals((await request(t, keys)).miss, undefined);
  assertEquals((await request(t, [])).miss, undefined);
  assertEquals(Object.values(t.prefetch.reportStatus().misses).every((count) => count === 0), true);
});

Deno.test("PrefetchResult.miss is absent without adapters, too", async () => {
  using t = setUp(new HostDevice(), []);
  const keys = testKeys(4);
  writeObjects(t.l1, keys.slice(0, 3), LAYOUT);
  assertEquals((await request(t, keys)).miss, { chunk: 3, reason: "absent" });
});

Deno.test("PrefetchResult.miss has the gravest reason of several adapters", async () => {
  const [first, second] = two();
  using t = setUp(new HostDevice(), [first, second]);
  const keys = testKeys(3);
  first.seed(keys, LAYOUT);
  first.held.get(keys[1]?.id ?? "")?.fill(7);
  assertEquals((await request(t, keys)).miss, { chunk: 1, reason: "damaged" });
  const others = testKeys(3, 10);
  second.beforeLookup = () => Promise.reject(new Error("broken"));
  assertEquals((await request(t, others)).miss, { chunk: 0, reason: "failed" });
});

Deno.test("PrefetchResult.miss is shared by requests that wait for a load", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(3);
  adapter.seed(keys, LAYOUT);
  adapter.held.get(keys[1]?.id ?? "")?.fill(7);
  const results = await Promise.all([request(t, keys), request(t, keys)]);
  for (const { miss } of results) assertEquals(miss, { chunk: 1, reason: "damaged" });
  assertEquals(results.map(({ loadedObjects }) => [...loadedObjects.values()]), [[1], [1]]);
});

Deno.test("PrefetchResult.miss names the chunk of a window that is missing", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(6);
  adapter.seed(keys.toSpliced(4, 1), LAYOUT);
  const { length, miss } = await request(t, keys, { windowChunks: 2 });
  assertEquals([length, miss], [4, { chunk: 4, reason: "absent" }]);
});

Deno.test("PrefetchResult.miss is no-room where the tail made room for the head", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter], { capacityBytes: 4 * LAYOUT.byteLength });
  const keys = testKeys(6);
  adapter.seed(keys, LAYOUT);
  writeObjects(t.l1, keys.slice(2), LAYOUT);
  const { length, miss, l1Objects } = await request(t, keys);
  assertEquals([length, miss, l1Objects], [4, { chunk: 4, reason: "no-room" }, 2]);
});

Deno.test("PrefetchResult.miss is lost where a lease expired", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter], { readTtlMs: 1_000 });
  const keys = testKeys(3);
  writeObjects(t.l1, keys.slice(0, 2), LAYOUT);
  const { promise, open } = gate();
  adapter.beforeLookup = () => promise;
  const pending = request(t, keys);
  await t.pass(1_000);
  t.l1.evictTo(0);
  open();
  assertEquals((await pending).miss, { chunk: 0, reason: "lost" });
});

Deno.test("PrefetchResult.miss is deadline, also in the queue, unless another reason is known", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter], { capacityBytes: 2 ** 20 });
  const { promise, open } = gate();
  adapter.beforeLookup = () => promise;
  const active = testKeys(64).map((key) => request(t, [key]));
  const queued = request(t, testKeys(2, 100), { deadlineMs: 10 });
  await t.pass(10);
  const late = await queued;
  assertEquals([late.isAtDeadline, late.miss], [true, { chunk: 0, reason: "deadline" }]);
  open();
  await Promise.all(active);
  adapter.beforeLookup = () => {};

  const keys = testKeys(14, 200);
  adapter.seed(keys, LAYOUT);
  adapter.held.get(keys[3]?.id ?? "")?.fill(7);
  const load = gate();
  adapter.beforeLoad = () =>
    adapter.loads.at(-1)?.includes(keys[3]?.id ?? "") ? undefined : load.promise;
  const pending = request(t, keys, { deadlineMs: 10, windowChunks: 14 });
  await t.pass(10);
  const result = await pending;
  assertEquals([result.length, result.miss], [3, { chunk: 3, reason: "damaged" }]);
  load.open();
  await settle();
});

Deno.test("PrefetchResult.miss is damaged where L1 has another layout", async () => {
  const adapter = new RecordingAdapter();
  using t = setUp(new HostDevice(), [adapter]);
  const keys = testKeys(2);
  adapter.seed(keys, LAYOUT);
  writeObjects(t.l1, keys.slice(1), testLayout(512));
  assertEquals((await request(t, keys)).miss, { chunk: 1, reason: "damaged" });
});

Deno.test("PrefetchResult.loadedObjects counts what each adapter loaded", async () => {
  const [first, second] = two();
  using t = setUp(new HostDevice(), [first, second]);
  const keys = testKeys(5);
  writeObjects(t.l1, keys.slice(0, 1), LAYOUT);
  first.seed(keys.slice(1, 2), LAYOUT);
  second.seed(keys.slice(2), LAYOUT);
  const { l1Objects, loadedObjects } = await request(t, keys);
  assertEquals(l1Objects, 1);
  assertEquals([...loadedObjects].map(([{ id }, count]) => [id, count]), [[0, 1], [1, 3]]);
});
