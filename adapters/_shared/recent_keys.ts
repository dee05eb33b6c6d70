import type { ObjectKey } from "../../src/l2/adapter.ts";

/** A set of keys that forgets those that were added longest ago. */
export class RecentKeys {
  readonly #ids = new Set<string>();
  readonly #most: number;

  /** Remembers at most `most` keys. */
  constructor(most: number) {
    this.#most = most;
  }

  /** Adds a key. */
  add({ id }: ObjectKey): void {
    this.#ids.delete(id);
    this.#ids.add(id);
    if (this.#ids.size <= this.#most) return;
    for (const oldest of this.#ids) {
      this.#ids.delete(oldest);
      return;
    }
  }

  /** Removes a key. */
  delete({ id }: ObjectKey): void {
    this.#ids.delete(id);
  }

  /** Whether a key is in the set. */
  has({ id }: ObjectKey): boolean {
    return this.#ids.has(id);
  }

  /** The places in a list whose keys are in the set. */
  placesIn(keys: readonly ObjectKey[]): number[] {
    if (this.#ids.size === 0) return [];
    return [...keys.keys()].filter((place) => this.#ids.has((keys[place] as ObjectKey).id));
  }
}
