import type { L1Cache } from "../l1/l1_cache.ts";
import type { Clock } from "../runtime/clock.ts";
import type { RandomSource } from "../runtime/random.ts";
import type { AdapterSet } from "./adapter_set.ts";
import type { StorePolicy } from "./policies/store_policy.ts";

/** What happens to objects that an adapter's queue has no room for. */
export type WhenFull =
  /** They are queued; producers that await `ready()` are held up, others fill L1. */
  | "wait"
  /** They are not queued for that adapter. */
  | "drop_new"
  /** The oldest that are queued for that adapter make room. */
  | "drop_oldest";

/** How a {@linkcode StoreController} is set up. */
export interface StoreControllerOptions {
  /** Where objects come from. */
  readonly l1: L1Cache;
  /** Where they go. */
  readonly adapters: AdapterSet;
  /** Which go where, and when. */
  readonly policy: StorePolicy;
  /** Source of time. */
  readonly clock: Clock;
  /** Spreads retries. */
  readonly random: RandomSource;
  /** Queued bytes at which a batch is written at once, and the size of a batch. */
  readonly flushBytes: number;
  /** Otherwise a batch is written when nothing was queued for this long. */
  readonly idleMs: number;
  /** Most bytes in read-back buffers. */
  readonly maxInFlightBytes: number;
  /**
   * Most bytes that wait for one adapter, to be written or to be written again. Batches that are
   * being written do not count until they fail.
   */
  readonly maxQueuedBytes: number;
  /** What happens beyond that. */
  readonly whenFull: WhenFull;
  /** How often an object is offered to one adapter. */
  readonly attempts: number;
  /** Time before the second attempt; it doubles for each further one, up to 30 s. */
  readonly backOffMs: number;
  /** Share of L1 in use at which `before-eviction` policies write, and down to which. */
  readonly watermark: { readonly high: number; readonly low: number };
}

/** Counters of a {@linkcode StoreController}. */
export interface StoreStatus {
  /** Name of the policy. */
  readonly policy: string;
  /** What happens when a queue is full. */
  readonly whenFull: WhenFull;
  /** Objects that only L1 has yet, whether they are queued or not. */
  readonly unsavedObjects: number;
  /** Objects that wait to be written, or to be written again. */
  readonly pendingObjects: number;
  /** Their bytes. */
  readonly pendingBytes: number;
  /** Objects being written, once for each adapter. */
  readonly inFlightObjects: number;
  /** Batches read back so far. */
  readonly batches: number;
  /** Bytes read back so far. */
  readonly readBackBytes: number;
  /** Time spent waiting for the device; the event loop may have been blocked for as long. */
  readonly readBackMs: number;
  /** Objects that are offered to an adapter again, once for each time. */
  readonly retriedObjects: number;
  /** Objects that an adapter did not take in the end, once for each adapter. */
  readonly failedObjects: number;
  /** Objects that a full queue or a removed adapter cost, once for each adapter. */
  readonly droppedObjects: number;
  /**
   * Objects that left device memory before an adapter had them, once for each adapter: the device
   * was lost, or they were forgotten.
   */
  readonly lostObjects: number;
  /** Batches that could not be read back from the device. */
  readonly failedReadBacks: number;
}

/** Told by a {@linkcode StoreController}. */
export interface StoreListener {
  /** An adapter does not get objects that it should have got. What this throws is logged. */
  dropped?(count: number, reason: DropReason): void;
}

/** Why an adapter does not get an object. */
export type DropReason =
  /** Its queue was full. */
  | "full"
  /** It did not take the object, however often that was tried. */
  | "failed"
  /** It was removed, or the controller was disposed. */
  | "removed"
  /** The object left device memory before. */
  | "lost";
