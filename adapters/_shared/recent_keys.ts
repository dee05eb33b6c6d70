import { LruMap } from "../../src/base/lru_map.ts";
import type { ObjectKey } from "../../src/adapter/contract.ts";

/** A bounded set of keys that drops the oldest ones. */
export class RecentKeys {
  readonly #ids: LruMap<string>;

  /**
   * @param maxKeys Max keys in the set.
   */
  constructor(maxKeys: number) {
    this.#ids = new LruMap((id) => id, maxKeys);
  }

  add({ id }: ObjectKey): void {
    this.#ids.put(id);
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
