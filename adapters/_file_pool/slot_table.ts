import type { ObjectKey } from "../../src/l2/adapter.ts";

/** One object in a slot. */
export interface PooledObject {
  /** What it is called. */
  readonly key: ObjectKey;
  /** The slot it lies in. */
  readonly slot: number;
  /** Its bytes. */
  readonly byteLength: number;
  /** Of two objects with one key, the greater is the newer. */
  readonly sequence: number;
}

/** An object in the table. */
export interface Entry extends PooledObject {
  /** Lookups that have not been unlocked. */
  locks: number;
  /** Operations that need the bytes in the slot to stay. */
  uses: number;
  /** Whether it has left the table: its slot becomes free with the last use. */
  isRetired: boolean;
}

/**
 * Which object lies in which slot, which slots are free, and in which order objects were used. All
 * of it changes between two awaits of its callers, never during one.
 */
export class SlotTable {
  /** By key, the least recently used first. */
  readonly #entries = new Map<string, Entry>();
  /** The slot at the end is taken first. */
  readonly #free: number[] = [];
  #usedBytes = 0;
  #evictedCount = 0;

  /**
   * Begins with objects.
   *
   * @param slots Number of slots.
   * @param objects The least recently used first; one a key and one a slot.
   */
  constructor(slots: number, objects: readonly PooledObject[]) {
    const taken = new Set<number>();
    for (const { key, slot, byteLength, sequence } of objects) {
      taken.add(slot);
      this.#put({ key, slot, byteLength, sequence, locks: 0, uses: 0, isRetired: false });
    }
    for (let slot = slots - 1; slot >= 0; slot--) if (!taken.has(slot)) this.#free.push(slot);
  }

  /** Number of objects. */
  get size(): number {
    return this.#entries.size;
  }

  /** Bytes of all objects. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Number of free slots. */
  get freeSlots(): number {
    return this.#free.length;
  }

  /** Objects that had to make room. */
  get evictedCount(): number {
    return this.#evictedCount;
  }

  /** Number of objects that are locked. */
  get lockedCount(): number {
    let count = 0;
    for (const { locks } of this.#entries.values()) if (locks > 0) count++;
    return count;
  }

  /** All objects, the least recently used first. */
  entries(): Entry[] {
    return [...this.#entries.values()];
  }

  /** The object of a key. */
  get({ id }: ObjectKey): Entry | undefined {
    return this.#entries.get(id);
  }

  /**
   * Notes that the objects of keys were used. Chains are used from the front, so the last of them
   * counts as the one that is needed least.
   */
  touch(keys: readonly ObjectKey[]): void {
    for (const { id } of keys.toReversed()) {
      const entry = this.#entries.get(id);
      if (entry === undefined) continue;
      this.#entries.delete(id);
      this.#entries.set(id, entry);
    }
  }

  /**
   * Takes a slot for an object to come: a free one, or that of the least recently used object that
   * is neither locked nor in use, which is gone then.
   *
   * @param onEvicted Told the key of that object.
   * @returns `undefined` if there is none.
   */
  takeSlot(onEvicted: (key: ObjectKey) => void): number | undefined {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    for (const entry of this.#entries.values()) {
      if (entry.locks > 0 || entry.uses > 0) continue;
      this.#remove(entry);
      this.#evictedCount++;
      onEvicted(entry.key);
      return entry.slot;
    }
    return undefined;
  }

  /** Gives back a slot with nothing in it; it is the last to be taken again. */
  giveBack(slot: number): void {
    this.#free.unshift(slot);
  }

  /**
   * Puts in an object whose bytes are in its slot, in use until {@linkcode release}. It takes over
   * the locks of an older one with its key.
   *
   * @returns What it replaces, to be released when its slot has been cleared; the object itself, if
   * a newer one was stored meanwhile; or `undefined`.
   */
  commit(object: PooledObject): { readonly entry: Entry; readonly retired: Entry | undefined } {
    const { key, slot, byteLength, sequence } = object;
    const present = this.#entries.get(key.id);
    const entry = { key, slot, byteLength, sequence, locks: 0, uses: 1, isRetired: false };
    if (present !== undefined && present.sequence > sequence) {
      entry.isRetired = true;
      return { entry: this.use(present), retired: entry };
    }
    if (present !== undefined) {
      entry.locks = present.locks;
      this.retire(present);
    }
    this.#put(entry);
    return { entry, retired: present };
  }

  /** Takes an object out of the table; its slot is free when it is released. */
  retire(entry: Entry): void {
    this.#remove(entry);
    entry.isRetired = true;
    entry.uses++;
  }

  /** Keeps the bytes of an object where they are until {@linkcode release}. */
  use(entry: Entry): Entry {
    entry.uses++;
    return entry;
  }

  /** Ends one use. */
  release(entry: Entry): void {
    entry.uses--;
    if (entry.isRetired && entry.uses === 0) this.#free.push(entry.slot);
  }

  #put(entry: Entry): void {
    this.#entries.set(entry.key.id, entry);
    this.#usedBytes += entry.byteLength;
  }

  #remove(entry: Entry): void {
    this.#entries.delete(entry.key.id);
    this.#usedBytes -= entry.byteLength;
  }
}
