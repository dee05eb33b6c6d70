import type { TieredCacheOptions } from "../../src/cache_options.ts";
import { STAGING_BLOCK_BYTES } from "../../src/memory/staging_pool.ts";
import type { L2Config } from "../../src/l2/adapter_config.ts";
import type { SimRandom } from "./sim_random.ts";
import type { SimStore, SimStoreKind } from "./sim_store.ts";

const KIB = 1024;
const MIB = 2 ** 20;

/** Lifetime of a lease: short, so that callers that keep a hit for long see it expire. */
export const READ_TTL_MS = 60_000;
/** Lifetime of a reservation: shorter than a slow load. */
export const WRITE_TTL_MS = 8_000;
/** Maximum cool-down of a circuit, plus a margin. */
export const COOL_DOWN_MS = 360_000;

const L1_BYTES = 128 * KIB;

/** The kinds of adapters, all different. */
export const KINDS: readonly SimStoreKind[] = [
  {
    type: "sim_disk",
    canDelete: true,
    canList: true,
    stopsAtGap: false,
    obeysSignals: true,
    latencyMs: 0.5,
    msPerByte: 1e-5,
    faults: { slow: 2, rejecting: 1, flaky: 1, corrupting: 4, losing: 1, full: 3, hanging: 1 },
  },
  {
    type: "sim_server",
    canDelete: true,
    canList: true,
    maxObjectBytes: 1000,
    stopsAtGap: true,
    obeysSignals: false,
    latencyMs: 2,
    msPerByte: 1e-4,
    faults: { slow: 3, rejecting: 3, hanging: 4, lying: 2, nonsense: 2, losing: 1 },
  },
  {
    type: "sim_bucket",
    canDelete: true,
    canList: false,
    capacityBytes: 600 * KIB,
    stopsAtGap: false,
    obeysSignals: true,
    latencyMs: 30,
    msPerByte: 1e-3,
    faults: { slow: 4, rejecting: 2, flaky: 3, lying: 2, losing: 2, hanging: 2, corrupting: 1 },
  },
  {
    type: "sim_spare",
    canDelete: true,
    canList: true,
    stopsAtGap: true,
    obeysSignals: true,
    latencyMs: 5,
    msPerByte: 1e-4,
    faults: { slow: 1, rejecting: 1, corrupting: 2, nonsense: 1, full: 1, flaky: 1 },
  },
  {
    type: "sim_tape",
    canDelete: false,
    canList: false,
    stopsAtGap: true,
    obeysSignals: false,
    latencyMs: 80,
    msPerByte: 1e-3,
    faults: { slow: 4, rejecting: 1, hanging: 1, corrupting: 1 },
  },
];

/** Configuration of the adapter of a store; the cache enforces the capacity of one of them. */
export function configOf({ kind: { type } }: SimStore): L2Config {
  if (type !== "sim_disk") return { type };
  return { type, eviction: { eviction_policy: "LRU", max_capacity_gb: 700 * KIB / 2 ** 30 } };
}

/** Options of a cache: small, and different each day. */
export function cacheOptions(random: SimRandom): TieredCacheOptions {
  const hasWatermark = random.chance(0.2);
  return {
    l1: {
      capacityBytes: L1_BYTES,
      slabBytes: 32 * KIB,
      readTtlMs: READ_TTL_MS,
      writeTtlMs: WRITE_TTL_MS,
      ...(hasWatermark ? { watermark: { high: 0.9, low: 0.5 } } : {}),
    },
    store: {
      policy: random.weighted({ default: 6, skip_l1: 1, on_evict: 2 }),
      whenFull: random.weighted({ wait: 3, drop_new: 1, drop_oldest: 1 }),
      maxInFlightBytes: 16 * MIB,
      maxQueuedBytes: L1_BYTES / 4,
      flushBytes: random.pick([4 * KIB, 16 * KIB]),
    },
    prefetch: {
      policy: random.weighted({ retain: 3, default: 1 }),
      maxInFlightBytes: random.pick([1, 4, 8]) * STAGING_BLOCK_BYTES,
    },
  };
}
