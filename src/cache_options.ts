import { MIB } from "./base/units.ts";
import type { L2AdapterModule } from "./adapter/contract.ts";
import { ConfigError } from "./base/config_error.ts";
import { type AdapterTimeouts, DEFAULT_ADAPTER_TIMEOUTS } from "./l2/adapter_status.ts";
import type { BreakerOptions } from "./l2/circuit_breaker.ts";
import type { EvictionPolicyName, OrderPolicy } from "./policies/eviction_order.ts";
import { type EvictionPolicy, resolveEvictionPolicy } from "./policies/eviction_policy.ts";
import { type MemoryDevice, RANGE_ALIGNMENT } from "./memory/memory_device.ts";
import { STAGING_BLOCK_BYTES } from "./memory/staging_pool.ts";
import type { Clock } from "./base/clock.ts";
import { type OptionRule, type OptionRules, readOptions, STRING } from "./base/options.ts";
import type { RandomSource } from "./base/random.ts";
import type { L2Config } from "./l2/adapter_config.ts";
import { type PrefetchPolicy, resolvePrefetchPolicy } from "./prefetch/prefetch_policy.ts";
import { resolveStorePolicy, type StorePolicy } from "./store/store_policy.ts";
import type { WhenFull } from "./store/store_types.ts";

/** Options of L1. */
export interface L1Options {
  /** Maximum bytes of device memory for objects, a multiple of 256. @default {512 MiB} */
  readonly capacityBytes?: number;
  /** Size of a device buffer in bytes, unless an object needs a larger one. @default {256 MiB} */
  readonly slabBytes?: number;
  /** Lifetime of a lease in milliseconds, unless it is renewed. @default {300000} */
  readonly readTtlMs?: number;
  /**
   * Lifetime of a write reservation in milliseconds; afterwards its memory may be reclaimed.
   * @default {600000}
   */
  readonly writeTtlMs?: number;
  /**
   * Shares of the capacity: above `high`, L1 evicts down to `low`. If left out, it evicts only what
   * a reservation needs, at that moment and without waiting. With the store policy `on_evict` the
   * default is `{ high: 0.8, low: 0.6 }`, which leaves time to store what is evicted.
   */
  readonly watermark?: { readonly high: number; readonly low: number };
  /**
   * Policy that decides which object L1 evicts first: `LRU` (the least recently used one; of a
   * prefix, its tail), `LFU_AGED` (the one used least often, unless those used more often have not
   * been used for long), `S3_FIFO`, `ARC`, or a policy of your own.
   *
   * @default {"LFU_AGED"}
   */
  readonly eviction?: EvictionPolicyName | EvictionPolicy;
}

/** Options for storing objects in the adapters. */
export interface StoreSettings {
  /**
   * Policy that decides which objects go to which adapters, and when: `default` (all to all, at
   * once), `skip_l1` (the same, and they leave L1 afterwards), `on_evict` (only what L1 is about to
   * evict), `second_touch` (only what is written again, or hit in L1), or a policy of your own.
   *
   * @default {"default"}
   */
  readonly policy?: "default" | "skip_l1" | "on_evict" | "second_touch" | StorePolicy;
  /** Maximum bytes in read-back buffers; the largest object must fit. @default {128 MiB} */
  readonly maxInFlightBytes?: number;
  /** Maximum bytes that wait for one adapter; they stay in L1. @default {a quarter of L1} */
  readonly maxQueuedBytes?: number;
  /**
   * What happens to objects beyond `maxQueuedBytes`: `wait` (they are queued as long as L1 has room
   * and the adapter works; producers can await `storeReady()`), `drop_new` (the adapter does not
   * get them), or `drop_oldest` (the adapter does not get the oldest queued objects).
   *
   * @default {"wait"}
   */
  readonly whenFull?: WhenFull;
  /**
   * Maximum bytes to store in all adapters within a day, for disks that wear out; further objects
   * stay in L1 only. If left out, there is no limit.
   */
  readonly bytesPerDay?: number;
  /** Bytes stored in the adapters as one batch. @default {16 MiB} */
  readonly flushBytes?: number;
  /**
   * Time without new objects after which a smaller batch is stored, in milliseconds. @default {50}
   */
  readonly flushIdleMs?: number;
  /** Maximum number of attempts to store an object in an adapter. @default {3} */
  readonly attempts?: number;
  /**
   * Delay before the second attempt in milliseconds; doubles with each further one. @default {200}
   */
  readonly backOffMs?: number;
}

