/** A program that stores objects in an adapter and ends without closing the cache. */
import { TieredCache } from "../../src/tiered_cache.ts";
import { putObjects } from "./fs_cache.ts";
import { testKeys, testLayout } from "./objects.ts";

const [config = ""] = Deno.args;
const cache = await TieredCache.open({
  l1: { capacityBytes: 2 ** 20 },
  l2: [JSON.parse(config)],
});
await putObjects(cache, testKeys(3), testLayout(1024));
const { isComplete } = await cache.flush();
await Deno.stdout.write(new TextEncoder().encode(JSON.stringify({ isComplete })));
