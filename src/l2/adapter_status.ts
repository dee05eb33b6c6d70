import type { AdapterCapabilities } from "./adapter.ts";
import type { CircuitState } from "./circuit_breaker.ts";
import type { TrailerFault } from "./object_trailer.ts";

/** How long a call of each kind may take, in milliseconds. */
export interface AdapterTimeouts {
  /** A lookup, or a look at how much is used. @default {2000} */
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

/** Deadlines unless others are given. */
export const DEFAULT_ADAPTER_TIMEOUTS: AdapterTimeouts = {
  lookupMs: 2_000,
  loadMs: 30_000,
  storeMs: 60_000,
  deleteMs: 10_000,
  closeMs: 10_000,
};

/**
 * Life cycle of an adapter: it takes everything; it takes no more stores, because its objects move
 * elsewhere; it takes no more lookups either; it takes nothing.
 */
export type AdapterState = "active" | "migrating" | "draining" | "closed";

/** Operations that are left alone for a while when they fail. */
export type CircuitName = "store" | "lookup" | "load" | "delete";

/** State of one {@linkcode CircuitName}. */
export interface CircuitStatus {
  /** Whether calls are let through. */
  readonly state: CircuitState;
  /** How often it opened. */
  readonly openCount: number;
  /** Time until it is tried again, in milliseconds; 0 unless it is open. */
  readonly retryInMs: number;
}

/** State and counters of one adapter. */
export interface AdapterStatus {
  /** Number within the cache. */
  readonly id: number;
  /** Type. */
  readonly type: string;
  /** Life cycle. */
  readonly state: AdapterState;
  /** Whether it works: every circuit is closed, and no 3 calls of a kind failed in a row. */
  readonly isHealthy: boolean;
  /** What does not work, in words. */
  readonly problems: readonly string[];
  /** What it promises. */
  readonly capabilities: AdapterCapabilities;
  /** Which operations are left alone. */
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
  /** Objects among them that nobody could verify: the adapter keeps no seals. */
  readonly unverifiedLoads: number;
  /** Objects that could not be loaded. */
  readonly missedLoads: number;
  /** Objects that were loaded but were not what was stored, by what was wrong. */
  readonly damagedObjects: Readonly<Partial<Record<TrailerFault, number>>>;
  /** Calls that took too long. */
  readonly timeouts: number;
  /** Calls that failed, those that took too long among them. */
  readonly failedCalls: number;
  /** Calls that were not made, because the adapter is left alone. */
  readonly skippedCalls: number;
  /** Locks of lookups that nobody has given back yet. */
  readonly lockedKeys: number;
  /** Calls that have neither ended nor missed their deadline. */
  readonly callsInFlight: number;
  /** Calls that missed their deadline and have not ended. */
  readonly hungCalls: number;
  /** Bytes that a load moves in a millisecond, lately; `undefined` if unknown. */
  readonly loadBytesPerMs: number | undefined;
  /** Time of a lookup, lately, in milliseconds; `undefined` if unknown. */
  readonly lookupMs: number | undefined;
  /** The last failure in words. */
  readonly lastError: string | undefined;
  /** What the adapter says of itself. */
  readonly details: Readonly<Record<string, unknown>>;
}
