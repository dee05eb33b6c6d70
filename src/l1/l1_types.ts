import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { MemoryDevice, MemoryRange } from "../memory/memory_device.ts";
import type { SlabAllocatorStats } from "../memory/slab_allocator.ts";
import type { Clock } from "../base/clock.ts";
import type { OrderPolicy } from "../policies/eviction_order.ts";
import type { EvictionPolicy } from "../policies/eviction_policy.ts";

/** Outcome of a call for one key. */
export type L1Status =
  | "success"
  /** No such object, or nothing staged under that key. */
  | "key-not-exist"
  /** The object is resident or filling, or the same writer has already staged it. */
  | "already-present"
  /** The lock expired, so the object may be gone. */
  | "key-in-wrong-state"
  /** The object is leased, dirty or being written. */
  | "key-is-locked"
  /** The batch does not fit, even if every evictable object is evicted. */
  | "out-of-memory"
  /**
   * The batch exceeds the quota of its salt, even if every evictable object of that salt is
   * evicted.
   */
  | "quota-exceeded"
  /** The device is lost, or the cache is closed. */
  | "device-lost";

/** Why an object left L1. */
export type L1RemovalReason =
  /** Evicted to make room for another object, or because a limit was lowered. */
  | "evicted"
  /** Removed by {@linkcode L1Cache.delete} or {@linkcode L1Cache.clear}. */
  | "deleted"
  /** A transient object whose last lease ended. */
  | "temporary"
  /** The device was lost, or the cache was closed. */
  | "device-lost"
  /** Removed by {@linkcode L1Cache.forget}. */
  | "forgotten"
  /** Removed by {@linkcode L1Cache.release}. */
  | "released";

/**
 * A lease on a resident object: prevents eviction until `finishRead` or until the lease expires.
 */
export interface L1Lease {
  /** Key of the object. */
  readonly key: ObjectKey;
  /** Layout of the object. */
  readonly layout: ObjectLayout;
  /** Location of the bytes; valid for as long as the lease is. */
  readonly range: MemoryRange;
}

/**
 * An object that is being written and is not visible yet. Its memory stays reserved until the write
 * is finished or cancelled, or until its lock expires.
 */
export interface StagedObject {
  /** Key of the object. */
  readonly key: ObjectKey;
  /** Layout of the object. */
  readonly layout: ObjectLayout;
  /** Where the bytes have to be written. */
  readonly range: MemoryRange;
}

/** Outcome of {@linkcode L1Cache.reserveWrite} for one key. */
export type WriteReservation =
  | { readonly status: "success"; readonly staged: StagedObject }
  | { readonly status: Exclude<L1Status, "success"> };

/** Outcome of a call that takes leases, for one key. */
export type ReadReservation =
  | { readonly status: "success"; readonly lease: L1Lease }
  | { readonly status: Exclude<L1Status, "success"> };

/** Options of {@linkcode L1Cache.reserveWrite}. */
export interface ReserveWriteOptions {
  /**
   * Tag of the writer. Writers with different tags can stage the same key at the same time.
   * @default {"store"}
   */
  readonly writer?: string;
  /** Removes the object when its last lease ends. @default {false} */
  readonly transient?: boolean;
}

/** An object that an engine wrote. */
export interface WrittenObject {
  /** Key of the object. */
  readonly key: ObjectKey;
  /** Layout of the object. */
  readonly layout: ObjectLayout;
}

/** What {@linkcode L1Cache.forget} removed. */
export interface ForgottenObjects {
  /** Objects that were resident, staged or filling. */
  readonly objects: number;
  /** Bytes of their layouts. */
  readonly bytes: number;
}

/**
 * Callbacks, invoked after the call that caused them has finished, so they may call the cache.
 * Errors that they throw are logged.
 */
export interface L1Listener {
  /** Objects written by an engine became resident and have to be stored in the adapters. */
  written?(objects: readonly WrittenObject[]): void;
  /**
   * Objects became resident, whether an engine or a prefetch wrote them: L1 may be above its
   * watermark.
   */
  admitted?(): void;
  /** A resident object left L1. */
  removed?(key: ObjectKey, reason: L1RemovalReason): void;
}

/** Options of {@linkcode L1Cache}. */
export interface L1CacheOptions {
  /** Device whose memory holds the objects. */
  readonly device: MemoryDevice;
  /** Maximum bytes of device memory, a multiple of 256. */
  readonly capacityBytes: number;
  /** Size of a slab in bytes. */
  readonly slabBytes?: number;
  /** Clock by which locks and leases expire. */
  readonly clock: Clock;
  /** Order of eviction. */
  readonly policy: OrderPolicy | EvictionPolicy;
  /** Maximum bytes of the objects under a cache salt; `undefined` for no limit. */
  readonly quotaOf?: (salt: string) => number | undefined;
  /**
   * Lifetime of a write reservation in milliseconds; afterwards its memory may be reclaimed.
   * @default {600000}
   */
  readonly writeTtlMs?: number;
  /** Lifetime of a lease in milliseconds. @default {300000} */
  readonly readTtlMs?: number;
}

/** Status and counters of an {@linkcode L1Cache}. */
export interface L1StatusReport extends SlabAllocatorStats {
  /** Whether objects can be stored. */
  readonly isHealthy: boolean;
  /** Objects that were resident, staged or filling. */
  readonly totalObjectCount: number;
  /** Staged objects whose write lock is valid. */
  readonly writeLockedCount: number;
  /** Resident objects with a valid lease. */
  readonly readLockedCount: number;
  /** Transient objects: each leaves L1 when its last lease ends. */
  readonly temporaryCount: number;
  /** Staged objects. */
  readonly stagingObjectCount: number;
  /** Bytes of staged objects; included in `usedBytes`. */
  readonly stagingBytes: number;
  /** Objects that are written but that the device has not confirmed yet. */
  readonly fillingObjectCount: number;
  /** Bytes of filling objects; included in `usedBytes`. */
  readonly fillingBytes: number;
  /** Dirty objects: resident, and not yet in every chosen adapter. */
  readonly heldCount: number;
  /** Bytes of dirty objects; included in `usedBytes`. */
  readonly heldBytes: number;
  /** Pinned keys, whether resident or not. */
  readonly protectedCount: number;
  /**
   * Doomed objects: forgotten, no longer visible, and freed when their last reader or writer
   * finishes.
   */
  readonly leavingCount: number;
  /** Bytes of doomed objects; included in `usedBytes`. */
  readonly leavingBytes: number;
  /** `usedBytes / capacityBytes`. */
  readonly usageRatio: number;
  /** Objects evicted so far. */
  readonly evictedCount: number;
  /** Reservations that failed because device memory was full. */
  readonly outOfMemoryCount: number;
  /** Reservations that failed because of a quota. */
  readonly quotaExceededCount: number;
  /** Slabs that the device could not allocate. */
  readonly failedSlabCount: number;
  /** Objects discarded because the device did not execute the work that fills them. */
  readonly unfilledCount: number;
  /** Objects that engines wrote and the device confirmed. */
  readonly writtenObjects: number;
  /** Bytes of the objects that engines wrote. */
  readonly writtenBytes: number;
  /** Name of the eviction policy. */
  readonly evictionPolicy: string;
  /** Answers of the eviction policy that were not valid ranks, exceptions too. */
  readonly invalidRankCount: number;
  /** Lifetime of a write lock in milliseconds. */
  readonly writeTtlMs: number;
  /** Lifetime of a lease in milliseconds. */
  readonly readTtlMs: number;
}
