import { type AdapterObject, type ObjectKey, type Place, UseOrder } from "../../src/l2/adapter.ts";

/** Bounds of an {@linkcode ObjectMemory}, in bytes. */
export interface MemoryBounds {
  /** Most bytes of objects. */
  readonly capacityBytes: number;
  /** Bytes above which objects are evicted; left out, nothing is evicted. */
  readonly highBytes?: number;
  /** Bytes that are left then. */
  readonly lowBytes?: number;
}

/** An object in an {@linkcode ObjectMemory}. */
export interface Held {
  /** Its key. */
  readonly key: ObjectKey;
  /** Its bytes, which are overwritten when it is replaced, or when it made room for another. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

interface Entry extends Held {
  bytes: Uint8Array<ArrayBuffer>;
  locks: number;
  place: Place<Entry> | undefined;
}

/** Objects in host memory, in the order of their last use. */
export class ObjectMemory {
  readonly #bounds: MemoryBounds;
  readonly #entries = new Map<string, Entry>();
  readonly #order = new UseOrder<Entry>();
  #usedBytes = 0;
  #lockedBytes = 0;
  #lockedObjects = 0;
  #evictedObjects = 0;
  /** What was evicted and not told yet. */
  #evicted: ObjectKey[] = [];

  /** Empty. */
  constructor(bounds: MemoryBounds) {
    this.#bounds = bounds;
  }

  /** Bytes of all objects. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Number of objects. */
  get objectCount(): number {
    return this.#entries.size;
  }

  /** Number of objects that are locked. */
  get lockedObjects(): number {
    return this.#lockedObjects;
  }

  /** Objects that made room for others. */
  get evictedObjects(): number {
    return this.#evictedObjects;
  }

  /**
   * Copies an object; one that is there under its key is replaced, and stays if there is no room.
   *
   * @returns `undefined` if there is no room.
   * @throws {RangeError} If the host has no memory for it.
   */
  put({ key, parts, byteLength }: AdapterObject): Held | undefined {
    const present = this.#entries.get(key.id);
    // Nobody else runs between the first byte and the last, so it can be overwritten where it is.
    if (present?.bytes.byteLength === byteLength) {
      copy(parts, present.bytes);
      return present;
    }
    const grownBy = byteLength - (present?.bytes.byteLength ?? 0);
    if (!this.#canMakeRoom(grownBy, byteLength, present)) return undefined;
    const bytes = this.#makeRoom(grownBy, byteLength, present) ?? new Uint8Array(byteLength);
    copy(parts, bytes);
    this.#usedBytes += grownBy;
    if (present !== undefined) {
      if (present.locks > 0) this.#lockedBytes += grownBy;
      present.bytes = bytes;
      return present;
    }
    const entry: Entry = { key, bytes, locks: 0, place: undefined };
    entry.place = this.#order.add(entry);
    this.#entries.set(key.id, entry);
    return entry;
  }

  /** Evicts what is above the high watermark, down to the low one. */
  shrink(): void {
    const { highBytes = Infinity, lowBytes = highBytes } = this.#bounds;
    if (this.#usedBytes <= highBytes) return;
    for (const entry of this.#order) {
      if (this.#usedBytes <= lowBytes) return;
      if (entry.locks === 0) this.#evict(entry);
    }
  }

  /** The keys of the objects that made room for others since the last call. */
  takeEvicted(): ObjectKey[] {
    return this.#evicted.splice(0);
  }

  /** The object of a key. */
  get(key: ObjectKey): Held | undefined {
    return this.#entries.get(key.id);
  }

  /** Whether an object is still there. */
  has(held: Held): boolean {
    return (held as Entry).place !== undefined;
  }

  /** Counts as used just now; of objects that follow one another, the last leaves first. */
  touch(chain: readonly Held[]): void {
    for (let i = chain.length - 1; i >= 0; i--) {
      const { place } = chain[i] as Entry;
      if (place !== undefined) this.#order.renew(place);
    }
  }

  /** Keeps an object from being evicted or removed. */
  lock(held: Held): void {
    const entry = held as Entry;
    if (entry.locks++ > 0) return;
    this.#lockedObjects++;
    this.#lockedBytes += entry.bytes.byteLength;
  }

  /** Gives up a lock, if there is one. */
  unlock(held: Held): void {
    const entry = held as Entry;
    if (entry.locks === 0 || --entry.locks > 0) return;
    this.#lockedObjects--;
    this.#lockedBytes -= entry.bytes.byteLength;
  }

  /** Removes an object that is not locked. */
  remove(key: ObjectKey): boolean {
    const entry = this.#entries.get(key.id);
    if (entry === undefined || entry.locks > 0) return false;
    this.#drop(entry);
    return true;
  }

  /** The objects that are there now. */
  list(): Held[] {
    return [...this.#order];
  }

  /** Removes all objects, locked or not. */
  clear(): void {
    for (const entry of this.#order) this.#drop(entry);
    this.#lockedBytes = 0;
    this.#lockedObjects = 0;
  }

  /** Whether eviction can make room: nothing is evicted for what does not fit in the end. */
  #canMakeRoom(grownBy: number, byteLength: number, present: Entry | undefined): boolean {
    const { capacityBytes, highBytes } = this.#bounds;
    if (byteLength > capacityBytes) return false;
    if (this.#usedBytes + grownBy <= capacityBytes) return true;
    if (highBytes === undefined) return false;
    const isKeptAnyhow = present !== undefined && present.locks === 0;
    const staying = this.#lockedBytes + (isKeptAnyhow ? present.bytes.byteLength : 0);
    return staying + grownBy <= capacityBytes;
  }

  /** Evicts what was used longest ago; a buffer of the length asked for is returned for reuse. */
  #makeRoom(
    grownBy: number,
    byteLength: number,
    present: Entry | undefined,
  ): Uint8Array<ArrayBuffer> | undefined {
    let reusable: Uint8Array<ArrayBuffer> | undefined;
    if (this.#usedBytes + grownBy <= this.#bounds.capacityBytes) return undefined;
    for (const entry of this.#order) {
      if (entry.locks > 0 || entry === present) continue;
      this.#evict(entry);
      if (entry.bytes.byteLength === byteLength) reusable = entry.bytes;
      if (this.#usedBytes + grownBy <= this.#bounds.capacityBytes) break;
    }
    return reusable;
  }

  #evict(entry: Entry): void {
    this.#drop(entry);
    this.#evictedObjects++;
    this.#evicted.push(entry.key);
  }

  #drop(entry: Entry): void {
    if (entry.place !== undefined) this.#order.remove(entry.place);
    entry.place = undefined;
    this.#entries.delete(entry.key.id);
    this.#usedBytes -= entry.bytes.byteLength;
  }
}

function copy(parts: readonly Uint8Array[], bytes: Uint8Array): void {
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.byteLength;
  }
}
