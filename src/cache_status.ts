import type { CacheParts } from "./cache_wiring.ts";
import type { L1StatusReport } from "./l1/l1_cache.ts";
import type { AdapterStatus } from "./l2/adapter_status.ts";
import type { MeasuredCopyPath } from "./memory/memory_device.ts";
import type { EvictionStatus } from "./eviction/eviction_controller.ts";
import type { LifecycleStatus } from "./lifecycle/key_lifecycle.ts";
import type { PrefetchStatus } from "./prefetch/prefetch_controller.ts";
import type { SkipReason } from "./store/skipped_writes.ts";
import type { StoreStatus } from "./store/store_types.ts";

/** Status of a {@linkcode TieredCache}. */
export interface CacheStatus {
  /** Whether there are no problems. */
  readonly isHealthy: boolean;
  /** Current problems, as sentences that say what to do. */
  readonly problems: readonly string[];
  /** Device of L1. */
  readonly device: {
    readonly type: string;
    readonly description: string;
    readonly isFallback: boolean;
    readonly isLost: boolean;
    /**
     * Paths by which the device copies to and from the buffers of the engine, as measured so far.
     */
    readonly copyPaths: readonly MeasuredCopyPath[];
  };
  /** Device memory (L1). */
  readonly l1: L1StatusReport;
  /** Objects that an engine wanted to write and L1 rejected, by reason. */
  readonly skippedWrites: Readonly<Record<SkipReason, number>>;
  /** Storing in the adapters. */
  readonly store: StoreStatus;
  /** Loading from the adapters. */
  readonly prefetch: PrefetchStatus;
  /** Eviction. */
  readonly eviction: EvictionStatus;
  /** Pins, times to live and forgets. */
  readonly lifecycle: LifecycleStatus;
  /** One entry for each adapter. */
  readonly adapters: readonly AdapterStatus[];
}

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
    adapters: adapterStatus,
  };
}
