import type { ObjectKey } from "../keys/object_key.ts";
import type { OrderPolicy } from "../policies/eviction_order.ts";
import { OrderedObjects } from "../policies/ordered_objects.ts";
import { Place } from "../policies/place.ts";

/** What the index knows about one stored object. */
export class IndexedObject extends Place {
  readonly key: ObjectKey;
  byteLength = 0;
  /** Time of the last store or use, in milliseconds since 1970. */
  timeOfUse = 0;
  /** Number of the event that stored the object. */
  storedAt = 0;
  /** Number of the last event that showed that the object exists. */
  seenAt = 0;

  constructor(key: ObjectKey) {
    super();
    this.key = key;
  }
}

/** Age difference between neighbors of a chain, in milliseconds: later objects count as older. */
const STEP_MS = 1e-3;

/** Objects assumed to be stored, with their sizes, in the order in which they leave. */
export class ObjectIndex implements Iterable<IndexedObject> {
  readonly #order: OrderedObjects<IndexedObject>;
  readonly #objects = new Map<string, IndexedObject>();
  #usedBytes = 0;
  #events = 0;

  /** Starts empty. */
  constructor(policy: OrderPolicy) {
    this.#order = new OrderedObjects(policy, ({ key }) => key.id);
  }

  /** Bytes of all objects. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Number of objects. */
  get size(): number {
    return this.#objects.size;
  }

  /** Number of the last event. */
  get now(): number {
    return this.#events;
  }

  /** The entry of a key id, if indexed. */
  get(id: string): IndexedObject | undefined {
    return this.#objects.get(id);
  }

  /**
   * Adds an object as most recently used. Sizes and times come from servers: an invalid size counts
   * as 0 bytes, an invalid or future time as now.
   */
  put(key: ObjectKey, byteLength: number, usedAt?: number): void {
    const bytes = Number.isSafeInteger(byteLength) && byteLength >= 0 ? byteLength : 0;
    const known = this.#objects.get(key.id);
    const entry = known ?? new IndexedObject(key);
    this.#usedBytes += bytes - entry.byteLength;
    entry.byteLength = bytes;
    entry.timeOfUse = timeOf(usedAt);
    entry.storedAt = entry.seenAt = ++this.#events;
    if (known !== undefined) return this.#order.use(entry, undefined, false);
    this.#objects.set(key.id, entry);
    this.#order.add(entry);
  }

  /** Records that an object was found, last used at `usedAt` if that is known. */
  see(entry: IndexedObject, usedAt: number | undefined): void {
    entry.seenAt = ++this.#events;
    if (usedAt !== undefined) entry.timeOfUse = Math.max(entry.timeOfUse, timeOf(usedAt));
  }

  /** Orders the objects by the times of their last use, after they were put and seen in any order. */
  sort(): void {
    const entries = [...this.#objects.values()].sort((a, b) =>
      a.timeOfUse - b.timeOfUse || a.usedAt - b.usedAt
    );
    for (const entry of entries) this.#order.use(entry, undefined, false);
  }

  /** Records a use or a store of a chain of objects; later objects count as older. */
  touch(keys: readonly ObjectKey[], isUse: boolean): void {
    const time = Date.now();
    let next: IndexedObject | undefined;
    for (let place = keys.length - 1; place >= 0; place--) {
      const found = this.#objects.get((keys[place] as ObjectKey).id);
      if (found === undefined) continue;
      found.timeOfUse = time - place * STEP_MS;
      this.#order.use(found, next, isUse);
      next = found;
    }
  }

  /** Removes an object that no longer exists. */
  remove({ id }: ObjectKey, isEvicted = false): void {
    const entry = this.#objects.get(id);
    if (entry === undefined) return;
    this.#order.remove(entry, isEvicted);
    this.#objects.delete(id);
    this.#usedBytes -= entry.byteLength;
  }

  /**
   * Returns a function that removes objects found to be missing. It skips objects that were added
   * after this call, because the answer may predate them.
   */
  staleRemover(keys: readonly ObjectKey[]): (key: ObjectKey, isEvicted?: boolean) => void {
    const before = new Map(keys.map(({ id }) => [id, this.get(id)?.storedAt]));
    return (key, isEvicted) => {
      if (this.get(key.id)?.storedAt === before.get(key.id)) this.remove(key, isEvicted);
    };
  }

  /** Removes the objects not seen after event number `event`; returns their keys. */
  removeUnseenSince(event: number): ObjectKey[] {
    const unseen = [...this.#objects.values()].filter(({ seenAt }) => seenAt <= event);
    for (const { key } of unseen) this.remove(key);
    return unseen.map(({ key }) => key);
  }

  /** Iterates in eviction order. */
  [Symbol.iterator](): Iterator<IndexedObject> {
    return this.#order[Symbol.iterator]();
  }
}

/** Clamps a time in milliseconds since 1970 to now; `undefined` and NaN become now. */
function timeOf(usedAt: number | undefined): number {
  const now = Date.now();
  return usedAt === undefined || Number.isNaN(usedAt) ? now : Math.min(usedAt, now);
}
