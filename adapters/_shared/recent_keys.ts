import type { ObjectKey } from "../../src/l2/adapter.ts";

/** A bounded set of keys that drops the oldest ones. */
export class RecentKeys {
  readonly #ids = new Set<string>();
  readonly #maxKeys: number;

  /**
   * @param maxKeys Max keys in the set.
   */
  constructor(maxKeys: number) {
    this.#maxKeys = maxKeys;
  }

  add({ id }: ObjectKey): void {
    this.#ids.delete(id);
    this.#ids.add(id);
    if (this.#ids.size <= this.#maxKeys) return;
    for (const oldest of this.#ids) {
      this.#ids.delete(oldest);
      return;
    }
  }

  delete({ id }: ObjectKey): void {
    this.#ids.delete(id);
  }

  has({ id }: ObjectKey): boolean {
    return this.#ids.has(id);
  }

  /** The indices of `keys` that are in the set. */
  placesIn(keys: readonly ObjectKey[]): number[] {
    if (this.#ids.size === 0) return [];
    return [...keys.keys()].filter((place) => this.#ids.has((keys[place] as ObjectKey).id));
  }
}
