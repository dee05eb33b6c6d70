import type { ObjectKey } from "../../src/l2/adapter.ts";

/** What is known of one object on the server. */
export interface BookEntry {
  /** Its key. */
  readonly key: ObjectKey;
  /** Its bytes. */
  readonly byteLength: number;
  /** When it was stored or used, in milliseconds since 1970. */
  usedAt: number;
  /** Number of the last event that showed that it is there. */
  seenAt: number;
}

/** The part of a millisecond by which what stands further back in a chain counts as older. */
const STEP_MS = 1e-3;

/** The objects that are taken to be on the server, with their bytes and times of use. */
export class ObjectBook {
  readonly #entries = new Map<string, BookEntry>();
  #usedBytes = 0;
  #events = 0;

  /** Bytes of all objects. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Number of objects. */
  get size(): number {
    return this.#entries.size;
  }

  /** Number of the last event. */
  get now(): number {
    return this.#events;
  }

  /** The entry of an object. */
  get({ id }: ObjectKey): BookEntry | undefined {
    return this.#entries.get(id);
  }

  /**
   * Enters an object that is there. Bytes and times of servers are data: what is no size counts as
   * 0 bytes, and what is no time, or one to come, as now.
   */
  put(key: ObjectKey, byteLength: number, usedAt?: number): void {
    this.remove(key);
    const bytes = Number.isSafeInteger(byteLength) && byteLength >= 0 ? byteLength : 0;
    const entry = { key, byteLength: bytes, usedAt: timeOf(usedAt), seenAt: ++this.#events };
    this.#entries.set(key.id, entry);
    this.#usedBytes += bytes;
  }

  /** Notes that an object was found to be there, used last at `usedAt` as far as that is known. */
  see(entry: BookEntry, usedAt: number | undefined): void {
    entry.seenAt = ++this.#events;
    if (usedAt !== undefined) entry.usedAt = Math.max(entry.usedAt, timeOf(usedAt));
  }

  /** Notes that a chain of objects is used now; its tail counts as older. */
  touch(keys: readonly ObjectKey[]): void {
    const time = Date.now();
    for (const [place, { id }] of keys.entries()) {
      const entry = this.#entries.get(id);
      if (entry !== undefined) entry.usedAt = time - place * STEP_MS;
    }
  }

  /** Removes an object that is not there. */
  remove({ id }: ObjectKey): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    this.#entries.delete(id);
    this.#usedBytes -= entry.byteLength;
  }

  /**
   * What forgets objects that turn out not to be there. Those that are entered anew meanwhile stay:
   * whoever was asked did not know them yet.
   */
  forgetter(keys: readonly ObjectKey[]): (key: ObjectKey) => void {
    const before = new Map(keys.map((key) => [key.id, this.get(key)]));
    return (key) => {
      if (this.get(key) === before.get(key.id)) this.remove(key);
    };
  }

  /** Removes what was not seen after event number `event`; returns the keys. */
  removeUnseenSince(event: number): ObjectKey[] {
    const unseen = [...this.#entries.values()].filter(({ seenAt }) => seenAt <= event);
    for (const { key } of unseen) this.remove(key);
    return unseen.map(({ key }) => key);
  }

  /** All objects, the one used longest ago first. */
  oldestFirst(): BookEntry[] {
    return [...this.#entries.values()].sort((a, b) => a.usedAt - b.usedAt);
  }
}

/** A time in milliseconds since 1970 that is not to come. */
function timeOf(usedAt: number | undefined): number {
  const now = Date.now();
  return usedAt === undefined || Number.isNaN(usedAt) ? now : Math.min(usedAt, now);
}
