import { LruList, type LruPlace } from "../base/lru_list.ts";
import type { ObjectKey } from "../keys/object_key.ts";

/** What the index knows about one stored object. */
export interface IndexedObject {
  readonly key: ObjectKey;
  readonly byteLength: number;
  /** Time of the last store or use, in milliseconds since 1970. */
  usedAt: number;
  /** Number of the last event that showed that the object exists. */
  seenAt: number;
}

/** Age difference between neighbors of a chain, in milliseconds: later objects count as older. */
const STEP_MS = 1e-3;

/** Objects assumed to be stored, with their sizes, in order of their last use. */
export class ObjectIndex implements Iterable<IndexedObject> {
  readonly #order = new LruList<IndexedObject>();
  readonly #places = new Map<string, LruPlace<IndexedObject>>();
  #usedBytes = 0;
  #events = 0;

  /** Bytes of all objects. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Number of objects. */
  get size(): number {
    return this.#places.size;
  }

  /** Number of the last event. */
  get now(): number {
    return this.#events;
  }

  /** The entry of a key id, if indexed. */
  get(id: string): IndexedObject | undefined {
    return this.#places.get(id)?.item;
  }

  /**
   * Adds an object as most recently used. Sizes and times come from servers: an invalid size counts
   * as 0 bytes, an invalid or future time as now.
   */
  put(key: ObjectKey, byteLength: number, usedAt?: number): void {
    this.remove(key);
    const bytes = Number.isSafeInteger(byteLength) && byteLength >= 0 ? byteLength : 0;
    const entry = { key, byteLength: bytes, usedAt: timeOf(usedAt), seenAt: ++this.#events };
    this.#places.set(key.id, this.#order.add(entry));
    this.#usedBytes += bytes;
  }

  /** Records that an object was found, last used at `usedAt` if that is known. */
  see(entry: IndexedObject, usedAt: number | undefined): void {
    entry.seenAt = ++this.#events;
    if (usedAt !== undefined) entry.usedAt = Math.max(entry.usedAt, timeOf(usedAt));
  }

  /** Orders the objects by the times of their last use, after they were put and seen in any order. */
  sort(): void {
    const entries = [...this.#order].sort((a, b) => a.usedAt - b.usedAt);
    for (const { key: { id } } of entries) {
      const place = this.#places.get(id);
      if (place !== undefined) this.#order.renew(place);
    }
  }

  /** Records a use of a chain of objects; later objects count as older. */
  touch(keys: readonly ObjectKey[]): void {
    const time = Date.now();
    for (let place = keys.length - 1; place >= 0; place--) {
      const found = this.#places.get((keys[place] as ObjectKey).id);
      if (found === undefined) continue;
      found.item.usedAt = time - place * STEP_MS;
      this.#order.renew(found);
    }
  }

  /** Removes an object that no longer exists. */
  remove({ id }: ObjectKey): void {
    const place = this.#places.get(id);
    if (place === undefined) return;
    this.#order.remove(place);
    this.#places.delete(id);
    this.#usedBytes -= place.item.byteLength;
  }

  /**
   * Returns a function that removes objects found to be missing. It skips objects that were added
   * after this call, because the answer may predate them.
   */
  staleRemover(keys: readonly ObjectKey[]): (key: ObjectKey) => void {
    const before = new Map(keys.map(({ id }) => [id, this.get(id)]));
    return (key) => {
      if (this.get(key.id) === before.get(key.id)) this.remove(key);
    };
  }

  /** Removes the objects not seen after event number `event`; returns their keys. */
  removeUnseenSince(event: number): ObjectKey[] {
    const unseen = [...this.#order].filter(({ seenAt }) => seenAt <= event);
    for (const { key } of unseen) this.remove(key);
    return unseen.map(({ key }) => key);
  }

  /** Iterates from the least to the most recently used object. */
  [Symbol.iterator](): Iterator<IndexedObject> {
    return this.#order[Symbol.iterator]();
  }
}

/** Clamps a time in milliseconds since 1970 to now; `undefined` and NaN become now. */
function timeOf(usedAt: number | undefined): number {
  const now = Date.now();
  return usedAt === undefined || Number.isNaN(usedAt) ? now : Math.min(usedAt, now);
}
