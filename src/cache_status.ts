import type { CacheParts } from "./cache_wiring.ts";
import type { L1Cache } from "./l1/l1_cache.ts";
import type { CacheStatus, UsageShare, UsageStatus } from "./telemetry/cache_status.ts";

/** Collects the status of all parts of a cache. */
export function statusOf(parts: CacheParts): CacheStatus {
  const { l1, skipped, store, adapters, manager } = parts;
  const { type, description, isFallback, isLost, copyPaths = [] } = l1.device;
  const l1Status = l1.reportStatus();
  const adapterStatus = adapters.all.map((adapter) => adapter.reportStatus());
  const problems = [
    ...(parts.isOpen ? [] : ["the cache is closed"]),
    ...(isLost ? ["the GPU device is lost: call attachDevice() with a new one"] : []),
    ...(l1Status.failedSlabCount === 0 ? [] : [
      "the device is out of memory, so L1 has less than l1.capacityBytes: lower l1.capacityBytes",
    ]),
    ...(l1Status.invalidRankCount === 0 ? [] : [
      `the policy ${l1Status.evictionPolicy} of l1.eviction answered ${l1Status.invalidRankCount} ` +
      "times with an invalid rank: return finite numbers, never below the previous rank",
    ]),
    ...skipped.problems(l1Status.heldCount > l1Status.totalObjectCount / 2),
    ...store.problems(),
    ...adapterStatus.flatMap((adapter) =>
      adapter.problems.map((problem) => `adapter ${adapter.id} (${adapter.type}): ${problem}`)
    ),
    ...manager.problems(),
  ];
  return {
    isHealthy: problems.length === 0,
    problems,
    device: { type, description, isFallback, isLost, copyPaths },
    l1: l1Status,
    skippedWrites: skipped.objects,
    store: store.reportStatus(),
    prefetch: parts.prefetch.reportStatus(),
    eviction: parts.eviction.reportStatus(),
    lifecycle: parts.lifecycle.reportStatus(),
    usage: usageOf(l1),
    adapters: adapterStatus,
  };
}

/** Maximum number of models and of salts that the status names. */
const TOP = 10;

function usageOf(l1: L1Cache): UsageStatus {
  const [models, salts] = [l1.usageByModel(), l1.usageBySalt()];
  return {
    modelCount: models.size,
    topModels: largest(models),
    saltCount: salts.size,
    topSalts: largest(salts),
  };
}

function largest(bytesByName: ReadonlyMap<string, number>): UsageShare[] {
  return [...bytesByName].map(([name, bytes]) => ({ name, bytes }))
    .sort((a, b) => b.bytes - a.bytes || (a.name < b.name ? -1 : 1)).slice(0, TOP);
}
