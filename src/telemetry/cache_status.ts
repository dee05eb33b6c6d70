import type { EvictionStatus } from "../eviction/eviction_controller.ts";
import type { L1StatusReport } from "../l1/l1_cache.ts";
import type { AdapterStatus } from "../l2/adapter_status.ts";
import type { LifecycleStatus } from "../lifecycle/key_lifecycle.ts";
import type { MeasuredCopyPath } from "../memory/memory_device.ts";
import type { PrefetchStatus } from "../prefetch/prefetch_controller.ts";
import type { SkipReason } from "../store/skipped_writes.ts";
import type { StoreStatus } from "../store/store_types.ts";

/** A model or a cache salt, and what it occupies in L1. */
export interface UsageShare {
  /** The model, or the cache salt. */
  readonly name: string;
  /** Bytes of its objects. */
  readonly bytes: number;
}

/** Which models and cache salts occupy L1. */
export interface UsageStatus {
  /** Number of models with objects in L1. */
  readonly modelCount: number;
  /** The models with the most bytes, at most 10, in descending order. */
  readonly topModels: readonly UsageShare[];
  /** Number of cache salts with objects in L1. */
  readonly saltCount: number;
  /** The cache salts with the most bytes, at most 10, in descending order. */
  readonly topSalts: readonly UsageShare[];
}

/** Status of a `TieredCache`. */
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
  /** Which models and cache salts occupy L1. */
  readonly usage: UsageStatus;
  /** One entry for each adapter. */
  readonly adapters: readonly AdapterStatus[];
}
