import { getLogger } from "@logtape/logtape";
import { Bitmap } from "../keys/bitmap.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { MemoryDevice } from "../memory/memory_device.ts";
import type { L1Entry } from "./l1_entry.ts";
import type { ForgottenObjects, L1Status, L1StatusReport, WrittenObject } from "./l1_types.ts";
import { L1Writes } from "./l1_writes.ts";

export type {
  ForgottenObjects,
  L1CacheOptions,
  L1Lease,
  L1Listener,
  L1RemovalReason,
  L1Status,
  L1StatusReport,
  ReadReservation,
  ReserveWriteOptions,
  StagedObject,
  WriteReservation,
  WrittenObject,
} from "./l1_types.ts";

const logger = getLogger(["kvtier", "l1"]);

/**
 * Cache of objects in device memory. An object is *staged* while its writer fills it, and *filling*
 * until the device has confirmed the work that fills it; readers cannot find it before it is
 * *resident*. Readers hold *leases* on resident objects. An object that is not leased, dirty or
 * pinned can be evicted as soon as a reservation needs its space. Locks and leases expire, so that
 * a caller that disappears cannot hold memory forever. Expected outcomes are return values, not
 * exceptions. The cost of a call depends only on the objects that it names or removes.
 */
export class L1Cache extends L1Writes implements Disposable {
  #isClosed = false;

  /** Maximum bytes of device memory. */
  get capacityBytes(): number {
    return this.options.capacityBytes;
  }

  /** Bytes of device memory in use, including those of staged and doomed objects. */
  get usedBytes(): number {
    return this.table.allocator.usedBytes;
  }

  /** Size in bytes of the largest object that fits into an empty cache. */
  get maxObjectBytes(): number {
    return this.table.allocator.maxObjectBytes;
  }

  /**
   * Marks resident and filling objects as used now. Keys are in prefix order.
   *
   * @param isUse Whether this counts as a use, such as a hit, or only keeps objects that were just
   * written together with those that they depend on.
   * @returns The number of leading keys whose objects are resident and not dirty: the adapters
   * chosen for them have them.
   */
  touch(keys: readonly ObjectKey[], isUse = true): number {
    let front = keys.length;
    let next: L1Entry | undefined;
    for (let i = keys.length - 1; i >= 0; i--) {
      const { id } = keys[i] as ObjectKey;
      const resident = this.table.get(id);
      const entry = resident ?? this.table.filling(id);
      if (entry !== undefined) {
        this.table.use(entry, next, isUse);
        next = entry;
      }
      if (resident === undefined || resident.dirtyMarks > 0) front = i;
    }
    return front;
  }

  /** Removes resident objects that are neither leased, dirty nor being written. */
  delete(keys: readonly ObjectKey[]): L1Status[] {
    const now = this.now;
    const statuses = keys.map((key): L1Status => {
      let isIncoming = false;
      for (const entry of this.table.incomingUnder(key.id)) {
        if (entry.isLocked(now)) isIncoming = true;
        else this.table.discard(entry);
      }
      const entry = this.table.get(key.id);
      if (entry === undefined) return isIncoming ? "key-is-locked" : "key-not-exist";
      if (entry.dirtyMarks > 0 || entry.isLocked(now)) return "key-is-locked";
      this.remove(entry, "deleted");
      return "success";
    });
    this.notifyRemoved();
    return statuses;
  }

  /** Removes every object that is neither leased, dirty, pinned nor being written. */
  clear(): void {
    this.table.reclaimExpired(this.now);
    for (const entry of this.table.idle()) this.remove(entry, "deleted");
    this.notifyRemoved();
  }

