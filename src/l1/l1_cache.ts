import { getLogger } from "@logtape/logtape";
import { Bitmap } from "../keys/bitmap.ts";
import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { DeviceAnswer, MemoryDevice, Slab } from "../memory/memory_device.ts";
import { SlabAllocator } from "../memory/slab_allocator.ts";
import type { L1Entry } from "./l1_entry.ts";
import { L1Objects } from "./l1_objects.ts";
import { L1Reads } from "./l1_reads.ts";
import type {
  ForgottenObjects,
  L1CacheOptions,
  L1Lease,
  L1Listener,
  L1Status,
  L1StatusReport,
  ReadReservation,
  ReserveWriteOptions,
  StagedObject,
  WriteReservation,
  WrittenObject,
} from "./l1_types.ts";
import { L1Writes } from "./l1_writes.ts";
import { ObjectTable } from "./object_table.ts";

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
export class L1Cache implements Disposable {
  readonly #options: L1CacheOptions;
  readonly #writeTtlMs: number;
  readonly #readTtlMs: number;
  #device: MemoryDevice;
  readonly #table: ObjectTable;
  readonly #objects: L1Objects;
  readonly #reads: L1Reads;
  readonly #writes: L1Writes;
  #isDetached = false;
  #isClosed = false;
  #failedSlabCount = 0;

