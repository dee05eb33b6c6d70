import { LruMap } from "../../src/base/lru_map.ts";
import type { ObjectKey } from "../../src/adapter/contract.ts";

/** An object in a slot. */
export interface PooledObject {
  readonly key: ObjectKey;
  readonly slot: number;
  /** Bytes of the object. */
  readonly byteLength: number;
  /** Of two objects with one key, the greater number is newer. */
  readonly sequence: number;
}

/** An object in the table. */
export interface SlotEntry extends PooledObject {
  /** Number of lookups that have not been unlocked. */
  locks: number;
  /** Number of operations that need the bytes in the slot. */
  uses: number;
  /** Whether it was removed from the table; its slot becomes free with the last use. */
  isRetired: boolean;
}

/**
 * Maps objects to slots, and tracks free slots and the order of use. All methods are synchronous.
 */
export class SlotTable {
  /** Entries by key id, least recently used first. */
  readonly #entries = new LruMap<SlotEntry>(({ key }) => key.id);
  /** Free slots; taken from the end. */
  readonly #free: number[] = [];
  #usedBytes = 0;
  #evictedCount = 0;

  /**
   * @param slots Number of slots.
   * @param objects Initial objects, least recently used first; unique by key and by slot.
   */
  constructor(slots: number, objects: readonly PooledObject[]) {
    const taken = new Set<number>();
    for (const { key, slot, byteLength, sequence } of objects) {
      taken.add(slot);
      this.#put({ key, slot, byteLength, sequence, locks: 0, uses: 0, isRetired: false });
    }
    for (let slot = slots - 1; slot >= 0; slot--) if (!taken.has(slot)) this.#free.push(slot);
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Bytes of all objects. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  get freeSlots(): number {
    return this.#free.length;
  }

  /** Number of evicted objects. */
  get evictedCount(): number {
    return this.#evictedCount;
  }

  /** Number of locked objects. */
  get lockedCount(): number {
    let count = 0;
    for (const { locks } of this.#entries) if (locks > 0) count++;
    return count;
  }

  /** All objects, least recently used first. */
  entries(): SlotEntry[] {
    return [...this.#entries];
  }

  get({ id }: ObjectKey): SlotEntry | undefined {
    return this.#entries.get(id);
  }

  /** Records a use of a chain; its end is evicted before its front. */
  touch(keys: readonly ObjectKey[]): void {
    for (const { id } of keys.toReversed()) this.#entries.renew(id);
  }

  /**
   * Takes a free slot, or that of the least recently used object that is neither locked nor in use;
   * this object is evicted.
   *
   * @param onEvicted Called with the key of the evicted object.
   * @returns `undefined` if no slot is available.
   */
  takeSlot(onEvicted: (key: ObjectKey) => void): number | undefined {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    for (const entry of this.#entries) {
      if (entry.locks > 0 || entry.uses > 0) continue;
      this.#remove(entry);
      this.#evictedCount++;
      onEvicted(entry.key);
      return entry.slot;
    }
    return undefined;
  }

  /** Returns an empty slot, to be reused last. */
  giveBack(slot: number): void {
    this.#free.unshift(slot);
  }

  /**
   * Adds an object whose bytes are in its slot. It stays in use until {@linkcode release}, and
   * takes over the locks of an older object with its key.
   *
   * @returns The entry in use, and the retired one, to be released once its slot is cleared: the
   * older object, or this one if a newer object was stored meanwhile.
   */
  commit(
    object: PooledObject,
  ): { readonly entry: SlotEntry; readonly retired: SlotEntry | undefined } {
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

  /** Removes an object from the table; its slot becomes free after {@linkcode release}. */
  retire(entry: SlotEntry): void {
    this.#remove(entry);
    entry.isRetired = true;
    entry.uses++;
  }

  /** Keeps the bytes of an object in its slot until {@linkcode release}. */
  use(entry: SlotEntry): SlotEntry {
    entry.uses++;
    return entry;
  }

  /** Ends one use. */
  release(entry: SlotEntry): void {
    entry.uses--;
    if (entry.isRetired && entry.uses === 0) this.#free.push(entry.slot);
  }

  #put(entry: SlotEntry): void {
    this.#entries.put(entry);
    this.#usedBytes += entry.byteLength;
  }

  #remove(entry: SlotEntry): void {
    this.#entries.delete(entry.key.id);
    this.#usedBytes -= entry.byteLength;
  }
}
