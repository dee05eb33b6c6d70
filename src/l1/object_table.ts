import type { ObjectKey } from "../keys/object_key.ts";
import type { Allocation, SlabAllocator } from "../memory/slab_allocator.ts";
import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { EvictionOrder } from "../policies/eviction_order.ts";
import { type VictimQueue, victims } from "../policies/victim_queue.ts";
import { type EntryState, L1Entry, type ModelShare, type SaltShare } from "./l1_entry.ts";
import { dirtyQueue, idleQueue, QUEUES, readLockQueue, writeLockQueue } from "./l1_queues.ts";
import type { L1StatusReport, StagedObject } from "./l1_types.ts";

/** Numbers of objects in an {@linkcode ObjectTable} and their bytes. */
export type ObjectCounts = Pick<
  L1StatusReport,
  | "totalObjectCount"
  | "writeLockedCount"
  | "readLockedCount"
  | "temporaryCount"
  | "stagingObjectCount"
  | "stagingBytes"
  | "fillingObjectCount"
  | "fillingBytes"
  | "heldCount"
  | "heldBytes"
  | "protectedCount"
  | "leavingCount"
  | "leavingBytes"
>;

/** Number and bytes of the objects in one state. */
interface StateCount {
  objects: number;
  bytes: number;
  transient: number;
}

/** States in which an object counts towards the quota of its salt. */
const COUNTED: ReadonlySet<EntryState> = new Set(["staged", "filling", "resident"]);

/**
 * All objects that occupy device memory, by state. Every transition is a method of this class, so
 * that the totals stay exact. The cost of a method depends only on the objects that it concerns.
 */
