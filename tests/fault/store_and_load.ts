// Tries to store objects into a directory that may be unwritable, and loads an existing one; prints
// the status of the cache.
import { adapterStatus, countHits, openFsCache, putObjects } from "../support/fs_cache.ts";
import { testKey, testLayout } from "../support/objects.ts";

const [basePath = ""] = Deno.args;
const layout = testLayout(4096);
await using cache = await openFsCache(basePath);
const healthy: boolean[] = [];
for (let n = 1; n <= 4; n++) {
  await putObjects(cache, [testKey(n)], layout);
  healthy.push(adapterStatus(cache).isHealthy);
}
cache.clearL1();
const hits = await countHits(cache, [testKey(0)], layout);
const misses = await countHits(cache, [testKey(1)], layout);
const { problems, adapters } = cache.reportStatus();
// deno-lint-ignore no-console -- the test reads it
console.log(JSON.stringify({ healthy, hits, misses, problems, status: adapters[0] }));
