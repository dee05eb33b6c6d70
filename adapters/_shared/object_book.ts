import type { ObjectKey } from "../../src/adapter/contract.ts";

/** What the index knows about one object on the server. */
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

/** Index of the objects assumed to be on the server, with their sizes and times of use. */
export class ObjectIndex {
  readonly #entries = new Map<string, IndexedObject>();
  #usedBytes = 0;
  #events = 0;

  get usedBytes(): number {
    return this.#usedBytes;
  }

  get size(): number {
    return this.#entries.size;
  }

  get now(): number {
    return this.#events;
  }

  /** The entry of an object, if indexed. */
  get({ id }: ObjectKey): IndexedObject | undefined {
    return this.#entries.get(id);
  }

  /**
   * Adds an object. Sizes and times come from servers: an invalid size counts as 0 bytes, an
   * invalid or future time as now.
   */
  put(key: ObjectKey, byteLength: number, usedAt?: number): void {
    this.remove(key);
    const bytes = Number.isSafeInteger(byteLength) && byteLength >= 0 ? byteLength : 0;
    const entry = { key, byteLength: bytes, usedAt: timeOf(usedAt), seenAt: ++this.#events };
    this.#entries.set(key.id, entry);
    this.#usedBytes += bytes;
  }

  /** Records that an object was found, last used at `usedAt` if that is known. */
  see(entry: IndexedObject, usedAt: number | undefined): void {
    entry.seenAt = ++this.#events;
    if (usedAt !== undefined) entry.usedAt = Math.max(entry.usedAt, timeOf(usedAt));
  }

  /** Records a use of a chain of objects; later objects count as older. */
  touch(keys: readonly ObjectKey[]): void {
    const time = Date.now();
    for (const [place, { id }] of keys.entries()) {
      const entry = this.#entries.get(id);
      if (entry !== undefined) entry.usedAt = time - place * STEP_MS;
    }
  }

  /** Removes an object that no longer exists. */
  remove({ id }: ObjectKey): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    this.#entries.delete(id);
    this.#usedBytes -= entry.byteLength;
  }

  /**
   * Returns a function that removes objects found to be missing. It skips objects that were added
   * after this call, because the answer may predate them.
   */
  staleRemover(keys: readonly ObjectKey[]): (key: ObjectKey) => void {
    const before = new Map(keys.map((key) => [key.id, this.get(key)]));
    return (key) => {
      if (this.get(key) === before.get(key.id)) this.remove(key);
    };
  }

  /** Removes the objects not seen after event number `event`; returns their keys. */
  removeUnseenSince(event: number): ObjectKey[] {
    const unseen = [...this.#entries.values()].filter(({ seenAt }) => seenAt <= event);
    for (const { key } of unseen) this.remove(key);
    return unseen.map(({ key }) => key);
  }

  /** All objects, least recently used first. */
  oldestFirst(): IndexedObject[] {
    return [...this.#entries.values()].sort((a, b) => a.usedAt - b.usedAt);
  }
}

/** Clamps a time in milliseconds since 1970 to now; `undefined` and NaN become now. */
function timeOf(usedAt: number | undefined): number {
  const now = Date.now();
  return usedAt === undefined || Number.isNaN(usedAt) ? now : Math.min(usedAt, now);
}