export class ObjectTable {
  /** Allocator that owns the ranges. */
  allocator: SlabAllocator;
  readonly #resident = new Map<string, L1Entry>();
  readonly #filling = new Map<string, L1Entry>();
  readonly #staged = new Map<string, Map<string, L1Entry>>();
  /** Doomed entries, whatever their state was before. */
  readonly #doomed = new Set<L1Entry>();
  /** Entries that are not resident and whose locks have expired. */
  readonly #expired = new Set<L1Entry>();
  /** Pinned keys by id, whether their objects are resident or not. */
  readonly pinned: Map<string, ObjectKey> = new Map();
  readonly #shares = new Map<string, SaltShare>();
  readonly #modelShares = new Map<string, ModelShare>();
  readonly #idle = idleQueue(QUEUES.idle);
  readonly #dirty = dirtyQueue();
  readonly #readLocks = readLockQueue();
  readonly #writeLocks = writeLockQueue();
  readonly #counts: Readonly<Record<Exclude<EntryState, "gone">, StateCount>> = {
    staged: { objects: 0, bytes: 0, transient: 0 },
    filling: { objects: 0, bytes: 0, transient: 0 },
    resident: { objects: 0, bytes: 0, transient: 0 },
    "doomed-staged": { objects: 0, bytes: 0, transient: 0 },
    "doomed-resident": { objects: 0, bytes: 0, transient: 0 },
  };
  #expiredStaged = 0;
  #lockedResidents = 0;
  #dirtyObjects = 0;
  #dirtyBytes = 0;
  #idleBytes = 0;

  /** Order in which entries are evicted. */
  readonly order: EvictionOrder;

  /** Creates an empty table. */
  constructor(allocator: SlabAllocator, order: EvictionOrder) {
    this.allocator = allocator;
    this.order = order;
  }

  /**
   * Bytes of evictable objects. Objects whose leases expired are included only after
   * {@linkcode expireLocks}.
   */
  get idleBytes(): number {
    return this.#idleBytes;
  }

  get(id: string): L1Entry | undefined {
    return this.#resident.get(id);
  }

  filling(id: string): L1Entry | undefined {
    return this.#filling.get(id);
  }

  /** Entry that a writer has staged under an id. */
  staged(id: string, writer: string): L1Entry | undefined {
    return this.#staged.get(id)?.get(writer);
  }

  /**
   * Entry that a writer still owns: staged, or doomed since.
   *
   * @returns `undefined` if the writer has finished or lost it.
   */
  ownedByWriter(object: StagedObject): L1Entry | undefined {
    if (!(object instanceof L1Entry)) return undefined;
    const isOwned = object.state === "doomed-staged"
      ? this.#doomed.has(object)
      : this.staged(object.key.id, object.writer) === object;
    return isOwned ? object : undefined;
  }

  /** Staged and filling entries under an id. Entries may be removed during the iteration. */
  *incomingUnder(id: string): Generator<L1Entry> {
    yield* this.#staged.get(id)?.values() ?? [];
    const filling = this.#filling.get(id);
    if (filling !== undefined) yield filling;
  }

  /** All resident entries. Entries may be removed during the iteration. */
  residents(): MapIterator<L1Entry> {
    return this.#resident.values();
  }

  /** All staged and filling entries. */
  allIncoming(): L1Entry[] {
    const staged = this.#staged.values().flatMap((writers) => writers.values());
    return [...staged, ...this.#filling.values()];
  }

  /** All doomed entries. */
  allDoomed(): L1Entry[] {
    return [...this.#doomed];
  }

  /** Evictable entries, of one salt or of all, in eviction order. */
  idle(salt?: string): Iterable<L1Entry> {
    const idle = salt === undefined ? this.#idle : this.#shares.get(salt)?.idle;
    return idle === undefined ? [] : this.#victims(idle);
  }

  /** Entries that are evictable, or would be if they were not dirty, in eviction order. */
  idleOrDirty(): Iterable<L1Entry> {
    return this.#victims(this.#idle, this.#dirty);
  }

  /**
   * Records in the eviction order that an entry was used, or written.
   *
   * @param next The entry after it in its chain, if it was recorded just before.
   */
  use(entry: L1Entry, next: L1Entry | undefined, isUse: boolean): void {
    this.order.use(entry, next, isUse);
    this.#queue(entry);
  }

  /** Bytes of the staged, filling and resident entries of a salt. */
  usageOf(salt: string): number {
    return this.#shares.get(salt)?.bytes ?? 0;
  }

  /** A copy of the bytes of each salt that has any. */
  usageBySalt(): Map<string, number> {
    return new Map(this.#shares.entries().map(([salt, { bytes }]) => [salt, bytes]));
  }

  /** A copy of the bytes of each model that has any. */
  usageByModel(): Map<string, number> {
    return new Map(this.#modelShares.entries().map(([model, { bytes }]) => [model, bytes]));
  }

  /** Adds an entry that is being written. */
  stage(
    key: ObjectKey,
    layout: ObjectLayout,
    allocation: Allocation,
    lock: { writer: string; isTransient: boolean; lockExpiresAt: number },
  ): L1Entry {
    const share = this.#shareOf(key.cacheSalt);
    const modelShare = this.#modelShares.get(key.model) ?? { bytes: 0 };
    const entry = new L1Entry(key, layout, allocation, { share, modelShare }, lock);
    const writers = this.#staged.get(key.id);
    if (writers === undefined) this.#staged.set(key.id, new Map([[lock.writer, entry]]));
    else writers.set(lock.writer, entry);
    this.#count(entry, 1);
    this.#writeLocks.add(entry);
    return entry;
  }

  /** Keeps a staged entry whose writer has finished until the device confirms that it is filled. */
  startFilling(entry: L1Entry, filled: Promise<void>): void {
    this.#move(entry, "filling");
    this.#filling.set(entry.key.id, entry);
    entry.filled = filled;
  }

  /** Makes a confirmed entry resident, without locks. */
  admit(entry: L1Entry): void {
    this.#move(entry, "resident");
    entry.locks = 0;
    entry.isPinned = this.pinned.has(entry.key.id);
    this.#resident.set(entry.key.id, entry);
    this.recount(entry);
  }

  /** Makes an entry invisible while its writer or readers still use its memory. */
  doom(entry: L1Entry): void {
    this.order.leave(entry, entry.key.id, false);
    this.#move(entry, entry.state === "staged" ? "doomed-staged" : "doomed-resident");
    this.#doomed.add(entry);
  }

  /**
   * Removes an entry in any state and frees its memory.
   *
   * @param isEvicted Whether it leaves because it is the next one in the eviction order.
   */
  discard(entry: L1Entry, isEvicted = false): void {
    this.order.leave(entry, entry.key.id, isEvicted);
    this.#move(entry, "gone");
    this.allocator.free(entry.allocation);
  }

  /** Adds a lease to a resident entry. */
  lock(entry: L1Entry, now: number, expiresAt: number): void {
    if (entry.locks > 0 && now >= entry.lockExpiresAt) this.#discardLocks(entry);
    if (entry.locks === 0) this.#lockedResidents++;
    entry.locks++;
    entry.lockExpiresAt = expiresAt;
    this.#readLocks.add(entry);
    if (entry.isIdle) this.recount(entry);
  }

  /** Ends one lease on a resident or doomed entry. */
  unlock(entry: L1Entry): void {
    entry.locks--;
    if (entry.locks > 0 || entry.state !== "resident") return;
    this.#lockedResidents--;
    this.recount(entry);
  }

  /** Adds a dirty mark to a resident entry, or removes one. */
  markDirty(entry: L1Entry, count: 1 | -1): void {
    const wasDirty = entry.dirtyMarks > 0;
    entry.dirtyMarks += count;
    const isDirty = entry.dirtyMarks > 0;
    if (isDirty !== wasDirty) this.#countDirty(entry, isDirty ? 1 : -1);
    this.recount(entry);
  }

  /** Marks an entry to be removed when its last lease ends. */
  setTransient(entry: L1Entry): void {
    if (entry.isTransient || entry.state === "gone") return;
    entry.isTransient = true;
    this.#counts[entry.state].transient++;
  }

  /** Pins or unpins a key, whether its object is resident or not. */
  setPinned(key: ObjectKey, isPinned: boolean): void {
    if (isPinned) this.pinned.set(key.id, key);
    else this.pinned.delete(key.id);
    const entry = this.#resident.get(key.id);
    if (entry === undefined) return;
    entry.isPinned = isPinned;
    this.recount(entry);
  }

  /** Updates whether an entry counts as evictable. */
  recount(entry: L1Entry): void {
    const isFree = entry.state === "resident" && entry.locks === 0 && !entry.isPinned;
    const isIdle = isFree && entry.dirtyMarks === 0;
    if (isFree && !isIdle) this.#dirty.add(entry);
    if (isIdle === entry.isIdle) return;
    entry.isIdle = isIdle;
    this.#idleBytes += isIdle ? entry.bytes : -entry.bytes;
    if (isIdle) this.#queue(entry);
  }

  /** Discards expired locks: resident entries become evictable, others reclaimable. */
  expireLocks(now: number): void {
    for (const locks of [this.#readLocks, this.#writeLocks]) {
      for (;;) {
        const entry = locks.first();
        if (entry === undefined || now < entry.lockExpiresAt) break;
        if (entry.state === "resident") this.#discardLocks(entry);
        else this.#expire(entry);
      }
    }
  }

  /**
   * Frees entries that are not resident and whose locks have expired.
   *
   * @returns Whether there were any.
   */
  reclaimExpired(now: number): boolean {
    this.expireLocks(now);
    const isAny = this.#expired.size > 0;
    for (const entry of this.#expired) this.discard(entry);
    return isAny;
  }

  counts(now: number): ObjectCounts {
    this.expireLocks(now);
    const { resident, staged, filling } = this.#counts;
    const doomedStaged = this.#counts["doomed-staged"];
    const doomedResident = this.#counts["doomed-resident"];
    return {
      totalObjectCount: resident.objects + filling.objects + staged.objects,
      writeLockedCount: staged.objects - this.#expiredStaged,
      readLockedCount: this.#lockedResidents,
      temporaryCount: resident.transient + filling.transient + staged.transient,
      stagingObjectCount: staged.objects,
      stagingBytes: staged.bytes,
      fillingObjectCount: filling.objects,
      fillingBytes: filling.bytes,
      heldCount: this.#dirtyObjects,
      heldBytes: this.#dirtyBytes,
      protectedCount: this.pinned.size,
      leavingCount: doomedStaged.objects + doomedResident.objects,
      leavingBytes: doomedStaged.bytes + doomedResident.bytes,
    };
  }

  /** Moves an entry from its state to another one and updates the counts. */
  #move(entry: L1Entry, state: EntryState): void {
    const { key } = entry;
    this.#count(entry, -1);
    if (entry.state === "staged") this.#removeStaged(entry);
    else if (entry.state === "filling") this.#filling.delete(key.id);
    else if (entry.state === "resident") this.#resident.delete(key.id);
    else this.#doomed.delete(entry);
    if (entry.state === "resident") {
      if (entry.locks > 0) this.#lockedResidents--;
      if (entry.dirtyMarks > 0) this.#countDirty(entry, -1);
    }
    entry.proceedTo(state);
    entry.isExpired = false;
    entry.filled = undefined;
    this.#expired.delete(entry);
    this.#count(entry, 1);
    if (entry.isIdle) this.recount(entry);
  }

  #count(entry: L1Entry, sign: 1 | -1): void {
    const { state, share, modelShare, bytes, key } = entry;
    if (state === "gone") return;
    const count = this.#counts[state];
    count.objects += sign;
    count.bytes += sign * bytes;
    if (entry.isTransient) count.transient += sign;
    if (state === "staged" && entry.isExpired) this.#expiredStaged += sign;
    if (!COUNTED.has(state)) return;
    if (share.bytes === 0) this.#shares.set(key.cacheSalt, share);
    share.bytes += sign * bytes;
    if (share.bytes === 0) this.#shares.delete(key.cacheSalt);
    if (modelShare.bytes === 0) this.#modelShares.set(key.model, modelShare);
    modelShare.bytes += sign * bytes;
    if (modelShare.bytes === 0) this.#modelShares.delete(key.model);
  }

  #victims(...queues: VictimQueue<L1Entry>[]): Generator<L1Entry> {
    return victims(this.order, queues, (entry) => this.#queue(entry));
  }

  /** Adds an entry to the queues of victims that it belongs to. */
  #queue(entry: L1Entry): void {
    if (entry.isIdle) {
      this.#idle.add(entry);
      entry.share.idle.add(entry);
    } else if (entry.dirtyMarks > 0) this.#dirty.add(entry);
  }

  #countDirty({ bytes }: L1Entry, sign: 1 | -1): void {
    this.#dirtyObjects += sign;
    this.#dirtyBytes += sign * bytes;
  }

  #discardLocks(entry: L1Entry): void {
    entry.discardLocks();
    this.#lockedResidents--;
    this.recount(entry);
  }

  #expire(entry: L1Entry): void {
    entry.isExpired = true;
    this.#expired.add(entry);
    if (entry.state === "staged") this.#expiredStaged++;
  }

  #shareOf(salt: string): SaltShare {
    return this.#shares.get(salt) ?? { bytes: 0, idle: idleQueue(QUEUES.idleOfSalt) };
  }

  #removeStaged({ key, writer }: L1Entry): void {
    const writers = this.#staged.get(key.id);
    writers?.delete(writer);
    if (writers?.size === 0) this.#staged.delete(key.id);
  }
}
