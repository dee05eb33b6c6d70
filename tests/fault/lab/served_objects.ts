import { concatParts } from "../../../src/adapter/contract.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { TieredCache } from "../../../src/tiered_cache.ts";
import type { Found, StoredSet } from "./stored_set.ts";

/** Requests each object of a set from a new cache on a directory, as after a restart. */
export async function servedObjects(basePath: string, set: StoredSet): Promise<Found> {
  await using cache = await TieredCache.open({
    device: new HostDevice(),
    l1: { capacityBytes: set.keys.length * set.layout.byteLength },
    l2: [{ type: "fs", base_path: basePath }],
  });
  const found = { whole: [] as number[], torn: [] as number[] };
  for (const [n, key] of set.keys.entries()) {
    using hit = await cache.match([key], set.layout);
    if (hit.length === 0) continue;
    const wanted = hit.ranges().map((range) => ({ range, tailBytes: 0 }));
    using readBack = await cache.device.readBack(wanted);
    const [pieces = []] = readBack.objects;
    (set.isPayload(n, concatParts(pieces)) ? found.whole : found.torn).push(n);
  }
  return found;
}
