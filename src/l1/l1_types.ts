import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { MemoryDevice, MemoryRange } from "../memory/memory_device.ts";
import type { SlabAllocatorStats } from "../memory/slab_allocator.ts";
import type { Clock } from "../runtime/clock.ts";
import type { EvictionPolicy } from "./eviction_policy.ts";

/** How a call ended for one key. */
export type L1Status =
  | "success"
  /** No such object, or nothing that is staged. */
  | "key-not-exist"
  /** The object is resident or filling, or the same writer has it staged. */
  | "already-present"
  /** The lock expired: what it protected may be gone. */
  | "key-in-wrong-state"
  /** The object is leased, held, or being written. */
  | "key-is-locked"
  /** The batch does not fit beside what may not leave. */
  | "out-of-memory"
  /** The batch does not fit into its salt's quota beside what may not leave. */
  | "quota-exceeded"
  /** The device is lost, or the cache is closed. */
  | "device-lost";

/** Why an object left. */
export type L1RemovalReason =
  /** Another object needed the room, or a bound was lowered. */
  | "evicted"
  /** By {@linkcode L1Cache.delete} or {@linkcode L1Cache.clear}. */
  | "deleted"
  /** It was transient, and its last reader has finished. */
  | "temporary"
  /** The device lost its memory, or the cache was closed. */
  | "device-lost"
  /** By {@linkcode L1Cache.forget}. */
  | "forgotten"
  /** By {@linkcode L1Cache.release}. */
  | "released";

/** A resident object, protected from eviction until `finishRead` or until its lock expires. */
export interface L1Lease {
  /** Its key. */
  readonly key: ObjectKey;
  /** Its layout. */
  readonly layout: ObjectLayout;
  /** Where its bytes lie, as long as the lease is valid. */
  readonly range: MemoryRange;
}

/**
 * An object that is being written and that nobody finds yet. Its room is its own until it is
 * finished or given up, or until its lock expires.
 */
export interface StagedObject {
  /** Its key. */
  readonly key: ObjectKey;
  /** Its layout. */
  readonly layout: ObjectLayout;
  /** Where its bytes belong. */
  readonly range: MemoryRange;
}

/** Outcome of {@linkcode L1Cache.reserveWrite} for one key. */
export type WriteReservation =
  | { readonly status: "success"; readonly staged: StagedObject }
  | { readonly status: Exclude<L1Status, "success"> };

/** Outcome of a call that leases, for one key. */
export type ReadReservation =
  | { readonly status: "success"; readonly lease: L1Lease }
  | { readonly status: Exclude<L1Status, "success"> };

/** Options of {@linkcode L1Cache.reserveWrite}. */
export interface ReserveWriteOptions {
  /** Writers with different tags can stage the same key at a time. @default {"store"} */
  readonly writer?: string;
  /** Frees the object when its last reader has finished. @default {false} */
  readonly transient?: boolean;
}

/** An object that an engine has written. */
export interface WrittenObject {
  /** Its key. */
  readonly key: ObjectKey;
  /** Its layout. */
  readonly layout: ObjectLayout;
}

/** How much {@linkcode L1Cache.forget} removed. */
export interface ForgottenObjects {
  /** Resident objects, and those on their way in. */
  readonly objects: number;
  /** Bytes of their layouts. */
  readonly bytes: number;
}

/** Told after a call has done its work, so it may call the cache; what it throws is logged. */
export interface L1Listener {
  /** An engine's objects became resident, to be written through. */
  written?(objects: readonly WrittenObject[]): void;
  /** Objects became resident, whoever wrote them: L1 may be fuller than it should be. */
  admitted?(): void;
  /** A resident object left. */
  removed?(key: ObjectKey, reason: L1RemovalReason): void;
}

/** How an {@linkcode L1Cache} is set up. */
export interface L1CacheOptions {
  /** Where the bytes lie. */
  readonly device: MemoryDevice;
  /** Most bytes of device memory, a multiple of 256. */
  readonly capacityBytes: number;
  /** Size of a slab. */
  readonly slabBytes?: number;
  /** Source of time for locks. */
  readonly clock: Clock;
  /** Who leaves first. */
  readonly policy: EvictionPolicy;
  /** Most bytes of the objects under a cache salt; `undefined` for no limit. */
  readonly quotaOf?: (salt: string) => number | undefined;
  /** After this time a reservation for writing may be reclaimed. @default {600000} */
  readonly writeTtlMs?: number;
  /** After this time a lease may be void. @default {300000} */
  readonly readTtlMs?: number;
}

/** Counters of an {@linkcode L1Cache}. */
export interface L1StatusReport extends SlabAllocatorStats {
  /** Whether objects can be stored. */
  readonly isHealthy: boolean;
  /** Resident objects, and those on their way in. */
  readonly totalObjectCount: number;
  /** Objects staged under a live lock. */
  readonly writeLockedCount: number;
  /** Pinned resident objects. */
  readonly readLockedCount: number;
  /** Objects that leave with their last reader. */
  readonly temporaryCount: number;
  /** Staged objects. */
  readonly stagingObjectCount: number;
  /** Bytes of staged objects, part of `usedBytes`. */
  readonly stagingBytes: number;
  /** Objects that are written, and of which the device has not said yet that it takes them. */
  readonly fillingObjectCount: number;
  /** Their bytes, part of `usedBytes`. */
  readonly fillingBytes: number;
  /** Resident objects that are held. */
  readonly heldCount: number;
  /** Bytes of held objects, part of `usedBytes`. */
  readonly heldBytes: number;
  /** Keys that are protected, resident or not. */
  readonly protectedCount: number;
  /** Forgotten objects that nobody can find, whose readers or writers have not finished. */
  readonly leavingCount: number;
  /** Bytes of leaving objects, part of `usedBytes`. */
  readonly leavingBytes: number;
  /** `usedBytes / capacityBytes`. */
  readonly usageRatio: number;
  /** Objects evicted so far. */
  readonly evictedCount: number;
  /** Reservations that failed for want of memory. */
  readonly outOfMemoryCount: number;
  /** Reservations that failed because of a quota. */
  readonly quotaExceededCount: number;
  /** Slabs that the device could not provide. */
  readonly failedSlabCount: number;
  /** Objects that were given up because the device did not do the work that was to fill them. */
  readonly unfilledCount: number;
  /** Name of the eviction policy. */
  readonly evictionPolicy: string;
  /** Life of a write lock. */
  readonly writeTtlMs: number;
  /** Life of a read lock. */
  readonly readTtlMs: number;
}
