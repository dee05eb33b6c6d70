import type { L1Cache } from "../l1/l1_cache.ts";
import type { Clock } from "../base/clock.ts";
import type { RandomSource } from "../base/random.ts";
import type { AdapterSet } from "../l2/adapter_set.ts";
import type { DropReason } from "./flush_report.ts";
import type { AdmissionRefusal } from "./store_admission.ts";
import type { StorePolicy } from "./store_policy.ts";

/** What happens to objects when the queue of an adapter is full. */
export type WhenFull =
  /** They are queued anyway. Producers that await `ready()` are slowed down; others fill L1. */
  | "wait"
  /** New objects are dropped for that adapter. */
  | "drop_new"
  /** The oldest queued objects are dropped for that adapter. */
  | "drop_oldest";

/** Options of {@linkcode StoreController}. */
export interface StoreControllerOptions {
  readonly l1: L1Cache;
  readonly adapters: AdapterSet;
  /** Policy that chooses adapters and time. */
  readonly policy: StorePolicy;
  /** Clock for batching, retries and deadlines. */
  readonly clock: Clock;
  /** Source of jitter for retries. */
  readonly random: RandomSource;
  /** Queued bytes at which a batch is stored immediately; also the maximum size of a batch. */
  readonly flushBytes: number;
  /** Time without new objects after which a smaller batch is stored, in milliseconds. */
  readonly idleMs: number;
  /** Maximum bytes in read-back buffers. */
  readonly maxInFlightBytes: number;
  /**
   * Maximum bytes that are queued or backing off for one adapter. Batches in flight do not count
   * until they fail.
   */
  readonly maxQueuedBytes: number;
  /** What happens when a queue is full. */
  readonly whenFull: WhenFull;
  /** Maximum bytes to store in the adapters within a day. */
  readonly bytesPerDay?: number;
  /** Maximum number of attempts to store an object in one adapter. */
  readonly attempts: number;
  /** Delay before the second attempt in milliseconds; doubles with each further one, up to 30 s. */
  readonly backOffMs: number;
  /**
   * Shares of L1 in use between which `before-eviction` policies store: above `high`, down to
   * `low`.
   */
  readonly watermark: { readonly high: number; readonly low: number };
  /** Called when adapters will not get objects chosen for them. Must not throw. */
  readonly onDropped?: ((objects: number, reason: DropReason) => void) | undefined;
}

/** Status and counters of a {@linkcode StoreController}. */
export interface StoreStatus {
  /** Name of the policy. */
  readonly policy: string;
  /** What happens when a queue is full. */
  readonly whenFull: WhenFull;
  /** Dirty objects, whether they are queued or not. */
  readonly unsavedObjects: number;
  /** Objects that are queued or backing off. */
  readonly pendingObjects: number;
  /** Bytes of objects that are queued or backing off. */
  readonly pendingBytes: number;
  /** Objects being stored, counted once for each adapter. */
  readonly inFlightObjects: number;
  /** Bytes of objects being stored, counted once for each adapter. */
  readonly inFlightBytes: number;
  /** Batches read back from the device. */
  readonly batches: number;
  /** Bytes read back from the device. */
  readonly readBackBytes: number;
  /**
   * Milliseconds spent waiting for the device. The event loop may have been blocked for as long.
   */
  readonly readBackMs: number;
  /** Retries, counted for each object and adapter. */
  readonly retriedObjects: number;
  /** Objects whose last attempt failed, counted once for each adapter. */
  readonly failedObjects: number;
  /**
   * Objects dropped because a queue was full or an adapter was removed, counted once for each
   * adapter.
   */
  readonly droppedObjects: number;
  /**
   * Objects that left device memory before an adapter stored them, because the device was lost or
   * they were forgotten; counted once for each adapter.
   */
  readonly lostObjects: number;
  /** Batches that could not be read back from the device. */
  readonly failedReadBacks: number;
  /** Objects that were not worth a write, by reason; a later touch may still store them. */
  readonly refusedObjects: Readonly<Record<AdmissionRefusal, number>>;
}
