import type { ObjectKey } from "../keys/object_key.ts";
import type { SlabAllocator } from "../memory/slab_allocator.ts";
import { L1Entry } from "./l1_entry.ts";
import type { L1StatusReport, StagedObject } from "./l1_types.ts";
import { SaltUsage } from "./salt_usage.ts";

/** Numbers of objects in an {@linkcode ObjectTable}, and their bytes. */
export type ObjectCounts = Pick<
  L1StatusReport,
  | "totalObjectCount"
  | "writeLockedCount"
  | "readLockedCount"
  | "temporaryCount"
  | "stagingObjectCount"
  | "stagingBytes"
  | "heldCount"
  | "heldBytes"
  | "protectedCount"
  | "leavingCount"
  | "leavingBytes"
>;

/**
 * All objects that take room, by who can find them, and what they take. Every way into and out of
 * a state is a method here, so that the sums are exact.
 */
export class ObjectTable {
  /** Who is freed with an object. */
  allocator: SlabAllocator;
  /** Bytes of resident and staged objects by salt. */
  readonly usage: SaltUsage = new SaltUsage();
  readonly #resident = new Map<string, L1Entry>();
  readonly #staged = new Map<string, Map<string, L1Entry>>();
  /** What was forgotten while it was read or written. */
  readonly #leaving = new Set<L1Entry>();
  readonly #protected = new Set<string>();
  #idleBytes = 0;
  /** No reader's lock expires before. */
  #noExpiryBefore = Infinity;

  /** An empty table. */
  constructor(allocator: SlabAllocator) {
    this.allocator = allocator;
  }

  /**
   * Bytes of resident objects that may leave. Those whose locks have expired count only after
   * {@linkcode discardExpiredLocks}.
   */
  get idleBytes(): number {
    return this.#idleBytes;
  }

