import type { ObjectKey } from "../keys/object_key.ts";
import type { Allocation, SlabAllocator } from "../memory/slab_allocator.ts";
import type { ObjectLayout } from "../keys/kv_layout.ts";
import { type EntryState, L1Entry, type SaltShare } from "./l1_entry.ts";
import { dirtyQueue, idleQueue, QUEUES, readLockQueue, writeLockQueue } from "./l1_queues.ts";
import type { L1StatusReport, StagedObject } from "./l1_types.ts";

/** Numbers of objects in an {@linkcode ObjectTable}, and their bytes. */
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

/** How many objects are in a state, and what they take. */
interface StateCount {
  objects: number;
  bytes: number;
  transient: number;
}

/** States in which an object counts for its salt. */
const COUNTED: ReadonlySet<EntryState> = new Set(["staged", "filling", "resident"]);

/**
 * All objects that take room, by who can find them, and what they take. Every way into and out of
 * a state is a method here, so that the sums are exact; none of them looks at more objects than it
 * is about.
 */
export class ObjectTable {
  /** Who is freed with an object. */
  allocator: SlabAllocator;
  readonly #resident = new Map<string, L1Entry>();
  readonly #filling = new Map<string, L1Entry>();
  readonly #staged = new Map<string, Map<string, L1Entry>>();
  /** What was forgotten while it was read or written. */
  readonly #doomed = new Set<L1Entry>();
  /** What is not resident and has locks that have expired. */
  readonly #expired = new Set<L1Entry>();
  readonly #pinned = new Set<string>();
  readonly #shares = new Map<string, SaltShare>();
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

  /** An empty table. */
  constructor(allocator: SlabAllocator) {
    this.allocator = allocator;
  }

  /**
   * Bytes of resident objects that may leave. Those whose locks have expired count only after
   * {@linkcode expireLocks}.
   */
  get idleBytes(): number {
    return this.#idleBytes;
  }

  /** How many objects are filling. */
  get fillingCount(): number {
    return this.#filling.size;
  }

  /** The resident object of an id. */
  get(id: string): L1Entry | undefined {
    return this.#resident.get(id);
  }

  /** The object of an id that is not known to be filled yet. */
  filling(id: string): L1Entry | undefined {
    return this.#filling.get(id);
  }

  /** The object that a writer has staged. */
  staged(id: string, writer: string): L1Entry | undefined {
    return this.#staged.get(id)?.get(writer);
  }

  /**
   * What a writer holds: staged, or condemned meanwhile.
   *
   * @returns `undefined` if the writer has finished, or has lost it.
   */
  ownedByWriter(object: StagedObject): L1Entry | undefined {
    if (!(object instanceof L1Entry)) return undefined;
    const isOwned = object.state === "doomed-staged"
      ? this.#doomed.has(object)
      : this.staged(object.key.id, object.writer) === object;
    return isOwned ? object : undefined;
  }

  /** The objects under an id that are on their way in; removing meanwhile is allowed. */
  *incomingUnder(id: string): Generator<L1Entry> {
    yield* this.#staged.get(id)?.values() ?? [];
    const filling = this.#filling.get(id);
    if (filling !== undefined) yield filling;
  }

  /** All resident objects; removing meanwhile is allowed. */
  residents(): MapIterator<L1Entry> {
    return this.#resident.values();
  }

