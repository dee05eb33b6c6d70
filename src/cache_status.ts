import type { L1StatusReport } from "./l1/l1_cache.ts";
import type { AdapterStatus } from "./l2/adapter_status.ts";
import type { MeasuredCopyPath } from "./memory/memory_device.ts";
import type { EvictionStatus } from "./tiering/eviction_controller.ts";
import type { LifecycleStatus } from "./tiering/key_lifecycle.ts";
import type { PrefetchStatus } from "./tiering/prefetch_controller.ts";
import type { SkipReason } from "./tiering/skipped_writes.ts";
import type { StoreStatus } from "./tiering/store_controller.ts";

/** State of a {@linkcode TieredCache}. */
export interface CacheStatus {
  /** Whether everything works. */
  readonly isHealthy: boolean;
  /** What does not, in words. */
  readonly problems: readonly string[];
  /** The device. */
  readonly device: {
    readonly type: string;
    readonly description: string;
    readonly isFallback: boolean;
    readonly isLost: boolean;
    /** By which path the device copies to and from the engine's buffers, as far as measured. */
    readonly copyPaths: readonly MeasuredCopyPath[];
  };
  /** Device memory. */
  readonly l1: L1StatusReport;
  /** Objects that device memory did not take from the engine, by reason. */
  readonly skippedWrites: Readonly<Record<SkipReason, number>>;
  /** Writing to the adapters. */
  readonly store: StoreStatus;
  /** Loading from them. */
  readonly prefetch: PrefetchStatus;
  /** Making room. */
  readonly eviction: EvictionStatus;
  /** Pinned, expiring and forgotten objects. */
  readonly lifecycle: LifecycleStatus;
  /** The adapters. */
  readonly adapters: readonly AdapterStatus[];
}
