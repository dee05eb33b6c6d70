import type { AdapterCapabilities } from "../adapter/contract.ts";
import type { CircuitState } from "./circuit_breaker.ts";
import type { TrailerFault } from "../adapter/object_trailer.ts";

/** Deadlines of adapter calls in milliseconds. */
export interface AdapterTimeouts {
  /** A lookup, or a usage report. @default {2000} */
  readonly lookupMs: number;
  /** A load. @default {30000} */
  readonly loadMs: number;
  /** A store. @default {60000} */
  readonly storeMs: number;
  /** A removal, or a step of a listing. @default {10000} */
  readonly deleteMs: number;
  /** Closing. @default {10000} */
  readonly closeMs: number;
}

/** Default deadlines. */
export const DEFAULT_ADAPTER_TIMEOUTS: AdapterTimeouts = {
  lookupMs: 2_000,
  loadMs: 30_000,
  storeMs: 60_000,
  deleteMs: 10_000,
  closeMs: 10_000,
};

/**
 * Life cycle of an adapter: `active`; `migrating` (accepts no stores because its objects are being
 * copied elsewhere); `draining` (accepts no lookups either); `closed`.
 */
export type AdapterState = "active" | "migrating" | "draining" | "closed";

/** Operations that are paused for a while when they fail. */
export type CircuitName = "store" | "lookup" | "load" | "delete";

/** Operations of an adapter, each a kind of call. */
export type AdapterOperation = CircuitName | "list" | "usage" | "sweep" | "close";

/** Status of the circuit of one operation. */
export interface CircuitStatus {
  /** Whether calls are let through. */
  readonly state: CircuitState;
  /** Number of times it opened. */
  readonly openCount: number;
  /** Milliseconds until the next attempt; 0 unless it is open. */
  readonly retryInMs: number;
}

/** Status and counters of one adapter. */
export interface AdapterStatus {
  /** Id of the adapter in the cache. */
  readonly id: number;
  /** Type of the adapter. */
  readonly type: string;
  /** Life-cycle state. */
  readonly state: AdapterState;
  /**
   * Whether it has no problems: every circuit is closed, no operation has failed 3 times in a row,
   * and the adapter reports none.
   */
  readonly isHealthy: boolean;
  /** Current problems, as sentences. */
  readonly problems: readonly string[];
  /** Capabilities of the adapter. */
  readonly capabilities: AdapterCapabilities;
  /** Circuits of the operations that are paused when they fail. */
  readonly circuits: Readonly<Record<CircuitName, CircuitStatus>>;
  /** Objects stored. */
  readonly storedObjects: number;
  /** Bytes stored. */
  readonly storedBytes: number;
  /** Objects that could not be stored. */
  readonly failedStores: number;
  /** Keys looked up. */
  readonly lookedUpKeys: number;
  /** Keys found. */
  readonly foundKeys: number;
  /** Objects loaded and verified. */
  readonly loadedObjects: number;
  /** Bytes loaded and verified. */
  readonly loadedBytes: number;
  /** Loaded objects that could not be verified because the adapter stores no trailers. */
  readonly unverifiedLoads: number;
  /** Objects that could not be loaded. */
  readonly missedLoads: number;
  /** Loaded objects that were not what was stored, by fault. */
  readonly damagedObjects: Readonly<Partial<Record<TrailerFault, number>>>;
  /** Calls that missed their deadline. */
  readonly timeouts: number;
  /** Calls that failed, including those that missed their deadline. */
  readonly failedCalls: number;
  /** Calls skipped because the adapter was closed or paused. */
  readonly skippedCalls: number;
  /** Lookup locks that have not been released. */
  readonly lockedKeys: number;
  /** Calls in flight that have not missed their deadline. */
  readonly callsInFlight: number;
  /** Calls that missed their deadline and have not ended. */
  readonly hungCalls: number;
  /** Recent load throughput in bytes per millisecond; `undefined` if unknown. */
  readonly loadBytesPerMs: number | undefined;
  /** Recent duration of a lookup in milliseconds; `undefined` if unknown. */
  readonly lookupMs: number | undefined;
  /** Message of the last failure. */
  readonly lastError: string | undefined;
  /** Status reported by the adapter itself. */
  readonly details: Readonly<Record<string, unknown>>;
}
