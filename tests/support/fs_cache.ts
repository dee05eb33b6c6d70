import type { ObjectLayout } from "../../src/keys/kv_layout.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import type { AdapterStatus } from "../../src/l2/adapter_status.ts";
import type { Clock } from "../../src/base/clock.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { assertRanges, stagedOf } from "./l1.ts";
import { testBytes } from "./objects.ts";

/**
 * Opens a cache on host memory and one directory, with a single attempt per store and no breaker.
 *
 * @param config Additional adapter configuration.
 */
export function openFsCache(
  basePath: string,
  clock?: Clock,
  config: Readonly<Record<string, unknown>> = {},
): Promise<TieredCache> {
  const l2 = [{ type: "fs", base_path: basePath, ...config }];
  return TieredCache.open({
    device: new HostDevice(),
    l1: { capacityBytes: 2 ** 25 },
    l2,
    store: { attempts: 1 },
    breaker: { coolDownMs: 0 },
    ...(clock === undefined ? {} : { clock }),
  });
}

/** Stores objects with the expected bytes of their keys and waits until they are written. */
export async function putObjects(
  cache: TieredCache,
  keys: readonly ObjectKey[],
  layout: ObjectLayout,
): Promise<void> {
  const staged = stagedOf(cache.reserveWrite(keys, layout));
  for (const { key, range } of staged) {
    cache.device.upload(range, [testBytes(key, range.byteLength)]);
  }
  cache.finishWrite(staged);
  await cache.flush();
}

/** Number of leading objects in the cache; each must have the expected bytes of its key. */
export async function countHits(
  cache: TieredCache,
  keys: readonly ObjectKey[],
  layout: ObjectLayout,
): Promise<number> {
  using hit = await cache.match(keys, layout);
  await assertRanges(cache.device, hit.ranges(), keys.slice(0, hit.length));
  return hit.length;
}

/** The status of the only adapter. */
export function adapterStatus(cache: TieredCache): AdapterStatus {
  const [status] = cache.reportStatus().adapters;
  if (status === undefined) throw new Error("The cache has no adapter");
  return status;
}
