import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { MemoryDevice, MemoryRange, Slab } from "../memory/memory_device.ts";
import {
  type Allocation,
  SlabAllocator,
  type SlabAllocatorStats,
} from "../memory/slab_allocator.ts";
import type { Clock } from "../runtime/clock.ts";
import type { EvictionPolicy } from "./eviction_policy.ts";

/** How a call ended for one key. */
export type L1Status =
  | "success"
  /** No such object, or the writer has nothing staged under that key. */
  | "key-not-exist"
  /** The object is resident already, or the same writer has it staged. */
  | "key-not-writable"
  /** The lock expired: what it protected may be gone. */
  | "key-in-wrong-state"
  /** The object is pinned, or being written. */
  | "key-is-locked"
  /** The batch does not fit beside what is locked. */
  | "out-of-memory"
  /** The device is lost, or the cache is closed. */
  | "device-lost";

/** Why an object left. */
export type L1RemovalReason = "evicted" | "deleted" | "temporary" | "device-lost";

/** A resident object, protected from eviction until `finishRead` or until its lock expires. */
export interface L1Pin {
  /** Its key. */
  readonly key: ObjectKey;
  /** Its layout. */
  readonly layout: ObjectLayout;
  /** Where its bytes lie, as long as the pin is valid. */
  readonly range: MemoryRange;
}

/** Outcome of {@linkcode L1Cache.reserveWrite} for one key. */
export type WriteReservation =
  | { readonly status: "success"; readonly range: MemoryRange }
  | { readonly status: Exclude<L1Status, "success"> };

/** Outcome of a call that pins, for one key. */
export type ReadReservation =
  | { readonly status: "success"; readonly pin: L1Pin }
  | { readonly status: Exclude<L1Status, "success"> };

/** Who writes, and what. */
export interface WriteOptions {
  /** Writers with different tags can stage the same key at a time. @default {"store"} */
  readonly writer?: string;
}

/** Options of {@linkcode L1Cache.reserveWrite}. */
export interface ReserveWriteOptions extends WriteOptions {
  /** Frees the object when its last reader has finished. @default {false} */
  readonly temporary?: boolean;
}

/** An object that an engine has written. */
export interface WrittenObject {
  /** Its key. */
  readonly key: ObjectKey;
  /** Its layout. */
  readonly layout: ObjectLayout;
}

/** Told after a call has done its work; must not throw. */
export interface L1Listener {
  /** An engine's objects became resident, to be written through. */
  written?(objects: readonly WrittenObject[]): void;
  /** An object left. */
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
  /** After this time a reservation for writing may be reclaimed. @default {600000} */
  readonly writeTtlMs?: number;
  /** After this time a pin may be void. @default {300000} */
  readonly readTtlMs?: number;
}

/** Counters of an {@linkcode L1Cache}. */
export interface L1StatusReport extends SlabAllocatorStats {
  /** Whether objects can be stored. */
  readonly isHealthy: boolean;
  /** Resident and staged objects. */
  readonly totalObjectCount: number;
  /** Objects staged under a live lock. */
  readonly writeLockedCount: number;
  /** Pinned objects. */
  readonly readLockedCount: number;
  /** Objects that leave with their last reader. */
  readonly temporaryCount: number;
  /** Staged objects. */
  readonly stagingObjectCount: number;
  /** Bytes of staged objects, part of `usedBytes`. */
  readonly stagingBytes: number;
  /** `usedBytes / capacityBytes`. */
  readonly usageRatio: number;
  /** Objects evicted so far. */
  readonly evictedCount: number;
  /** Reservations that failed for want of memory. */
  readonly outOfMemoryCount: number;
  /** Slabs that the device could not provide. */
  readonly failedSlabCount: number;
  /** Name of the eviction policy. */
  readonly evictionPolicy: string;
  /** Life of a write lock. */
  readonly writeTtlMs: number;
  /** Life of a read lock. */
  readonly readTtlMs: number;
}

interface Entry {
  readonly key: ObjectKey;
  readonly layout: ObjectLayout;
  readonly allocation: Allocation;
  readonly temporary: boolean;
  locks: number;
  lockExpiresAt: number;
  /** Grows when expired locks are discarded, so that a late release cannot take another's lock. */
  lockEpoch: number;
  isGone: boolean;
}

class Pin implements L1Pin {
  readonly entry: Entry;
  readonly epoch: number;
  isReleased = false;

  constructor(entry: Entry) {
    this.entry = entry;
    this.epoch = entry.lockEpoch;
  }

  get key(): ObjectKey {
    return this.entry.key;
  }

  get layout(): ObjectLayout {
    return this.entry.layout;
  }

  get range(): MemoryRange {
    return this.entry.allocation;
  }
}

const DEFAULT_WRITER = "store";