/** Options for loading objects from the adapters. */
export interface PrefetchSettings {
  /**
   * Policy that decides what happens to loaded objects: `retain` (they stay in L1 until their space
   * is needed), `default` (they leave L1 when their last lease ends), or a policy of your own.
   *
   * @default {"retain"}
   */
  readonly policy?: "default" | "retain" | PrefetchPolicy;
  /** Maximum bytes of host memory for loads; the largest object must fit. @default {128 MiB} */
  readonly maxInFlightBytes?: number;
}

/** Options of the metrics. */
export interface MetricsSettings {
  /**
   * Whether cache salts become labels, which tells the metrics system of all tenants, and makes a
   * series for each of them. @default {false}
   */
  readonly salts?: boolean;
}

/** Options of {@linkcode TieredCache.open}. */
export interface TieredCacheOptions {
  /**
   * Device whose memory holds L1: a GPUDevice, which stays the caller's, or any
   * {@linkcode MemoryDevice}. If left out, a GPUDevice is requested; host memory is used where the
   * host has none.
   */
  readonly device?: GPUDevice | MemoryDevice;
  /** Options of L1. */
  readonly l1?: L1Options;
  /** Storage adapters in order of preference. @default {[]} */
  readonly l2?: readonly L2Config[];
  /** Directory with adapter modules in addition to the built-in ones. */
  readonly adaptersDir?: string | URL;
  /** Adapter modules in addition to the built-in ones. */
  readonly adapters?: readonly L2AdapterModule[];
  /** Deadlines of adapter calls. */
  readonly timeouts?: Partial<AdapterTimeouts>;
  /** When a failing operation of an adapter is paused, and for how long. */
  readonly breaker?: Partial<BreakerOptions>;
  /** Options for storing objects in the adapters. */
  readonly store?: StoreSettings;
  /** Options for loading objects from the adapters. */
  readonly prefetch?: PrefetchSettings;
  /**
   * Options of the metrics, which go to the OpenTelemetry meter provider that the process has when
   * the cache is opened, such as the one of Deno with `OTEL_DENO=true`.
   */
  readonly metrics?: MetricsSettings;
  /** Clock for deadlines, expiry and retries. */
  readonly clock?: Clock;
  /** Source of jitter for retries. */
  readonly random?: RandomSource;
}

/** Options with all defaults. */
export interface ResolvedOptions {
  /** Options of L1. */
  readonly l1: Omit<L1Options, "eviction"> & {
    readonly capacityBytes: number;
    readonly eviction: OrderPolicy | EvictionPolicy;
  };
  /** Options for storing. */
  readonly store: Required<StoreSettings> & { readonly policy: StorePolicy };
  /** Options for loading. */
  readonly prefetch: Required<PrefetchSettings> & { readonly policy: PrefetchPolicy };
  /** Deadlines of adapter calls. */
  readonly timeouts: AdapterTimeouts;
  /** When a failing operation of an adapter is paused. */
  readonly breaker: Partial<BreakerOptions>;
}

/** Store options with defaults, except those whose defaults depend on other options. */
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
/** A name or a policy object; validated where the names are known. */
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
  eviction: policy,
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
  bytesPerDay: { ...bytes },
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

const metricsRules: OptionRules<MetricsSettings> = {
  salts: { type: "value", accepts: (value) => typeof value === "boolean", expected: "a boolean" },
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
  metrics: { type: "object", rules: metricsRules },
  clock: withMethods("a Clock", ["now", "schedule"]),
  random: withMethods("a RandomSource", ["bytes"]),
};

/**
 * Validates options and applies defaults.
 *
 * @throws {TypeError} If a key is unknown, or a value has the wrong type.
 * @throws {RangeError} If a number is out of range.
 * @throws {ConfigError} If a policy or the value of `store.whenFull` is unknown.
 */
export function resolveOptions(options: TieredCacheOptions): ResolvedOptions {
  const read = readOptions("open() options", options, rules);
  // The rules apply these defaults, which do not depend on other options.
  const l1 = read.l1 as L1Options & { readonly capacityBytes: number };
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
      subject: "store.whenFull",
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
    l1: {
      ...l1,
      ...(watermark === undefined ? {} : { watermark }),
      eviction: resolveEvictionPolicy(l1.eviction ?? "LFU_AGED"),
    },
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
