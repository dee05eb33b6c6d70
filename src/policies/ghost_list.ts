import { LruMap } from "../base/lru_map.ts";

/** Remembered objects at most, whatever the number of objects in the store. */
const MAX_GHOSTS = 262_144;

interface Ghost {
  readonly id: string;
  readonly value: number;
}

/** What is remembered of evicted objects, by id: the last evicted ones, and a number for each. */
export class GhostList {
  readonly #ghosts = new LruMap<Ghost>(({ id }) => id, MAX_GHOSTS);

  /** Number of remembered objects. */
  get size(): number {
    return this.#ghosts.size;
  }

  /** Remembers an object, and forgets the oldest ones beyond `max`. */
  add(id: string, value: number, max: number): void {
    this.#ghosts.put({ id, value });
    this.trim(max);
  }

  /** Forgets the oldest objects beyond `max`. */
  trim(max: number): void {
    if (this.#ghosts.size <= max) return;
    for (const { id } of this.#ghosts) {
      this.#ghosts.delete(id);
      if (this.#ghosts.size <= max) break;
    }
  }

  /** Forgets an object; returns its number, `undefined` if it is not remembered. */
  take(id: string): number | undefined {
    const value = this.#ghosts.get(id)?.value;
    if (value !== undefined) this.#ghosts.delete(id);
    return value;
  }
}
