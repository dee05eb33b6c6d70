import type { L2AdapterModule } from "./l2/adapter.ts";
import { ConfigError } from "./l2/adapter_error.ts";
import { type AdapterTimeouts, DEFAULT_ADAPTER_TIMEOUTS } from "./l2/adapter_status.ts";
import type { BreakerOptions } from "./l2/circuit_breaker.ts";
import { type MemoryDevice, RANGE_ALIGNMENT } from "./memory/memory_device.ts";
import { STAGING_BLOCK_BYTES } from "./memory/staging_pool.ts";
import type { Clock } from "./runtime/clock.ts";
import { type OptionRule, type OptionRules, readOptions, STRING } from "./runtime/options.ts";
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
  /** When an adapter's failing operation is left alone. */
  readonly breaker: Partial<BreakerOptions>;
}

/** Settings without those whose defaults follow from others. */
type StoreDefaults =
  & StoreSettings
  & Required<Omit<StoreSettings, "policy" | "maxQueuedBytes" | "whenFull">>;

const WHEN_FULL = ["wait", "drop_new", "drop_oldest"];

const bytes = { type: "number", minimum: 1 } as const;
const ms = { type: "number", minimum: 0 } as const;
const stagingBytes = { type: "number", minimum: STAGING_BLOCK_BYTES, default: 128 * MIB } as const;
const rangeBytes = {
  type: "number",
  minimum: RANGE_ALIGNMENT,
  multipleOf: RANGE_ALIGNMENT,
} as const;
/** By name, or one's own; what it must be is checked where the names are known. */
const policy = {
  type: "value",
  accepts: (value: unknown) => typeof value === "string" || isObject(value),
  expected: "a name, or a policy of your own",
} as const;

const l1Rules: OptionRules<L1Options> = {
  capacityBytes: { ...rangeBytes, default: 512 * MIB },
  slabBytes: rangeBytes,
  readTtlMs: { type: "number", minimum: 1 },
  writeTtlMs: { type: "number", minimum: 1 },
  watermark: {
    type: "value",
    accepts: isObject,
    expected: "an object with high and low",
  },
};

const watermarkRules: OptionRules<NonNullable<L1Options["watermark"]>> = {
  high: { type: "number" },
  low: { type: "number" },
};

const storeRules: OptionRules<StoreSettings> = {
  policy,
  maxInFlightBytes: stagingBytes,
  maxQueuedBytes: bytes,
  whenFull: STRING,
  flushBytes: { ...bytes, default: 16 * MIB },
  flushIdleMs: { ...ms, default: 50 },
  attempts: { type: "number", minimum: 1, multipleOf: 1, default: 3 },
  backOffMs: { ...ms, default: 200 },
};

const prefetchRules: OptionRules<PrefetchSettings> = { policy, maxInFlightBytes: stagingBytes };

const timeoutRules: OptionRules<AdapterTimeouts> = {
  lookupMs: { ...ms, default: DEFAULT_ADAPTER_TIMEOUTS.lookupMs },
  loadMs: { ...ms, default: DEFAULT_ADAPTER_TIMEOUTS.loadMs },
  storeMs: { ...ms, default: DEFAULT_ADAPTER_TIMEOUTS.storeMs },
  deleteMs: { ...ms, default: DEFAULT_ADAPTER_TIMEOUTS.deleteMs },
  closeMs: { ...ms, default: DEFAULT_ADAPTER_TIMEOUTS.closeMs },
};

const breakerRules: OptionRules<BreakerOptions> = {
  failures: { type: "number", minimum: 1, multipleOf: 1 },
  coolDownMs: ms,
  maxCoolDownMs: ms,
};

const rules: OptionRules<TieredCacheOptions> = {
  device: { type: "value", accepts: isObject, expected: "a GPUDevice or a MemoryDevice" },
  l1: { type: "object", rules: l1Rules },
  l2: {
    type: "value",
    accepts: Array.isArray,
    expected: 'an array of adapters, like [{ type: "fs", base_path: "/data/kv" }]',
  },
  adaptersDir: {
    type: "value",
    accepts: (value) => typeof value === "string" || value instanceof URL,
    expected: "a path or a URL",
  },
  adapters: { type: "value", accepts: Array.isArray, expected: "an array of adapter modules" },
  timeouts: { type: "object", rules: timeoutRules },
  breaker: { type: "object", rules: breakerRules },
  store: { type: "object", rules: storeRules },
  prefetch: { type: "object", rules: prefetchRules },
  clock: withMethods("a Clock", ["now", "schedule"]),
  random: withMethods("a RandomSource", ["bytes"]),
};

/**
 * Checks options and fills in the defaults.
 *
 * @throws {TypeError} If a key is unknown, or a value has the wrong type.
 * @throws {RangeError} If a number is out of range.
 * @throws {ConfigError} If a policy, or what happens when a queue is full, is unknown.
 */
export function resolveOptions(options: TieredCacheOptions): ResolvedOptions {
  const read = readOptions("open() options", options, rules);
  // The rules fill in these, whose defaults do not depend on others.
  const l1 = read.l1 as ResolvedOptions["l1"];
  const store = read.store as StoreDefaults;
  const prefetch = read.prefetch as Required<PrefetchSettings>;
  const timeouts = read.timeouts as AdapterTimeouts;
  const breaker = read.breaker as Partial<BreakerOptions>;
  const storePolicy = resolveStorePolicy(store.policy ?? "default");
  const watermark = readWatermark(l1.watermark) ??
    (storePolicy.writes === "before-eviction" ? { high: 0.8, low: 0.6 } : undefined);
  const whenFull = store.whenFull ?? "wait";
  if (!WHEN_FULL.includes(whenFull)) {
    throw new ConfigError({
      adapter: "store.whenFull",
      expected: WHEN_FULL.map((known) => `"${known}"`).join(", "),
      received: whenFull,
    });
  }
  const { coolDownMs = 0, maxCoolDownMs = coolDownMs } = breaker;
  if (maxCoolDownMs < coolDownMs) {
    throw new RangeError(
      `breaker.maxCoolDownMs must be at least coolDownMs (${coolDownMs}): received ${maxCoolDownMs}`,
    );
  }
  return {
    l1: { ...l1, ...(watermark === undefined ? {} : { watermark }) },
    store: { maxQueuedBytes: l1.capacityBytes / 4, ...store, whenFull, policy: storePolicy },
    prefetch: { ...prefetch, policy: resolvePrefetchPolicy(prefetch.policy ?? "retain") },
    timeouts,
    breaker,
  };
}

function readWatermark(watermark: L1Options["watermark"]): L1Options["watermark"] {
  if (watermark === undefined) return undefined;
  const { high, low } = readOptions("l1.watermark", watermark, watermarkRules, "l1.watermark.");
  if (low > 0 && low <= high && high <= 1) return { high, low };
  throw new RangeError(
    `l1.watermark must have 0 < low <= high <= 1: received low ${low}, high ${high}`,
  );
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function withMethods(expected: string, methods: readonly string[]): OptionRule {
  const accepts = (value: unknown): boolean =>
    value instanceof Object &&
    methods.every((method) => Reflect.get(value, method) instanceof Function);
  return { type: "value", accepts, expected };
}