  /**
   * Makes every object whose key passes `test` invisible, whatever locks it. The memory of a leased
   * object is freed when its last lease ends, which stays valid until then. A staged object is
   * freed when its writer finishes, with the status `key-not-exist`, or when its lock expires.
   *
   * @param keys The only keys that can pass the test, if known; no other object is examined then.
   */
  forget(test: (key: ObjectKey) => boolean, keys?: readonly ObjectKey[]): ForgottenObjects {
    const now = this.now;
    const forgotten = [...keys === undefined ? this.#all() : this.#under(keys)]
      .filter(({ key }) => test(key));
    for (const entry of forgotten) {
      const isInUse = entry.isLocked(now);
      // The device executes later work after the work that fills this object, so its memory can be
      // reused.
      if (entry.state === "filling") this.table.discard(entry);
      else if (entry.state === "staged") {
        if (isInUse) this.table.doom(entry);
        else this.table.discard(entry);
      } else if (isInUse) this.doom(entry, "forgotten");
      else this.remove(entry, "forgotten");
    }
    this.notifyRemoved();
    const bytes = forgotten.reduce((sum, { layout }) => sum + layout.byteLength, 0);
    return { objects: forgotten.length, bytes };
  }

  /**
   * Removes objects that need not stay in L1: immediately, or when the last lease ends. Dirty and
   * pinned objects stay.
   */
  release(keys: readonly ObjectKey[]): void {
    const now = this.now;
    for (const key of keys) {
      const entry = this.table.get(key.id);
      if (entry === undefined || entry.dirtyMarks > 0 || entry.isPinned) continue;
      if (entry.isLocked(now)) this.table.setTransient(entry);
      else this.remove(entry, "released");
    }
    this.notifyRemoved();
  }

  /**
   * Marks resident objects as dirty: they are not evicted, deleted, cleared or released until
   * {@linkcode markClean} has been called as often. Only {@linkcode forget} and the loss of the
   * device remove them.
   *
   * @returns Which objects are resident, and therefore marked.
   */
  markDirty(keys: readonly ObjectKey[]): Bitmap {
    return Bitmap.from(keys, (key) => {
      const entry = this.table.get(key.id);
      if (entry === undefined) return false;
      this.table.markDirty(entry, 1);
      return true;
    });
  }

  /** Removes one dirty mark from each object that has any. */
  markClean(keys: readonly ObjectKey[]): void {
    for (const key of keys) {
      const entry = this.table.get(key.id);
      if (entry !== undefined && entry.dirtyMarks > 0) this.table.markDirty(entry, -1);
    }
  }

  /**
   * Keeps objects under these keys, present and future, from being evicted, cleared and released,
   * until {@linkcode unpin}.
   */
  pin(keys: readonly ObjectKey[]): void {
    for (const key of keys) this.table.setPinned(key, true);
  }

  /** Reverses {@linkcode pin}; keys that are not pinned are ignored. */
  unpin(keys: readonly ObjectKey[]): void {
    for (const key of keys) this.table.setPinned(key, false);
  }

  /** Pinned keys by id. */
  get pinned(): ReadonlyMap<string, ObjectKey> {
    return this.table.pinned;
  }

  /**
   * Evicts candidates until at most `bytes` are in use, or none is left.
   *
   * @returns The bytes that were freed.
   */
  evictTo(bytes: number): number {
    return this.#evictWhile(() => this.usedBytes, bytes);
  }

  /**
   * Evicts candidates of a salt until it occupies at most `bytes`, or none is left.
   *
   * @returns The bytes of the salt that were freed.
   */
  evictSalt(salt: string, bytes: number): number {
    return this.#evictWhile(() => this.table.usageOf(salt), bytes, salt);
  }

  /** Objects that would be evicted next to free `bytes`, if none were dirty. Nothing is evicted. */
  evictionCandidates(bytes: number): WrittenObject[] {
    const found: WrittenObject[] = [];
    if (!(bytes > 0)) return found;
    this.table.expireLocks(this.now);
    let missing = bytes;
    for (const entry of this.table.idleOrDirty()) {
      found.push({ key: entry.key, layout: entry.layout });
      missing -= entry.bytes;
      if (missing <= 0) break;
    }
    return found;
  }

  /** Bytes of the staged, filling and resident objects of a salt. */
  usedBytesOf(salt: string): number {
    return this.table.usageOf(salt);
  }

  /** Bytes of staged, filling and resident objects, by salt. */
  usageBySalt(): Map<string, number> {
    return this.table.usageBySalt();
  }

  /** Bytes of staged, filling and resident objects, by model. */
  usageByModel(): Map<string, number> {
    return this.table.usageByModel();
  }

  has(key: ObjectKey): boolean {
    return this.table.get(key.id) !== undefined;
  }

  reportStatus(): L1StatusReport {
    const stats = this.table.allocator.stats();
    return {
      ...stats,
      isHealthy: !this.isLost && this.failedSlabCount === 0,
      ...this.table.counts(this.now),
      usageRatio: stats.usedBytes / stats.capacityBytes,
      evictedCount: this.evictedCount,
      ...this.counters,
      failedSlabCount: this.failedSlabCount,
      evictionPolicy: this.options.policy.name,
      invalidRankCount: this.invalidRankCount,
      writeTtlMs: this.writeTtlMs,
      readTtlMs: this.readTtlMs,
    };
  }

  /**
   * Removes every object, invalidates every lease and releases the memory, as when the device is
   * lost. Until {@linkcode attach}, calls return `device-lost`. Pinned keys stay pinned.
   *
   * @param reason Message of the device, for the log.
   */
  detach(reason?: string): void {
    if (this.isDetached) return;
    this.isDetached = true;
    if (reason !== undefined) logger.warn("L1 lost its device: {reason}", { reason });
    for (const entry of this.table.residents()) this.remove(entry, "device-lost");
    for (const entry of this.table.allIncoming()) this.table.discard(entry);
    for (const entry of this.table.allDoomed()) this.table.discard(entry);
    this.table.allocator[Symbol.dispose]();
    this.abandonFillings();
    this.notifyRemoved();
  }

  /**
   * Continues, empty, on another device; detaches from the last one if that is lost.
   *
   * @throws {Error} If the cache is closed, or attached to a device that is not lost.
   * @throws {RangeError} If a size is not a positive multiple of 256 bytes.
   */
  attach(device: MemoryDevice): void {
    if (this.#isClosed) throw new Error("L1 is closed: open another cache");
    if (!this.isLost) throw new Error("L1 has a device: detach it first");
    const allocator = this.createAllocator(device);
    this.detach();
    this.table.allocator = allocator;
    this.currentDevice = device;
    this.failedSlabCount = 0;
    this.isDetached = false;
  }

  /** Removes every object and invalidates every lease. The cache cannot be used afterwards. */
  [Symbol.dispose](): void {
    this.#isClosed = true;
    this.detach();
    this.listeners.clear();
  }

  #evictWhile(used: () => number, bytes: number, salt?: string): number {
    const before = used();
    if (before > bytes) this.table.reclaimExpired(this.now);
    if (used() > bytes) {
      for (const entry of this.table.idle(salt)) {
        this.evict(entry);
        if (used() <= bytes) break;
      }
    }
    const freed = before - used();
    this.notifyRemoved();
    return freed;
  }

  *#all(): Generator<L1Entry> {
    yield* this.table.residents();
    yield* this.table.allIncoming();
  }

  *#under(keys: readonly ObjectKey[]): Generator<L1Entry> {
    for (const id of new Set(keys.map((key) => key.id))) {
      const resident = this.table.get(id);
      if (resident !== undefined) yield resident;
      yield* this.table.incomingUnder(id);
    }
  }
}
