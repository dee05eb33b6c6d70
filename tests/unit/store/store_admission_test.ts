import { assertEquals } from "@std/assert";
import { HostDevice, TieredCache, type TieredCacheOptions } from "../../../mod.ts";
import { StoreAdmission } from "../../../src/store/store_admission.ts";
import { defaultStore, secondTouch } from "../../../src/store/store_policy.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { put } from "../../support/caches.ts";
import { testKeys, testLayout } from "../../support/objects.ts";

const LAYOUT = testLayout(1024);
const HOUR_MS = 3_600_000;

function open(store: NonNullable<TieredCacheOptions["store"]>): Promise<TieredCache> {
  const l1 = { capacityBytes: 4 * 1024 };
  return TieredCache.open({
    device: new HostDevice(),
    l1,
    store,
    l2: [{ type: "dram", max_capacity_gb: 1 }],
  });
}

/** Number of objects in the adapter, and of those refused. */
async function counts(cache: TieredCache): Promise<unknown[]> {
  await cache.flush();
  const { adapters: [dram], store } = cache.reportStatus();
  return [dram?.details["storedObjects"], ...Object.values(store.refusedObjects)];
}

Deno.test("second_touch stores what is hit in L1, or written again after it left", async () => {
  await using cache = await open({ policy: "second_touch" });
  const keys = testKeys(6);
  put(cache, keys.slice(0, 2), LAYOUT);
  assertEquals(await counts(cache), [0, 2, 0]);
  using hit = await cache.match(keys.slice(0, 1), LAYOUT);
  assertEquals(hit.length, 1);
  assertEquals(await counts(cache), [1, 2, 0]);
  using again = await cache.match(keys.slice(0, 1), LAYOUT);
  assertEquals([again.length, await counts(cache)], [1, [1, 2, 0]]);
  for (const key of keys.slice(2)) put(cache, [key], LAYOUT);
  assertEquals(await counts(cache), [1, 6, 0]);
  put(cache, keys.slice(1, 2), LAYOUT);
  assertEquals(await counts(cache), [2, 6, 0]);
});

Deno.test("store.bytesPerDay bounds what adapters get, and the rest stays in L1", async () => {
  await using cache = await open({ bytesPerDay: 3 * 1200 });
  const keys = testKeys(4);
  put(cache, keys, LAYOUT);
  assertEquals(await counts(cache), [3, 0, 1]);
  using hit = await cache.match(keys, LAYOUT);
  assertEquals(hit.length, 4);
});

Deno.test("the bytes of a day are those of the last 24 hours", () => {
  const clock = new ManualClock();
  const admission = new StoreAdmission(defaultStore, 100, clock);
  const after = async (hours: number, bytes: number): Promise<string | undefined> => {
    await clock.advance(hours * HOUR_MS);
    return admission.refusal("a", bytes);
  };
  return after(0, 60).then(async (first) => {
    assertEquals(first, undefined);
    assertEquals(await after(12, 60), "bytes-per-day");
    assertEquals(await after(0, 40), undefined);
    assertEquals(await after(11, 1), "bytes-per-day");
    assertEquals(await after(1, 60), undefined);
    assertEquals(await after(11, 1), "bytes-per-day");
    assertEquals(admission.refused, { "first-touch": 0, "bytes-per-day": 3 });
  });
});

Deno.test("what is refused is remembered up to a bound, the oldest forgotten first", () => {
  const admission = new StoreAdmission(secondTouch, Infinity, new ManualClock());
  for (let n = 0; n <= 131_072; n++) admission.refusal(String(n), 1);
  assertEquals([admission.isWaiting("0"), admission.isWaiting("1")], [false, true]);
  assertEquals(admission.refusal("1", 1), undefined);
  assertEquals(admission.refusal("1", 1), "first-touch");
});
