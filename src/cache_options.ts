import type { L2AdapterModule } from "./l2/adapter.ts";
import { ConfigError } from "./l2/adapter_error.ts";
import { type AdapterTimeouts, DEFAULT_ADAPTER_TIMEOUTS } from "./l2/adapter_status.ts";
import type { BreakerOptions } from "./l2/circuit_breaker.ts";
import type { MemoryDevice } from "./memory/memory_device.ts";
import { STAGING_BLOCK_BYTES } from "./memory/staging_pool.ts";
import type { Clock } from "./runtime/clock.ts";
import type { RandomSource } from "./runtime/random.ts";
import type { L2Config } from "./tiering/adapter_manager.ts";
import { resolvePrefetchPolicy, resolveStorePolicy } from "./tiering/policies/registry.ts";
import type { PrefetchPolicy } from "./tiering/policies/prefetch_policy.ts";
import type { StorePolicy } from "./tiering/policies/store_policy.ts";
import type { WhenFull } from "./tiering/store_controller.ts";

const MIB = 2 ** 20;

/** Bounds of device memory. */
export interface L1Options {
  /** Most bytes of device memory for objects, a multiple of 256. @default {512 MiB} */
  readonly capacityBytes?: number;
  /** Bytes of one device buffer, unless an object needs a larger one. @default {256 MiB} */
  readonly slabBytes?: number;
  /** After this time an abandoned pin may be void. @default {300000} */
  readonly readTtlMs?: number;
  /** After this time an abandoned reservation may be reclaimed. @default {600000} */
  readonly writeTtlMs?: number;
  /**
   * Beyond the `high` share of its capacity L1 evicts down to the `low` one. Left out, it evicts
   * only what a reservation needs, at that moment, which costs no waiting; with the store policy
   * `on_evict`, `{ high: 0.8, low: 0.6 }`, so that there is time to write what leaves.
   */
  readonly watermark?: { readonly high: number; readonly low: number };
}

/** How objects are written to the adapters. */
export interface StoreSettings {
  /**
   * Which objects go to which adapters, and when: `default` (all to all, at once), `skip_l1` (the
   * same, and they leave L1 then), `on_evict` (only what L1 is about to evict), or a policy of your
   * own.
   *
   * @default {"default"}
   */
  readonly policy?: "default" | "skip_l1" | "on_evict" | StorePolicy;
  /** Most bytes in read-back buffers; an object must fit. @default {128 MiB} */
  readonly maxInFlightBytes?: number;
  /** Bytes that may wait for one adapter; they lie in L1. @default {a quarter of L1} */
  readonly maxQueuedBytes?: number;
  /**
   * What happens to objects beyond that: `wait` (they wait too, as long as L1 has room and the
   * adapter works; producers can await `storeReady()`), `drop_new` (that adapter does not get
   * them), or `drop_oldest` (it does not get the oldest that wait).
   *
   * @default {"wait"}
   */
  readonly whenFull?: WhenFull;
  /** Bytes that are written to the adapters as one batch. @default {16 MiB} */
  readonly flushBytes?: number;
  /** What is queued is written after this much quiet. @default {50} */
  readonly flushIdleMs?: number;
  /** How often an object is offered to an adapter that fails to take it. @default {3} */
  readonly attempts?: number;
  /** Time before the second attempt; it doubles for each further one. @default {200} */
  readonly backOffMs?: number;
}

/** How objects are brought from the adapters. */
export interface PrefetchSettings {
  /**
   * What becomes of them: `retain` (they stay in L1 until their room is needed), `default` (they
   * leave with their last reader), or a policy of your own.
   *
   * @default {"retain"}
   */
  readonly policy?: "default" | "retain" | PrefetchPolicy;
  /** Most bytes of host memory for loads; an object must fit. @default {128 MiB} */
  readonly maxInFlightBytes?: number;
}

/** How a cache is set up. */
export interface TieredCacheOptions {
  /**
   * Where L1 lies: your GPUDevice, which stays yours, or any {@linkcode MemoryDevice}. Left out, a
   * GPUDevice is requested, and where the host has none, host memory serves.
   */
  readonly device?: GPUDevice | MemoryDevice;
  /** Bounds of device memory. */
  readonly l1?: L1Options;
  /** The storage adapters, the preferred one first. @default {[]} */
  readonly l2?: readonly L2Config[];
  /** A directory of adapter modules beside those of this package. */
  readonly adaptersDir?: string | URL;
  /** Adapter modules beside those of this package. */
  readonly adapters?: readonly L2AdapterModule[];
  /** Deadlines of adapter calls. */
  readonly timeouts?: Partial<AdapterTimeouts>;
  /** When an adapter's failing operation is left alone, and for how long. */
  readonly breaker?: Partial<BreakerOptions>;
  /** How objects are written to the adapters. */
  readonly store?: StoreSettings;
  /** How objects are brought from the adapters. */
  readonly prefetch?: PrefetchSettings;
  /** Source of time. */
  readonly clock?: Clock;
  /** Spreads retries over time. */
  readonly random?: RandomSource;
}