/**
 * Objects in device memory. An object is *staged* while its writer fills it, invisible to readers;
 * then it is *resident*, and *pinned* while it is read. What nobody pins may be evicted, at once,
 * when a reservation needs the room. Locks expire, so that a caller that vanished cannot hold
 * memory for ever. Expected outcomes are returned, not thrown.
 */
export class L1Cache implements Disposable {
  /** Where the bytes lie. */
  readonly device: MemoryDevice;
  readonly #allocator: SlabAllocator;
  readonly #clock: Clock;
  readonly #policy: EvictionPolicy;
  readonly #writeTtlMs: number;
  readonly #readTtlMs: number;
  readonly #resident = new Map<string, Entry>();
  readonly #staged = new Map<string, Map<string, Entry>>();
  readonly #listeners = new Set<L1Listener>();
  readonly #left: { readonly key: ObjectKey; readonly reason: L1RemovalReason }[] = [];
  #isClosed = false;
  #evictedCount = 0;
  #outOfMemoryCount = 0;
  #failedSlabCount = 0;

  /** @throws {RangeError} If a size is not a positive multiple of 256 bytes. */
  constructor(options: L1CacheOptions) {
    const { device, capacityBytes, slabBytes } = options;
    this.device = device;
    this.#clock = options.clock;
    this.#policy = options.policy;
    this.#writeTtlMs = options.writeTtlMs ?? 600_000;
    this.#readTtlMs = options.readTtlMs ?? 300_000;
    this.#allocator = new SlabAllocator(device, {
      capacityBytes,
      ...(slabBytes === undefined ? {} : { slabBytes }),
      onSlabFailed: (slab) => this.#dropSlab(slab),
    });
  }

  /** Largest object that fits into an empty cache, in bytes. */
  get maxObjectBytes(): number {
    return this.#allocator.maxObjectBytes;
  }

  /** Adds a listener. */
  addListener(listener: L1Listener): void {
    this.#listeners.add(listener);
  }

  /**
   * Allocates room for objects and locks it for writing, evicting what is least worth keeping.
   * All keys that can be written get their room, or none does (`out-of-memory`).
   */
  reserveWrite(
    keys: readonly ObjectKey[],
    layout: ObjectLayout,
    options: ReserveWriteOptions = {},
  ): WriteReservation[] {
    const { writer = DEFAULT_WRITER, temporary = false } = options;
    if (this.#isLost) return keys.map(() => ({ status: "device-lost" }));
    const staged: Entry[] = [];
    const victims = this.#policy.candidates()[Symbol.iterator]();
    const reservations: WriteReservation[] = [];
    let failed = false;
    for (const key of keys) {
      if (!this.#isWritable(key, writer)) {
        reservations.push({ status: "key-not-writable" });
        continue;
      }
      const allocation = this.#allocate(layout.byteLength, victims);
      if (allocation === null) {
        failed = true;
        break;
      }
      const entry: Entry = {
        key,
        layout,
        allocation,
        temporary,
        locks: 1,
        lockExpiresAt: this.#clock.now() + this.#writeTtlMs,
        lockEpoch: 0,
        isGone: false,
      };
      this.#stage(entry, writer);
      staged.push(entry);
      reservations.push({ status: "success", range: allocation });
    }
    if (failed) {
      this.#outOfMemoryCount++;
      for (const entry of staged) this.#unstage(entry, writer);
    }
    this.#notifyRemoved();
    return failed ? keys.map(() => ({ status: "out-of-memory" })) : reservations;
  }

  /**
   * Makes staged objects resident, in prefix order, and reports them to be written through.
   * Where another writer was faster, the staged copy is dropped: the bytes are the same.
   */
  finishWrite(keys: readonly ObjectKey[], options: WriteOptions = {}): L1Status[] {
    const { writer = DEFAULT_WRITER } = options;
    const admitted = keys.map((key) => this.#admit(key, writer));
    this.#policy.admitted(admitted.flatMap(({ entry }) => entry === null ? [] : [entry.key.id]));
    const written = admitted.flatMap(({ entry }) =>
      entry === null || entry.temporary ? [] : [{ key: entry.key, layout: entry.layout }]
    );
    if (written.length > 0) {
      for (const listener of this.#listeners) listener.written?.(written);
    }
    return admitted.map(({ status }) => status);
  }

  /**
   * Makes staged objects resident and pins them, in one step. They came from a storage adapter:
   * nobody is told to write them through again.
   */
  finishWriteAndReserveRead(
    keys: readonly ObjectKey[],
    options: WriteOptions = {},
  ): ReadReservation[] {
    const { writer = DEFAULT_WRITER } = options;
    const ids: string[] = [];
    const reservations = keys.map((key): ReadReservation => {
      const { status, entry } = this.#admit(key, writer);
      if (status !== "success") return { status };
      if (entry !== null) ids.push(key.id);
      return this.#pin(key);
    });
    this.#policy.admitted(ids);
    return reservations;
  }

  /** Gives up staged objects; they were never visible. */
  finishWriteAndDelete(keys: readonly ObjectKey[], options: WriteOptions = {}): L1Status[] {
    const { writer = DEFAULT_WRITER } = options;
    return keys.map((key) => {
      const entry = this.#staged.get(key.id)?.get(writer);
      if (entry === undefined) return "key-not-exist";
      this.#unstage(entry, writer);
      return "success";
    });
  }

  /** Pins resident objects; that alone is no use of them, see {@linkcode touch}. */
  reserveRead(keys: readonly ObjectKey[]): ReadReservation[] {
    return keys.map((key) => this.#pin(key));
  }

  /** Gives up pins. A pin that expired, or is given up twice, changes nothing. */
  finishRead(pins: readonly L1Pin[]): L1Status[] {
    const statuses = pins.map((pin): L1Status => {
      if (!(pin instanceof Pin) || pin.entry.isGone) return "key-not-exist";
      if (!this.isPinned(pin)) return "key-in-wrong-state";
      const { entry } = pin;
      pin.isReleased = true;
      entry.locks--;
      if (entry.locks === 0 && entry.temporary) this.#remove(entry, "temporary");
      return "success";
    });
    this.#notifyRemoved();
    return statuses;
  }

  /** Whether a pin still protects its object; if not, the bytes in its range may be others. */
  isPinned(pin: L1Pin): boolean {
    return pin instanceof Pin && !pin.isReleased && !pin.entry.isGone && !this.device.isLost &&
      pin.epoch === pin.entry.lockEpoch && this.#isLocked(pin.entry);
  }

  /** Counts as a use of resident objects. */
  touch(keys: readonly ObjectKey[]): void {
    this.#policy.touched(keys.map((key) => key.id));
  }

  /** Removes resident objects, unless they are pinned or being written. */
  delete(keys: readonly ObjectKey[]): L1Status[] {
    const statuses = keys.map((key): L1Status => {
      for (const [writer, entry] of this.#staged.get(key.id) ?? []) {
        if (!this.#isLocked(entry)) this.#unstage(entry, writer);
      }
      const entry = this.#resident.get(key.id);
      if (entry === undefined) return this.#staged.has(key.id) ? "key-is-locked" : "key-not-exist";
      if (this.#isLocked(entry)) return "key-is-locked";
      this.#remove(entry, "deleted");
      return "success";
    });
    this.#notifyRemoved();
    return statuses;
  }

  /** Removes all objects that nobody pins. */
  clear(): void {
    this.#reclaimExpiredStaging();
    for (const entry of this.#resident.values()) {
      if (!this.#isLocked(entry)) this.#remove(entry, "deleted");
    }
    this.#notifyRemoved();
  }

  /**
   * Whether a reservation still protects its room; if not, the room may be another object's, and
   * must not be written to.
   */
  isReserved(key: ObjectKey, options: WriteOptions = {}): boolean {
    const entry = this.#staged.get(key.id)?.get(options.writer ?? DEFAULT_WRITER);
    return entry !== undefined && !this.#isLost && this.#isLocked(entry);
  }

  /** Whether an object is resident. */
  has(key: ObjectKey): boolean {
    return this.#resident.has(key.id);
  }

  /** Counters now. */
  reportStatus(): L1StatusReport {
    const staged = [...this.#staged.values()].flatMap((writers) => [...writers.values()]);
    const resident = [...this.#resident.values()];
    const count = (entries: Entry[], test: (entry: Entry) => boolean): number =>
      entries.filter(test).length;
    const stats = this.#allocator.stats();
    return {
      ...stats,
      isHealthy: !this.#isClosed && !this.device.isLost && this.#failedSlabCount === 0,
      totalObjectCount: resident.length + staged.length,
      writeLockedCount: count(staged, (entry) => this.#isLocked(entry)),
      readLockedCount: count(resident, (entry) => this.#isLocked(entry)),
      temporaryCount: count([...resident, ...staged], (entry) => entry.temporary),
      stagingObjectCount: staged.length,
      stagingBytes: staged.reduce((sum, entry) => sum + entry.allocation.reservedBytes, 0),
      usageRatio: stats.usedBytes / stats.capacityBytes,
      evictedCount: this.#evictedCount,
      outOfMemoryCount: this.#outOfMemoryCount,
      failedSlabCount: this.#failedSlabCount,
      evictionPolicy: this.#policy.name,
      writeTtlMs: this.#writeTtlMs,
      readTtlMs: this.#readTtlMs,
    };
  }

  /** Drops every object at once and voids every pin; the memory is released. */
  [Symbol.dispose](): void {
    this.#isClosed = true;
    for (const entry of this.#resident.values()) this.#remove(entry, "device-lost");
    this.#staged.clear();
    this.#allocator[Symbol.dispose]();
    this.#notifyRemoved();
    this.#listeners.clear();
  }

  get #isLost(): boolean {
    return this.#isClosed || this.device.isLost;
  }

  #isWritable(key: ObjectKey, writer: string): boolean {
    if (this.#resident.has(key.id)) return false;
    const staged = this.#staged.get(key.id)?.get(writer);
    if (staged === undefined) return true;
    if (this.#isLocked(staged)) return false;
    this.#unstage(staged, writer);
    return true;
  }

  #allocate(byteLength: number, victims: Iterator<string>): Allocation | null {
    if (byteLength > this.maxObjectBytes) return null;
    let allocation = this.#allocator.allocate(byteLength);
    if (allocation === null && this.#reclaimExpiredStaging()) {
      allocation = this.#allocator.allocate(byteLength);
    }
    while (allocation === null) {
      const victim = victims.next();
      if (victim.done === true) return null;
      const entry = this.#resident.get(victim.value);
      if (entry === undefined || this.#isLocked(entry)) continue;
      this.#remove(entry, "evicted");
      this.#evictedCount++;
      allocation = this.#allocator.allocate(byteLength);
    }
    return allocation;
  }

  #admit(key: ObjectKey, writer: string): { status: L1Status; entry: Entry | null } {
    if (this.#isLost) return { status: "device-lost", entry: null };
    const entry = this.#staged.get(key.id)?.get(writer);
    if (entry === undefined) return { status: "key-not-exist", entry: null };
    // An expired writer may have lost its room to another: what lies there is not its object.
    if (!this.#isLocked(entry)) return { status: "key-in-wrong-state", entry: null };
    if (this.#resident.has(key.id)) {
      this.#unstage(entry, writer);
      return { status: "success", entry: null };
    }
    this.#removeStaged(entry, writer);
    entry.locks = 0;
    this.#resident.set(key.id, entry);
    return { status: "success", entry };
  }

  #pin(key: ObjectKey): ReadReservation {
    if (this.#isLost) return { status: "device-lost" };
    const entry = this.#resident.get(key.id);
    if (entry === undefined) return { status: "key-not-exist" };
    const now = this.#clock.now();
    if (entry.locks > 0 && now >= entry.lockExpiresAt) {
      entry.locks = 0;
      entry.lockEpoch++;
    }
    entry.locks++;
    entry.lockExpiresAt = now + this.#readTtlMs;
    return { status: "success", pin: new Pin(entry) };
  }

  #isLocked(entry: Entry): boolean {
    return entry.locks > 0 && this.#clock.now() < entry.lockExpiresAt;
  }

  #stage(entry: Entry, writer: string): void {
    const writers = this.#staged.get(entry.key.id);
    if (writers === undefined) this.#staged.set(entry.key.id, new Map([[writer, entry]]));
    else writers.set(writer, entry);
  }

  #removeStaged(entry: Entry, writer: string): void {
    const writers = this.#staged.get(entry.key.id);
    writers?.delete(writer);
    if (writers?.size === 0) this.#staged.delete(entry.key.id);
  }

  #unstage(entry: Entry, writer: string): void {
    this.#removeStaged(entry, writer);
    entry.isGone = true;
    this.#allocator.free(entry.allocation);
  }

  #reclaimExpiredStaging(): boolean {
    let reclaimed = false;
    for (const writers of this.#staged.values()) {
      for (const [writer, entry] of writers) {
        if (this.#isLocked(entry)) continue;
        this.#unstage(entry, writer);
        reclaimed = true;
      }
    }
    return reclaimed;
  }

  /** Whoever calls this calls {@linkcode #notifyRemoved} when its work is done. */
  #remove(entry: Entry, reason: L1RemovalReason): void {
    entry.isGone = true;
    this.#resident.delete(entry.key.id);
    this.#policy.removed(entry.key.id);
    this.#allocator.free(entry.allocation);
    this.#left.push({ key: entry.key, reason });
  }

  #dropSlab(slab: Slab): void {
    this.#failedSlabCount++;
    for (const writers of this.#staged.values()) {
      for (const [writer, entry] of writers) {
        if (entry.allocation.slab === slab) this.#unstage(entry, writer);
      }
    }
    for (const entry of this.#resident.values()) {
      if (entry.allocation.slab === slab) this.#remove(entry, "device-lost");
    }
    this.#notifyRemoved();
  }

  #notifyRemoved(): void {
    const left = this.#left.splice(0);
    for (const listener of this.#listeners) {
      for (const { key, reason } of left) listener.removed?.(key, reason);
    }
  }
}
