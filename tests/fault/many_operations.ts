// Submits operations without waiting; prints their maximum memory usage.
import { type AdapterObject, concatParts } from "../../src/adapter/contract.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { mapAdapter, moduleOf } from "../support/adapters.ts";
import { testBytes, testKeys, testLayout } from "../support/objects.ts";

const [operations = 0, loadBytes = 0, storeBytes = 0] = Deno.args.map(Number);
const layout = testLayout(16 * 1024);
const objects = 2_000;
const held = new Map<string, Uint8Array<ArrayBuffer>>();
const adapter = mapAdapter(held);
const lent = { now: 0, most: 0 };

/** Counts the bytes lent to the adapter over some turns of the event loop. */
async function lend<T>(batch: readonly AdapterObject[], call: () => Promise<T>): Promise<T> {
  const bytes = batch.reduce((sum, { byteLength }) => sum + byteLength, 0);
  lent.now += bytes;
  lent.most = Math.max(lent.most, lent.now);
  await new Promise((resolve) => setTimeout(resolve));
  const answer = await call();
  lent.now -= bytes;
  return answer;
}

await using cache = await TieredCache.open({
  device: new HostDevice(),
  // A tenth of the objects: nearly every match moves bytes.
  l1: { capacityBytes: objects / 10 * layout.byteLength },
  adapters: [moduleOf(() => ({
    ...adapter,
    store: (batch, options) => lend(batch, () => adapter.store(batch, options)),
    load: (batch, options) => lend(batch, () => adapter.load(batch, options)),
  }))],
  l2: [{ type: "hand_made" }],
  store: { maxInFlightBytes: storeBytes, flushBytes: 2 ** 20 },
  prefetch: { maxInFlightBytes: loadBytes },
});
const keys = testKeys(objects);

function put(batch: typeof keys): number {
  const written = cache.reserveWrite(batch, layout).flatMap((reservation) => {
    if (reservation.status !== "success") return [];
    const { key, range } = reservation.staged;
    cache.device.upload(range, [testBytes(key, range.byteLength)]);
    return [reservation.staged];
  });
  cache.finishWrite(written);
  return written.length;
}

for (let start = 0; start < objects; start += 100) {
  put(keys.slice(start, start + 100));
  await cache.flush();
}
const wrong = keys.filter((key) => {
  const bytes = held.get(key.id);
  return bytes === undefined || concatParts([bytes]).length <= layout.byteLength;
}).length;

const before = Deno.memoryUsage().rss;
const peak = { rss: 0, loads: 0 };
const sample = (): void => {
  peak.rss = Math.max(peak.rss, Deno.memoryUsage().rss - before);
  peak.loads = Math.max(peak.loads, cache.reportStatus().prefetch.loadBytesInUse);
};
let settled = 0;
let hits = 0;
let puts = 0;
const pending: Promise<void>[] = [];
for (let i = 0; i < operations; i++) {
  const key = keys[(i * 7919) % objects];
  if (key === undefined) continue;
  if (i % 10 === 0) puts += put([key]);
  const matched = cache.match([key], layout).then((hit) => {
    hits += hit.length;
    settled++;
    hit[Symbol.dispose]();
    if (settled % 500 === 0) sample();
  });
  pending.push(matched);
  if (i % 1_000 === 0) sample();
}
sample();
await Promise.all(pending);
await cache.flush();
const { l1, prefetch, store } = cache.reportStatus();
// deno-lint-ignore no-console -- the test reads it
console.log(JSON.stringify({
  settled,
  hits,
  wrong,
  hasPut: puts > 0,
  requests: prefetch.requests,
  left: {
    requests: prefetch.activeRequests + prefetch.queuedRequests + prefetch.drainingRequests,
    loadBytes: prefetch.loadBytesInUse,
    lentBytes: lent.now,
    unsaved: store.unsavedObjects,
    locks: l1.readLockedCount + l1.stagingObjectCount + l1.heldCount,
  },
  peak: { ...peak, lent: lent.most },
}));
