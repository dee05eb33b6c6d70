import type { TieredCacheOptions } from "../../src/cache_options.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { put } from "./caches.ts";
import { testKey, testLayout } from "./objects.ts";

const LAYOUT = testLayout(1024);

/** A cache in host memory over an adapter in host memory, in which something has happened. */
export async function openBusyCache(options: TieredCacheOptions = {}): Promise<TieredCache> {
  const cache = await TieredCache.open({
    device: new HostDevice(),
    l1: { capacityBytes: 2 ** 20 },
    l2: [{ type: "dram", max_capacity_gb: 0.01 }],
    ...options,
  });
  await use(cache, 0);
  return cache;
}

/**
 * Stores 8 objects, 6 of them under salts, drops them from device memory, loads the chain of 2, and
 * misses one.
 *
 * @param round Which objects: those of different rounds are different.
 */
export async function use(cache: TieredCache, round: number): Promise<void> {
  const first = round * 100;
  const keys = [0, 1].map((i) => testKey(first + i));
  const salted = Array.from(
    { length: 6 },
    (_, i) => testKey(first + 10 + i, { model: `model-${i % 2}`, cacheSalt: `tenant-${i % 3}` }),
  );
  put(cache, [...keys, ...salted], LAYOUT);
  await cache.flush();
  cache.clearL1();
  using _loaded = await cache.match([...keys, testKey(first + 99)], LAYOUT);
  using _again = await cache.match(keys, LAYOUT);
  put(cache, salted, LAYOUT);
  await cache.flush();
}
