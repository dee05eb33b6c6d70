import { assert, assertEquals } from "@std/assert";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import { Bitmap, type L2Adapter } from "../../../src/adapter/contract.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { TieredCache } from "../../../src/tiered_cache.ts";
import { mapAdapter } from "../../support/adapters.ts";
import { optionsOf, put } from "../../support/caches.ts";
import { stagedOf } from "../../support/l1.ts";
import { testKeys, testLayout } from "../../support/objects.ts";

const LAYOUT = testLayout(192);
const OBJECT_BYTES = 256;
const GIB = 2 ** 30;

function tracked(cache: TieredCache): number {
  return cache.reportStatus().eviction.adapters[0]?.trackedObjects ?? NaN;
}

Deno.test("what an adapter evicts leaves the index that quotas need", async () => {
  await using cache = await TieredCache.open({
    device: new HostDevice(),
    l1: { capacityBytes: 2 ** 20 },
    l2: [{ type: "dram", max_capacity_gb: 8 * OBJECT_BYTES / GIB }],
  });
  cache.quota.set("anyone", { l2Bytes: 1_000 });
  for (let n = 0; n < 100; n += 4) {
    put(cache, testKeys(4, n), LAYOUT);
    await cache.flush();
  }
  const [dram] = cache.reportStatus().adapters;
  assertEquals([tracked(cache), dram?.details["storedObjects"]], [8, 8]);
});

/** Keeps the last 200 objects, and does not report which it drops. */
function forgetful(): L2Adapter & { readonly held: Set<string> } {
  const held = new Set<string>();
  return {
    ...mapAdapter(),
    held,
    capabilities: { evicts: true },
    store(objects) {
      for (const { key } of objects) held.add(key.id);
      for (const id of held) if (held.size > 200) held.delete(id);
      return Promise.resolve({ stored: new Bitmap(objects.length, objects.length), bytes: 0 });
    },
    delete: (keys: readonly ObjectKey[]) =>
      Promise.resolve({ deleted: Bitmap.from(keys, ({ id }) => held.delete(id)), bytes: 0 }),
    usage: () => Promise.resolve({ usedBytes: 0, objectCount: held.size }),
  };
}

Deno.test("the index stays within bounds of an adapter that does not say what it evicts", async () => {
  const adapter = forgetful();
  await using cache = await TieredCache.open(optionsOf({ forgetful: adapter }));
  cache.quota.set("anyone", { l2Bytes: 1_000 });
  let most = 0;
  for (let n = 0; n < 5_000; n += 500) {
    cache.finishWrite(stagedOf(cache.reserveWrite(testKeys(500, n), LAYOUT)));
    await cache.flush();
    most = Math.max(most, tracked(cache));
  }
  assert(most < 2_500, `${most} entries for ${adapter.held.size} objects`);
  const { droppedObjects = 0 } = cache.reportStatus().eviction.adapters[0] ?? {};
  assert(droppedObjects > 2_000, `${droppedObjects} are dropped`);
});