/** Options with every default filled in. */
export interface ResolvedOptions {
  /** Bounds of device memory. */
  readonly l1: L1Options & { readonly capacityBytes: number };
  /** How objects are written. */
  readonly store: Required<StoreSettings> & { readonly policy: StorePolicy };
  /** How objects are loaded. */
  readonly prefetch: Required<PrefetchSettings> & { readonly policy: PrefetchPolicy };
  /** Deadlines of adapter calls. */
  readonly timeouts: AdapterTimeouts;
}

/**
 * Fills in the defaults.
 *
 * @throws {RangeError} If a number is out of range.
 * @throws {ConfigError} If a policy, or what happens when a queue is full, is unknown.
 */
export function resolveOptions(options: TieredCacheOptions): ResolvedOptions {
  const { store = {}, prefetch = {} } = options;
  const { capacityBytes = 512 * MIB } = options.l1 ?? {};
  const storePolicy = resolveStorePolicy(store.policy ?? "default");
  const watermark = options.l1?.watermark ??
    (storePolicy.writes === "before-eviction" ? { high: 0.8, low: 0.6 } : undefined);
  const resolved: ResolvedOptions = {
    l1: { ...options.l1, capacityBytes, ...(watermark === undefined ? {} : { watermark }) },
    store: {
      maxInFlightBytes: 128 * MIB,
      maxQueuedBytes: capacityBytes / 4,
      whenFull: "wait",
      flushBytes: 16 * MIB,
      flushIdleMs: 50,
      attempts: 3,
      backOffMs: 200,
      ...withoutUndefined(store),
      policy: storePolicy,
    },
    prefetch: {
      maxInFlightBytes: 128 * MIB,
      ...withoutUndefined(prefetch),
      policy: resolvePrefetchPolicy(prefetch.policy ?? "retain"),
    },
    timeouts: { ...DEFAULT_ADAPTER_TIMEOUTS, ...withoutUndefined(options.timeouts ?? {}) },
  };
  check(resolved, options.breaker ?? {});
  return resolved;
}

function check(
  { l1, store, prefetch, timeouts }: ResolvedOptions,
  { failures = 1, coolDownMs = 0, maxCoolDownMs = coolDownMs }: Partial<BreakerOptions>,
): void {
  const least = (name: string, value: number, minimum: number): void => {
    if (value >= minimum) return;
    throw new RangeError(`${name} must be at least ${minimum}: received ${value}`);
  };
  least("l1.readTtlMs", l1.readTtlMs ?? 1, 1);
  least("l1.writeTtlMs", l1.writeTtlMs ?? 1, 1);
  least("store.maxInFlightBytes", store.maxInFlightBytes, STAGING_BLOCK_BYTES);
  least("prefetch.maxInFlightBytes", prefetch.maxInFlightBytes, STAGING_BLOCK_BYTES);
  least("store.maxQueuedBytes", store.maxQueuedBytes, 1);
  least("store.flushBytes", store.flushBytes, 1);
  least("store.flushIdleMs", store.flushIdleMs, 0);
  least("store.attempts", store.attempts, 1);
  least("store.backOffMs", store.backOffMs, 0);
  least("breaker.failures", failures, 1);
  least("breaker.coolDownMs", coolDownMs, 0);
  least("breaker.maxCoolDownMs", maxCoolDownMs, coolDownMs);
  for (const [name, ms] of Object.entries(timeouts)) least(`timeouts.${name}`, ms, 0);
  const whenFull = ["wait", "drop_new", "drop_oldest"];
  if (!whenFull.includes(store.whenFull)) {
    throw new ConfigError({
      adapter: "store.whenFull",
      expected: whenFull.map((name) => `"${name}"`).join(", "),
      received: store.whenFull,
    });
  }
  const { high, low } = l1.watermark ?? { high: 1, low: 1 };
  if (!(low > 0 && low <= high && high <= 1)) {
    throw new RangeError(
      `l1.watermark must have 0 < low <= high <= 1: received low ${low}, high ${high}`,
    );
  }
}

function withoutUndefined<T extends object>(values: T): T {
  const defined = Object.entries(values).filter(([, value]) => value !== undefined);
  return Object.fromEntries(defined) as T;
}
