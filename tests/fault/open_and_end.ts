import { HostDevice } from "../../src/memory/host_device.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { putObjects } from "../support/fs_cache.ts";
import { testKeys, testLayout } from "../support/objects.ts";

// Stores objects in a directory and ends without closing the cache.
const [basePath = "", config = "{}"] = Deno.args;
const cache = await TieredCache.open({
  device: new HostDevice(),
  l1: { capacityBytes: 2 ** 20 },
  l2: [{ type: "fs", base_path: basePath, ...JSON.parse(config) }],
});
await putObjects(cache, testKeys(8), testLayout(10_000));
const stored = cache.reportStatus().adapters[0]?.storedObjects;
await Deno.stdout.write(new TextEncoder().encode(JSON.stringify(stored)));
