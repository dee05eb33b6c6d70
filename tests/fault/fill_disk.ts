// Stores objects until the file system is full, frees space, and stores again; prints the results.
import { join } from "@std/path";
import { adapterStatus, countHits, openFsCache, putObjects } from "../support/fs_cache.ts";
import { systemClock } from "../../src/base/clock.ts";
import { temporaryFilesIn } from "../support/fs_adapter.ts";
import { testKey, testLayout } from "../support/objects.ts";

const [mountPoint = ""] = Deno.args;
const layout = testLayout(2 ** 19);
const filler = join(mountPoint, "filler");
await Deno.writeFile(filler, new Uint8Array(2 ** 20));
// Stores are paused after a full disk; the pause ends as soon as there is space.
let skippedMs = 0;
const clock = { ...systemClock, now: () => systemClock.now() + skippedMs };
// No eviction, which would free space on the full disk.
const config = { eviction: { "eviction_policy": "noop" } };
await using cache = await openFsCache(join(mountPoint, "base"), clock, config);

/** Stores the object of `testKey(n)` and returns whether that succeeded. */
async function put(n: number): Promise<boolean> {
  const before = adapterStatus(cache).storedObjects;
  await putObjects(cache, [testKey(n)], layout);
  return adapterStatus(cache).storedObjects > before;
}

let stored = 0;
while (await put(stored)) stored++;
await put(100);
await put(101);
const full = adapterStatus(cache);
const leftWhenFull = await temporaryFilesIn(join(mountPoint, "base"));
cache.clearL1();
const keys = Array.from({ length: stored }, (_, n) => testKey(n));
const hitsWhenFull = await countHits(cache, keys, layout);

await Deno.remove(filler);
skippedMs = 61_000;
const storesAgain = await put(102);
const { isHealthy } = adapterStatus(cache);
cache.clearL1();
const loadsAgain = await countHits(cache, [testKey(102)], layout) === 1;
// deno-lint-ignore no-console -- the test reads it
console.log(JSON.stringify({
  stored,
  hitsWhenFull,
  leftWhenFull,
  full: {
    isHealthy: full.isHealthy,
    failedStores: full.failedStores,
    problem: full.problems.at(-1),
  },
  after: { storesAgain, loadsAgain, isHealthy },
}));