  /** @throws {RangeError} If a size is not a positive multiple of 256 bytes. */
  constructor(options: L1CacheOptions) {
    const { clock, policy, device, quotaOf } = options;
    this.#options = options;
    this.#writeTtlMs = options.writeTtlMs ?? 600_000;
    this.#readTtlMs = options.readTtlMs ?? 300_000;
    this.#device = device;
    this.#table = new ObjectTable(this.#createAllocator(device));
    const isLost = (): boolean => this.#isLost;
    this.#objects = new L1Objects({ table: this.#table, clock, policy, isLost });
    this.#reads = new L1Reads(this.#objects, this.#readTtlMs);
    this.#writes = new L1Writes(this.#objects, {
      reads: this.#reads,
      ttlMs: this.#writeTtlMs,
      ...(quotaOf === undefined ? {} : { quotaOf }),
    });
  }

  /** Device whose memory holds the objects: the one attached last. */
  get device(): MemoryDevice {
    return this.#device;
  }

  /** Maximum bytes of device memory. */
  get capacityBytes(): number {
    return this.#options.capacityBytes;
  }

  /** Bytes of device memory in use, including those of staged and doomed objects. */
  get usedBytes(): number {
    return this.#table.allocator.usedBytes;
  }

  /** Size in bytes of the largest object that fits into an empty cache. */
  get maxObjectBytes(): number {
    return this.#table.allocator.maxObjectBytes;
  }

  addListener(listener: L1Listener): void {
    this.#objects.listeners.add(listener);
  }

  removeListener(listener: L1Listener): void {
    this.#objects.listeners.delete(listener);
  }

  /**
   * Reserves memory for objects and locks it for writing, evicting other objects as needed. Either
   * every writable key gets a range or none does (`out-of-memory`, `quota-exceeded`). Nothing is
   * evicted for a batch that would not fit even if every candidate were evicted, fragmentation
   * aside, and no object named by the batch is evicted. A key named twice gets one range.
   */
  reserveWrite(
    keys: readonly ObjectKey[],
    layout: ObjectLayout,
    options: ReserveWriteOptions = {},
  ): WriteReservation[] {
    return this.#writes.reserve(keys, layout, options);
  }

  /**
   * Finishes the writing of staged objects, given in prefix order. They become resident, and
   * listeners are told to store them, when the device has confirmed their memory and the work that
   * fills them; if both are known already, before the call returns. If the device did not execute
   * that work, they are discarded without ever having been visible. Where another writer was
   * faster, the staged copy is dropped, since the bytes are the same.
   *
   * @param isFilled Whether the device executes the work that fills them.
   */
  finishWrite(objects: readonly StagedObject[], isFilled: DeviceAnswer = true): L1Status[] {
    return this.#writes.finish(objects, isFilled, { isNew: true }).statuses;
  }

  /**
   * Like {@linkcode finishWrite}, but also leases the objects in the same step. They came from an
   * adapter, so listeners are not told to store them.
   *
   * @returns Synchronously where the device is known to have their memory.
   */
  finishWriteAndReserveRead(
    objects: readonly StagedObject[],
  ): ReadReservation[] | Promise<ReadReservation[]> {
    return this.#writes.finishAndReserveRead(objects);
  }

  /** Discards staged objects, which were never visible. */
  finishWriteAndDelete(objects: readonly StagedObject[]): L1Status[] {
    return this.#writes.finishAndDelete(objects);
  }

  /**
   * Resolves when an object that is filling becomes resident or is discarded; `undefined` if no
   * object under this key is filling.
   */
  whenFilled(key: ObjectKey): Promise<void> | undefined {
    return this.#table.filling(key.id)?.filled;
  }

  /** Like {@linkcode whenFilled}, for every object that is filling now. */
  filled(): Promise<void> | undefined {
    return this.#writes.filled();
  }

  /** Leases resident objects. A lease does not count as a use; see {@linkcode touch}. */
  reserveRead(keys: readonly ObjectKey[]): ReadReservation[] {
    const now = this.#options.clock.now();
    return keys.map((key) => this.#reads.reserve(key, now));
  }

  /** Ends leases. Ending a lease that expired or has already ended changes nothing. */
  finishRead(leases: readonly L1Lease[]): L1Status[] {
    return this.#reads.finish(leases);
  }

  /** Whether a lease is still valid; if not, its range may hold the bytes of another object. */
  isLeased(lease: L1Lease): boolean {
    return this.#reads.areLeased([lease]);
  }

  /** Whether every lease is still valid; faster than checking them one by one. */
  areLeased(leases: readonly L1Lease[]): boolean {
    return this.#reads.areLeased(leases);
  }

  /**
   * Extends leases by their full lifetime.
   *
   * @returns Whether every lease is still valid; if not, none is extended.
   */
  renew(leases: readonly L1Lease[]): boolean {
    return this.#reads.renew(leases);
  }

  /**
   * Marks resident and filling objects as used now. Keys are in prefix order.
   *
   * @returns The number of leading keys whose objects are resident and not dirty: the adapters
   * chosen for them have them.
   */
  touch(keys: readonly ObjectKey[]): number {
    let front = keys.length;
    for (let i = keys.length - 1; i >= 0; i--) {
      const { id } = keys[i] as ObjectKey;
      const resident = this.#table.get(id);
      const entry = resident ?? this.#table.filling(id);
      if (entry !== undefined) entry.rank = this.#objects.rankOf(entry.rank);
      if (resident === undefined || resident.dirtyMarks > 0) front = i;
    }
    return front;
  }

  /** Removes resident objects that are neither leased, dirty nor being written. */
  delete(keys: readonly ObjectKey[]): L1Status[] {
    const now = this.#options.clock.now();
    const statuses = keys.map((key): L1Status => {
      let isIncoming = false;
      for (const entry of this.#table.incomingUnder(key.id)) {
        if (entry.isLocked(now)) isIncoming = true;
        else this.#table.discard(entry);
      }
      const entry = this.#table.get(key.id);
      if (entry === undefined) return isIncoming ? "key-is-locked" : "key-not-exist";
      if (entry.dirtyMarks > 0 || entry.isLocked(now)) return "key-is-locked";
      this.#objects.remove(entry, "deleted");
      return "success";
    });
    this.#objects.notifyRemoved();
    return statuses;
  }

  /** Removes every object that is neither leased, dirty, pinned nor being written. */
  clear(): void {
    this.#table.reclaimExpired(this.#options.clock.now());
    for (const entry of this.#table.idle()) this.#objects.remove(entry, "deleted");
    this.#objects.notifyRemoved();
  }

  /**
   * Makes every object whose key passes `test` invisible, whatever locks it. The memory of a leased
   * object is freed when its last lease ends, which stays valid until then. A staged object is
   * freed when its writer finishes, with the status `key-not-exist`, or when its lock expires.
   *
   * @param keys The only keys that can pass the test, if known; no other object is examined then.
   */
  forget(test: (key: ObjectKey) => boolean, keys?: readonly ObjectKey[]): ForgottenObjects {
    const now = this.#options.clock.now();
    const forgotten = [...keys === undefined ? this.#all() : this.#under(keys)]
      .filter(({ key }) => test(key));
    for (const entry of forgotten) {
      const isInUse = entry.isLocked(now);
      // The device executes later work after the work that fills this object, so its memory can be
      // reused.
      if (entry.state === "filling") this.#table.discard(entry);
      else if (entry.state === "staged") {
        if (isInUse) this.#table.doom(entry);
        else this.#table.discard(entry);
      } else if (isInUse) this.#objects.doom(entry, "forgotten");
      else this.#objects.remove(entry, "forgotten");
    }
    this.#objects.notifyRemoved();
    const bytes = forgotten.reduce((sum, { layout }) => sum + layout.byteLength, 0);
    return { objects: forgotten.length, bytes };
  }

  /**
   * Removes objects that need not stay in L1: immediately, or when the last lease ends. Dirty and
   * pinned objects stay.
   */
  release(keys: readonly ObjectKey[]): void {
    const now = this.#options.clock.now();
    for (const key of keys) {
      const entry = this.#table.get(key.id);
      if (entry === undefined || entry.dirtyMarks > 0 || entry.isPinned) continue;
      if (entry.isLocked(now)) this.#table.setTransient(entry);
      else this.#objects.remove(entry, "released");
    }
    this.#objects.notifyRemoved();
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
      const entry = this.#table.get(key.id);
      if (entry === undefined) return false;
      this.#table.markDirty(entry, 1);
      return true;
    });
  }

  /** Removes one dirty mark from each object that has any. */
  markClean(keys: readonly ObjectKey[]): void {
    for (const key of keys) {
      const entry = this.#table.get(key.id);
      if (entry !== undefined && entry.dirtyMarks > 0) this.#table.markDirty(entry, -1);
    }
  }

  /**
   * Keeps objects under these keys, present and future, from being evicted, cleared and released,
   * until {@linkcode unpin}.
   */
  pin(keys: readonly ObjectKey[]): void {
    for (const key of keys) this.#table.setPinned(key, true);
  }

  /** Reverses {@linkcode pin}; keys that are not pinned are ignored. */
  unpin(keys: readonly ObjectKey[]): void {
    for (const key of keys) this.#table.setPinned(key, false);
  }

  /** Pinned keys by id. */
  get pinned(): ReadonlyMap<string, ObjectKey> {
    return this.#table.pinned;
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
    return this.#evictWhile(() => this.#table.usageOf(salt), bytes, salt);
  }

  /** Objects that would be evicted next to free `bytes`, if none were dirty. Nothing is evicted. */
  evictionCandidates(bytes: number): WrittenObject[] {
    const found: WrittenObject[] = [];
    if (!(bytes > 0)) return found;
    this.#table.expireLocks(this.#options.clock.now());
    let missing = bytes;
    for (const entry of this.#table.idleOrDirty()) {
      found.push({ key: entry.key, layout: entry.layout });
      missing -= entry.bytes;
      if (missing <= 0) break;
    }
    return found;
  }

  /** Bytes of the staged, filling and resident objects of a salt. */
  usedBytesOf(salt: string): number {
    return this.#table.usageOf(salt);
  }

  /** Bytes of staged, filling and resident objects, by salt. */
  usageBySalt(): Map<string, number> {
    return this.#table.usageBySalt();
  }

  /**
   * Whether a staged object can still be finished. If not, its range may belong to another object
   * and must not be written to.
   */
  isReserved(object: StagedObject): boolean {
    return this.#writes.isReserved(object);
  }

  has(key: ObjectKey): boolean {
    return this.#table.get(key.id) !== undefined;
  }

  reportStatus(): L1StatusReport {
    const stats = this.#table.allocator.stats();
    return {
      ...stats,
      isHealthy: !this.#isLost && this.#failedSlabCount === 0,
      ...this.#table.counts(this.#options.clock.now()),
      usageRatio: stats.usedBytes / stats.capacityBytes,
      evictedCount: this.#objects.evictedCount,
      ...this.#writes.counters,
      failedSlabCount: this.#failedSlabCount,
      evictionPolicy: this.#options.policy.name,
      invalidRankCount: this.#objects.invalidRankCount,
      writeTtlMs: this.#writeTtlMs,
      readTtlMs: this.#readTtlMs,
    };
  }

  /**
   * Removes every object, invalidates every lease and releases the memory, as when the device is
   * lost. Until {@linkcode attach}, calls return `device-lost`. Pinned keys stay pinned.
   *
   * @param reason Message of the device, for the log.
   */
  detach(reason?: string): void {
    if (this.#isDetached) return;
    this.#isDetached = true;
    if (reason !== undefined) logger.warn("L1 lost its device: {reason}", { reason });
    for (const entry of this.#table.residents()) this.#objects.remove(entry, "device-lost");
    for (const entry of this.#table.allIncoming()) this.#table.discard(entry);
    for (const entry of this.#table.allDoomed()) this.#table.discard(entry);
    this.#table.allocator[Symbol.dispose]();
    this.#writes.abandon();
    this.#objects.notifyRemoved();
  }

  /**
   * Continues, empty, on another device; detaches from the last one if that is lost.
   *
   * @throws {Error} If the cache is closed, or attached to a device that is not lost.
   * @throws {RangeError} If a size is not a positive multiple of 256 bytes.
   */
  attach(device: MemoryDevice): void {
    if (this.#isClosed) throw new Error("L1 is closed: open another cache");
    if (!this.#isLost) throw new Error("L1 has a device: detach it first");
    const allocator = this.#createAllocator(device);
    this.detach();
    this.#table.allocator = allocator;
    this.#device = device;
    this.#failedSlabCount = 0;
    this.#isDetached = false;
  }

  /** Removes every object and invalidates every lease. The cache cannot be used afterwards. */
  [Symbol.dispose](): void {
    this.#isClosed = true;
    this.detach();
    this.#objects.listeners.clear();
  }

  get #isLost(): boolean {
    return this.#isDetached || this.#device.isLost;
  }

  #createAllocator(device: MemoryDevice): SlabAllocator {
    const { capacityBytes, slabBytes } = this.#options;
    return new SlabAllocator(device, {
      capacityBytes,
      ...(slabBytes === undefined ? {} : { slabBytes }),
      onSlabFailed: (slab) => this.#dropSlab(slab),
    });
  }

  #evictWhile(used: () => number, bytes: number, salt?: string): number {
    const before = used();
    if (before > bytes) this.#table.reclaimExpired(this.#options.clock.now());
    if (used() > bytes) {
      for (const entry of this.#table.idle(salt)) {
        this.#objects.evict(entry);
        if (used() <= bytes) break;
      }
    }
    const freed = before - used();
    this.#objects.notifyRemoved();
    return freed;
  }

  *#all(): Generator<L1Entry> {
    yield* this.#table.residents();
    yield* this.#table.allIncoming();
  }

  *#under(keys: readonly ObjectKey[]): Generator<L1Entry> {
    for (const id of new Set(keys.map((key) => key.id))) {
      const resident = this.#table.get(id);
      if (resident !== undefined) yield resident;
      yield* this.#table.incomingUnder(id);
    }
  }

  /**
   * Discards the objects of a slab that the device could not allocate; none of them was visible.
   */
  #dropSlab(slab: Slab): void {
    this.#failedSlabCount++;
    const isInSlab = ({ allocation }: L1Entry): boolean => allocation.slab === slab;
    for (const entry of [...this.#table.allIncoming(), ...this.#table.allDoomed()]) {
      if (isInSlab(entry)) this.#table.discard(entry);
    }
  }
}
