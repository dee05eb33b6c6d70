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
 * Objects in device memory. An object is *staged* while its writer fills it, and *filling* until
 * the device has said that it takes the work that fills it; no reader finds it before. Then it is
 * *resident*, and *leased* while it is read. What nobody leases, holds or protects may be evicted, at
 * once, when a reservation needs the room. Locks expire, so that a caller that vanished cannot hold
 * memory for ever. Expected outcomes are returned, not thrown. No call looks at more objects than
 * those that it names or removes.
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

  /** Where the bytes lie: the device that was attached last. */
  get device(): MemoryDevice {
    return this.#device;
  }

  /** Most bytes of device memory. */
  get capacityBytes(): number {
    return this.#options.capacityBytes;
  }

  /** Bytes of device memory that objects take, staged and leaving ones too. */
  get usedBytes(): number {
    return this.#table.allocator.usedBytes;
  }

  /** Largest object that fits into an empty cache, in bytes. */
  get maxObjectBytes(): number {
    return this.#table.allocator.maxObjectBytes;
  }

  /** Adds a listener. */
  addListener(listener: L1Listener): void {
    this.#objects.listeners.add(listener);
  }

  /** Removes a listener. */
  removeListener(listener: L1Listener): void {
    this.#objects.listeners.delete(listener);
  }

  /**
   * Allocates room for objects and locks it for writing, evicting what is least worth keeping. All
   * keys that can be written get their room, or none does (`out-of-memory`, `quota-exceeded`).
   * Nothing is evicted for a batch for which all that may leave would not make room, unless it would
   * only not be in one piece, nor any object that the batch names. A key that it names twice gets one range.
   */
  reserveWrite(
    keys: readonly ObjectKey[],
    layout: ObjectLayout,
    options: ReserveWriteOptions = {},
  ): WriteReservation[] {
    return this.#writes.reserve(keys, layout, options);
  }

  /**
   * Ends the writing of staged objects, in prefix order. When the device is known to have their
   * memory, and to have taken the work that fills them, they become resident and are reported to be
   * written through; that happens before the call returns where all of it is known. If it turns out
   * that nothing has filled them, they are given up: they were never visible. Where another writer
   * was faster, the staged copy is dropped: the bytes are the same.
   *
   * @param isFilled Whether the device takes the work that fills them.
   */
  finishWrite(objects: readonly StagedObject[], isFilled: DeviceAnswer = true): L1Status[] {
    return this.#writes.finish(objects, isFilled);
  }

  /**
   * As {@linkcode finishWrite}, and leases the objects in the same step. They came from a storage
   * adapter and are uploaded: nobody is told to write them through again.
   *
   * @returns At once where it is known that the device has their memory.
   */
  finishWriteAndReserveRead(
    objects: readonly StagedObject[],
  ): ReadReservation[] | Promise<ReadReservation[]> {
    return this.#writes.finishAndReserveRead(objects);
  }

  /** Gives up staged objects; they were never visible. */
  finishWriteAndDelete(objects: readonly StagedObject[]): L1Status[] {
    return this.#writes.finishAndDelete(objects);
  }

  /**
   * Resolves when an object whose writer has finished is resident, or was given up; `undefined` if
   * there is none.
   */
  whenFilled(key: ObjectKey): Promise<void> | undefined {
    return this.#table.filling(key.id)?.filled;
  }

  /** As {@linkcode whenFilled}, for all objects that are filling now. */
  filled(): Promise<void> | undefined {
    return this.#writes.filled();
  }

  /** Leases resident objects; that alone is no use of them, see {@linkcode touch}. */
  reserveRead(keys: readonly ObjectKey[]): ReadReservation[] {
    const now = this.#options.clock.now();
    return keys.map((key) => this.#reads.reserve(key, now));
  }

  /** Gives up leases. A lease that expired, or is given up twice, changes nothing. */
  finishRead(leases: readonly L1Lease[]): L1Status[] {
    return this.#reads.finish(leases);
  }

  /** Whether a lease still protects its object; if not, the bytes in its range may be others. */
  isLeased(lease: L1Lease): boolean {
    return this.#reads.areLeased([lease]);
  }

  /** Whether all of these leases still protect their objects; faster than one by one. */
  areLeased(leases: readonly L1Lease[]): boolean {
    return this.#reads.areLeased(leases);
  }

  /** Lets leases live for the whole time again; whether all of them protect their objects still. */
  renew(leases: readonly L1Lease[]): boolean {
    return this.#reads.renew(leases);
  }

  /**
   * Counts as a use of objects that are resident or filling, in prefix order.
   *
   * @returns How many of the first keys are resident and in the adapters that were to get them.
   */
  touch(keys: readonly ObjectKey[]): number {
    const { policy } = this.#options;
    let front = keys.length;
    for (let i = keys.length - 1; i >= 0; i--) {
      const { id } = keys[i] as ObjectKey;
      const resident = this.#table.get(id);
      const entry = resident ?? this.#table.filling(id);
      if (entry !== undefined) entry.rank = policy.rank(entry.rank);
      if (resident === undefined || resident.dirtyMarks > 0) front = i;
    }
    return front;
  }

  /** Removes resident objects, unless they are leased, held or being written. */
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

  /** Removes all objects that nobody leases, holds or protects. */
  clear(): void {
    this.#table.reclaimExpired(this.#options.clock.now());
    for (const entry of this.#table.idle()) this.#objects.remove(entry, "deleted");
    this.#objects.notifyRemoved();
  }

  /**
   * Removes every object whose key passes a test, so that nobody finds it any more, whatever locks
   * it. What is read is freed with its last reader, whose lease stays valid; a staged object is freed
   * when its writer finishes, who is told `key-not-exist`, or when its lock has expired.
   *
   * @param keys The only keys that pass, if they are known: then nothing else is looked at.
   */
  forget(test: (key: ObjectKey) => boolean, keys?: readonly ObjectKey[]): ForgottenObjects {
    const now = this.#options.clock.now();
    const forgotten = [...keys === undefined ? this.#all() : this.#under(keys)]
      .filter(({ key }) => test(key));
    for (const entry of forgotten) {
      const isInUse = entry.isLocked(now);
      // Later work on the device comes after the work that was to fill it: its room can be reused.
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
   * Says that objects need not stay: what nobody leases, holds or protects leaves now, and what is
   * only leased leaves with its last reader.
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
   * Keeps resident objects from being evicted, deleted, cleared and released, until
   * {@linkcode markClean} was called as often. Only {@linkcode forget} and the loss of the device
   * remove them.
   *
   * @returns Which were resident, and are held now.
   */
  markDirty(keys: readonly ObjectKey[]): Bitmap {
    return Bitmap.from(keys, (key) => {
      const entry = this.#table.get(key.id);
      if (entry === undefined) return false;
      this.#table.markDirty(entry, 1);
      return true;
    });
  }

  /** Takes holds back; what is not held stays so. */
  markClean(keys: readonly ObjectKey[]): void {
    for (const key of keys) {
      const entry = this.#table.get(key.id);
      if (entry !== undefined && entry.dirtyMarks > 0) this.#table.markDirty(entry, -1);
    }
  }

  /**
   * Keeps what is or comes under these keys from being evicted, cleared and released, until
   * {@linkcode unpin}.
   */
  pin(keys: readonly ObjectKey[]): void {
    for (const key of keys) this.#table.setPinned(key, true);
  }

  /** Takes protection back; what is not protected stays so. */
  unpin(keys: readonly ObjectKey[]): void {
    for (const key of keys) this.#table.setPinned(key, false);
  }

  /** Whether a key is protected. */
  isPinned(key: ObjectKey): boolean {
    return this.#table.isPinned(key);
  }

  /**
   * Evicts what may leave until at most `bytes` are in use.
   *
   * @returns The bytes that became free.
   */
  evictTo(bytes: number): number {
    return this.#evictWhile(() => this.usedBytes, bytes);
  }

  /**
   * Evicts what may leave of a salt until it has at most `bytes`.
   *
   * @returns The bytes of the salt that became free.
   */
  evictSalt(salt: string, bytes: number): number {
    return this.#evictWhile(() => this.#table.usageOf(salt), bytes, salt);
  }

  /** The objects that would leave next for `bytes` of room, were none held; changes nothing. */
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

  /** Bytes that the objects of a salt take, on their way in or resident. */
  usedBytesOf(salt: string): number {
    return this.#table.usageOf(salt);
  }

  /** Bytes that objects take, on their way in or resident, by salt. */
  usageBySalt(): Map<string, number> {
    return this.#table.usageBySalt();
  }

  /**
   * Whether a staged object can still be finished; if not, its room may be another object's, and
   * must not be written to.
   */
  isReserved(object: StagedObject): boolean {
    return this.#writes.isReserved(object);
  }

  /** Whether an object is resident. */
  has(key: ObjectKey): boolean {
    return this.#table.get(key.id) !== undefined;
  }

  /** Counters now. */
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
      writeTtlMs: this.#writeTtlMs,
      readTtlMs: this.#readTtlMs,
    };
  }

  /**
   * Drops every object at once and voids every lease for ever, as when the device is lost; the memory
   * is released. Until {@linkcode attach}, calls answer `device-lost`. What is protected stays so.
   *
   * @param reason What the device said, for the log.
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
   * Works again, empty, on another device; if the last one is lost, it is detached.
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

  /** Drops every object at once and voids every lease, for ever. */
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

  /** The device turned out not to have a slab: what was to lie there has never been visible. */
  #dropSlab(slab: Slab): void {
    this.#failedSlabCount++;
    const isInSlab = ({ allocation }: L1Entry): boolean => allocation.slab === slab;
    for (const entry of [...this.#table.allIncoming(), ...this.#table.allDoomed()]) {
      if (isInSlab(entry)) this.#table.discard(entry);
    }
  }
}