  /** The resident object of an id. */
  get(id: string): L1Entry | undefined {
    return this.#resident.get(id);
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
  heldByWriter(object: StagedObject): L1Entry | undefined {
    if (!(object instanceof L1Entry)) return undefined;
    const isHeld = object.state === "condemned"
      ? this.#leaving.has(object)
      : this.staged(object.key.id, object.writer) === object;
    return isHeld ? object : undefined;
  }

  /** The objects that any writer has staged under an id; removing meanwhile is allowed. */
  stagedUnder(id: string): Iterable<L1Entry> {
    return this.#staged.get(id)?.values() ?? [];
  }

  /** All resident objects; removing meanwhile is allowed. */
  residents(): MapIterator<L1Entry> {
    return this.#resident.values();
  }

  /** All staged objects. */
  allStaged(): L1Entry[] {
    return this.#staged.values().flatMap((writers) => writers.values()).toArray();
  }

  /** All objects that nobody finds, and whose readers or writers have not finished. */
  allLeaving(): L1Entry[] {
    return [...this.#leaving];
  }

  /** Takes an object in that is being written. */
  stage(entry: L1Entry): void {
    const { key, writer } = entry;
    const writers = this.#staged.get(key.id);
    if (writers === undefined) this.#staged.set(key.id, new Map([[writer, entry]]));
    else writers.set(writer, entry);
    this.usage.add(key.cacheSalt, entry.bytes);
  }

  /** Frees a staged object. */
  unstage(entry: L1Entry): void {
    this.#removeStaged(entry);
    this.usage.add(entry.key.cacheSalt, -entry.bytes);
    this.discard(entry);
  }

  /** Makes a staged object resident, without locks. */
  admit(entry: L1Entry): void {
    this.#removeStaged(entry);
    entry.state = "resident";
    entry.locks = 0;
    entry.isProtected = this.isProtected(entry.key);
    this.#resident.set(entry.key.id, entry);
    this.recount(entry);
  }

  /** Lets nobody find a staged object any more; its room stays in use. */
  condemn(entry: L1Entry): void {
    this.#removeStaged(entry);
    this.usage.add(entry.key.cacheSalt, -entry.bytes);
    entry.state = "condemned";
    this.#leaving.add(entry);
  }

  /** Lets nobody find a resident object any more; its room stays in use. */
  takeOut(entry: L1Entry): void {
    this.#resident.delete(entry.key.id);
    this.usage.add(entry.key.cacheSalt, -entry.bytes);
    entry.state = "leaving";
    this.#leaving.add(entry);
    this.recount(entry);
  }

  /** Frees an object that nobody finds. */
  discard(entry: L1Entry): void {
    this.#leaving.delete(entry);
    entry.state = "gone";
    this.allocator.free(entry.allocation);
  }

  /** Adds a lock of a reader to a resident object. */
  lock(entry: L1Entry, now: number, expiresAt: number): void {
    if (entry.locks > 0 && now >= entry.lockExpiresAt) entry.discardLocks();
    entry.locks++;
    entry.lockExpiresAt = expiresAt;
    if (expiresAt < this.#noExpiryBefore) this.#noExpiryBefore = expiresAt;
    if (entry.isIdle) this.recount(entry);
  }

  /** Adds holds to a resident object, or takes them back. */
  hold(entry: L1Entry, count: 1 | -1): void {
    entry.holds += count;
    this.recount(entry);
  }

  /** Protects the object of a key, resident or not, or takes that back. */
  setProtected({ id }: ObjectKey, isProtected: boolean): void {
    if (isProtected) this.#protected.add(id);
    else this.#protected.delete(id);
    const entry = this.#resident.get(id);
    if (entry === undefined) return;
    entry.isProtected = isProtected;
    this.recount(entry);
  }

  /** Whether a key is protected. */
  isProtected({ id }: ObjectKey): boolean {
    return this.#protected.has(id);
  }

  /** Counts a resident object among those that may leave, or no longer. */
  recount(entry: L1Entry): void {
    const isIdle = entry.state === "resident" && entry.locks === 0 && entry.holds === 0 &&
      !entry.isProtected;
    if (isIdle === entry.isIdle) return;
    entry.isIdle = isIdle;
    this.#idleBytes += isIdle ? entry.bytes : -entry.bytes;
  }

  /** Makes {@linkcode idleBytes} exact. Returns whether there was anything to look for. */
  discardExpiredLocks(now: number): boolean {
    if (now < this.#noExpiryBefore) return false;
    this.#noExpiryBefore = Infinity;
    for (const entry of this.#resident.values()) {
      if (entry.isLocked(now)) {
        this.#noExpiryBefore = Math.min(this.#noExpiryBefore, entry.lockExpiresAt);
      } else if (entry.locks > 0) {
        entry.discardLocks();
        this.recount(entry);
      }
    }
    return true;
  }

  /** Frees staged and leaving objects whose locks have expired. Returns whether there were any. */
  reclaimExpired(now: number): boolean {
    const before = this.allocator.usedBytes;
    for (const writers of this.#staged.values()) {
      for (const entry of writers.values()) {
        if (!entry.isLocked(now)) this.unstage(entry);
      }
    }
    for (const entry of this.#leaving) {
      if (!entry.isLocked(now)) this.discard(entry);
    }
    return this.allocator.usedBytes < before;
  }

  /** Numbers now. */
  counts(now: number): ObjectCounts {
    const resident = [...this.#resident.values()];
    const staged = this.allStaged();
    const held = resident.filter(({ holds }) => holds > 0);
    const leaving = this.allLeaving();
    const isLocked = (entry: L1Entry): boolean => entry.isLocked(now);
    return {
      totalObjectCount: resident.length + staged.length,
      writeLockedCount: staged.filter(isLocked).length,
      readLockedCount: resident.filter(isLocked).length,
      temporaryCount: [...resident, ...staged].filter(({ isTemporary }) => isTemporary).length,
      stagingObjectCount: staged.length,
      stagingBytes: sumBytes(staged),
      heldCount: held.length,
      heldBytes: sumBytes(held),
      protectedCount: this.#protected.size,
      leavingCount: leaving.length,
      leavingBytes: sumBytes(leaving),
    };
  }

  #removeStaged({ key, writer }: L1Entry): void {
    const writers = this.#staged.get(key.id);
    writers?.delete(writer);
    if (writers?.size === 0) this.#staged.delete(key.id);
  }
}

function sumBytes(entries: readonly L1Entry[]): number {
  return entries.reduce((sum, { bytes }) => sum + bytes, 0);
}
