/** A program that stores objects in a directory, finds them again and prints the result. */
import { TieredCache } from "../../src/tiered_cache.ts";
import { countHits, putObjects } from "./fs_cache.ts";
import { testKeys, testLayout } from "./objects.ts";

const [directory = ""] = Deno.args;
const options = {
  l1: { capacityBytes: 2 ** 20 },
  l2: [{ type: "fs", base_path: directory }],
};
{
  await using cache = await TieredCache.open(options);
  await putObjects(cache, testKeys(3), testLayout(1024));
}
await using cache = await TieredCache.open(options);
const hits = await countHits(cache, testKeys(4), testLayout(1024));
const { isHealthy } = cache.reportStatus();
await Deno.stdout.write(new TextEncoder().encode(JSON.stringify({ hits, isHealthy })));