  /** All objects that are on their way in. */
  allIncoming(): L1Entry[] {
    const staged = this.#staged.values().flatMap((writers) => writers.values());
    return [...staged, ...this.#filling.values()];
  }

  /** All objects that nobody finds, and whose readers or writers have not finished. */
  allDoomed(): L1Entry[] {
    return [...this.#doomed];
  }

  /** Objects that may leave, those of one salt or all, the first to leave first. */
  idle(salt?: string): Iterable<L1Entry> {
    if (salt === undefined) return this.#idle.inOrder();
    return this.#shares.get(salt)?.idle.inOrder() ?? [];
  }

  /** Objects that may leave or could, were they not held; the first to leave first. */
  *idleOrDirty(): Generator<L1Entry> {
    const [idle, held] = [this.#idle.inOrder(), this.#dirty.inOrder()];
    try {
      let [a, b] = [idle.next(), held.next()];
      while (a.done !== true || b.done !== true) {
        if (b.done === true || (a.done !== true && a.value.rank < b.value.rank)) {
          yield a.value as L1Entry;
          a = idle.next();
        } else {
          yield b.value;
          b = held.next();
        }
      }
    } finally {
      idle.return(undefined);
      held.return(undefined);
    }
  }

  /** Bytes of the objects of a salt that are staged, filling and resident. */
  usageOf(salt: string): number {
    return this.#shares.get(salt)?.bytes ?? 0;
  }

  /** Bytes of the objects of all salts that have any; a copy. */
  usageBySalt(): Map<string, number> {
    return new Map(this.#shares.entries().map(([salt, { bytes }]) => [salt, bytes]));
  }

  /** Takes an object in that is being written. */
  stage(
    key: ObjectKey,
    layout: ObjectLayout,
    allocation: Allocation,
    lock: { writer: string; isTransient: boolean; lockExpiresAt: number },
  ): L1Entry {
    const entry = new L1Entry(key, layout, allocation, this.#shareOf(key.cacheSalt), lock);
    const writers = this.#staged.get(key.id);
    if (writers === undefined) this.#staged.set(key.id, new Map([[lock.writer, entry]]));
    else writers.set(lock.writer, entry);
    this.#count(entry, 1);
    this.#writeLocks.add(entry);
    return entry;
  }

  /** Keeps a staged object whose writer has finished until it is known whether it was filled. */
  startFilling(entry: L1Entry, filled: Promise<void>): void {
    this.#move(entry, "filling");
    this.#filling.set(entry.key.id, entry);
    entry.filled = filled;
  }

  /** Makes an object resident that the device has filled, without locks. */
  admit(entry: L1Entry): void {
    this.#move(entry, "resident");
    entry.locks = 0;
    entry.isPinned = this.isPinned(entry.key);
    this.#resident.set(entry.key.id, entry);
    this.recount(entry);
  }

  /** Lets nobody find an object any more whose writer or readers are not done with its room. */
  doom(entry: L1Entry): void {
    this.#move(entry, entry.state === "staged" ? "doomed-staged" : "doomed-resident");
    this.#doomed.add(entry);
  }

  /** Frees an object, in whatever state it is. */
  discard(entry: L1Entry): void {
    this.#move(entry, "gone");
    this.allocator.free(entry.allocation);
  }

  /** Adds a lock of a reader to a resident object. */
  lock(entry: L1Entry, now: number, expiresAt: number): void {
    if (entry.locks > 0 && now >= entry.lockExpiresAt) this.#discardLocks(entry);
    if (entry.locks === 0) this.#lockedResidents++;
    entry.locks++;
    entry.lockExpiresAt = expiresAt;
    this.#readLocks.add(entry);
    if (entry.isIdle) this.recount(entry);
  }

  /** Takes a lock of a reader back, from an object that is resident or leaving. */
  unlock(entry: L1Entry): void {
    entry.locks--;
    if (entry.locks > 0 || entry.state !== "resident") return;
    this.#lockedResidents--;
    this.recount(entry);
  }

  /** Adds holds to a resident object, or takes them back. */
  markDirty(entry: L1Entry, count: 1 | -1): void {
    const wasDirty = entry.dirtyMarks > 0;
    entry.dirtyMarks += count;
    const isDirty = entry.dirtyMarks > 0;
    if (isDirty !== wasDirty) this.#countDirty(entry, isDirty ? 1 : -1);
    this.recount(entry);
  }

  /** Lets an object leave with its last reader. */
  setTransient(entry: L1Entry): void {
    if (entry.isTransient || entry.state === "gone") return;
    entry.isTransient = true;
    this.#counts[entry.state].transient++;
  }

  /** Protects the object of a key, resident or not, or takes that back. */
  setPinned({ id }: ObjectKey, isPinned: boolean): void {
    if (isPinned) this.#pinned.add(id);
    else this.#pinned.delete(id);
    const entry = this.#resident.get(id);
    if (entry === undefined) return;
    entry.isPinned = isPinned;
    this.recount(entry);
  }

  /** Whether a key is protected. */
  isPinned({ id }: ObjectKey): boolean {
    return this.#pinned.has(id);
  }

  /** Counts a resident object among those that may leave, or no longer. */
  recount(entry: L1Entry): void {
    const isFree = entry.state === "resident" && entry.locks === 0 && !entry.isPinned;
    const isIdle = isFree && entry.dirtyMarks === 0;
    if (isFree && !isIdle) this.#dirty.add(entry);
    if (isIdle === entry.isIdle) return;
    entry.isIdle = isIdle;
    this.#idleBytes += isIdle ? entry.bytes : -entry.bytes;
    if (!isIdle) return;
    this.#idle.add(entry);
    entry.share.idle.add(entry);
  }

  /** Voids the locks that have expired: what is resident may leave, the rest may be reclaimed. */
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

  /** Frees what is not resident and has locks that have expired. Returns whether there was any. */
  reclaimExpired(now: number): boolean {
    this.expireLocks(now);
    const isAny = this.#expired.size > 0;
    for (const entry of this.#expired) this.discard(entry);
    return isAny;
  }

  /** Numbers now. */
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
      protectedCount: this.#pinned.size,
      leavingCount: doomedStaged.objects + doomedResident.objects,
      leavingBytes: doomedStaged.bytes + doomedResident.bytes,
    };
  }

  /** Takes an object out of the state that it is in, and counts it in another one. */
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
    const { state, share, bytes, key } = entry;
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
