// Stores, loads, deletes and evicts through a cache for some time; prints the used resources.
import type { ObjectKey } from "../../src/keys/object_key.ts";
import { concatParts } from "../../src/adapter/contract.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { assertIdle, put } from "../support/caches.ts";
import { openFs } from "../support/fs_adapter.ts";
import { testBytes, testKeys, testLayout } from "../support/objects.ts";
import { seededRandom } from "../support/random.ts";
import { say } from "./lab/program.ts";
import type { Sample, SoakOptions, SoakReport } from "./lab/soak_options.ts";

/** Samples of a run: their own memory must not look like a leak. */
const SAMPLES = 1_000;
const LEAST_SAMPLE_MS = 250;
const KEYS = 400;
const options = JSON.parse(Deno.args[0] ?? "") as SoakOptions;
const { basePath, leaks = false } = options;
const random = seededRandom(options.seed);
const layout = testLayout(2 ** 14);
const keys = testKeys(KEYS);
const bytes = keys.map((key) => testBytes(key, layout.byteLength));
const config = { "base_path": basePath, "max_capacity_gb": 4 / 1024 };
const counts = { rounds: 0, puts: 0, hits: 0, wrong: 0, deleted: 0, evicted: 0 };
const leaked: unknown[] = [];

/** Number of open files, without pipes and sockets of the runtime. */
function openFiles(): number {
  let count = 0;
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    try {
      if (Deno.readLinkSync(`/proc/self/fd/${name}`).startsWith("/")) count++;
    } catch {
      // The descriptor of this directory itself.
    }
  }
  return count;
}

async function match(cache: TieredCache, some: readonly ObjectKey[]): Promise<void> {
  using hit = await cache.match(some, layout);
  counts.hits += hit.length;
  const wanted = hit.ranges().map((range) => ({ range, tailBytes: 0 }));
  using readBack = await cache.device.readBack(wanted);
  for (const [i, pieces] of readBack.objects.entries()) {
    const n = keys.indexOf(some[i] as ObjectKey);
    const right = bytes[n] as Uint8Array;
    if (!concatParts(pieces).every((byte, at) => byte === right[at])) counts.wrong++;
  }
}

/** One round of typical work of an inference server. */
async function work(cache: TieredCache): Promise<void> {
  const first = random.below(KEYS - 16);
  const some = keys.slice(first, first + 1 + random.below(16));
  counts.rounds++;
  counts.puts += put(cache, some, layout).length;
  if (random.chance(0.3)) await cache.flush();
  if (random.chance(0.2)) cache.clearL1();
  await match(cache, keys.slice(0, 1 + random.below(8)));
  await match(cache, some);
  if (!leaks) return;
  leaked.push(await Deno.open("/dev/null"), new Uint8Array(2 ** 18).fill(counts.rounds));
}

/** Opens a cache, works with it for some time, and closes it. */
async function soak(seconds: number, samples: Sample[]): Promise<Partial<SoakReport>> {
  const { signal } = new AbortController();
  await using cache = await TieredCache.open({
    device: new HostDevice(),
    l1: { capacityBytes: 1000 * layout.byteLength },
    l2: [{ type: "fs", ...config }],
  });
  // Another writer in the same directory, which deletes.
  await using adapter = await openFs(config);
  const start = performance.now();
  let sampledAt = start;
  for (let now = start; now - start < 1000 * seconds; now = performance.now()) {
    await work(cache);
    if (random.chance(0.1)) {
      const { deleted } = await adapter.delete?.([random.pick(keys)], { signal }) ?? {};
      counts.deleted += deleted?.popcount() ?? 0;
    }
    if (now - sampledAt < Math.max(LEAST_SAMPLE_MS, 1000 * seconds / SAMPLES)) continue;
    sampledAt = now;
    const rssMib = Deno.memoryUsage().rss / 2 ** 20;
    samples.push({ minutes: (now - start) / 60_000, rssMib, openFiles: openFiles() });
  }
  await cache.flush();
  cache.clearL1();
  assertIdle(cache);
  const { problems, l1, adapters } = cache.reportStatus();
  const { space } = adapters[0]?.details as { space: { evictedObjects: number } };
  counts.evicted += space.evictedObjects;
  return { problems: problems.map(String), bytesHeld: l1.usedBytes };
}

await say("ready");
// Files that the runtime opens once and keeps are not leaks.
await soak(0.2, []);
const before = openFiles();
const samples: Sample[] = [];
const rest = await soak(options.seconds, samples);
const report = { ...counts, ...rest, openFiles: [before, openFiles()], samples };
await say(report);
if (leaks) Deno.exit();
