import type { EvictionPolicy } from "./eviction_policy.ts";

/** Least recently used first; of objects used together, the tail of the prefix first. */
export class LruPolicy implements EvictionPolicy {
  /** Name of the policy. */
  readonly name = "lru";
  // A Map iterates in insertion order: the first entry is the one that was used longest ago.
  readonly #order = new Map<string, undefined>();

  /** Inserts as most recent. */
  admitted(ids: readonly string[]): void {
    for (const id of ids.toReversed()) this.#renew(id);
  }

  /** Moves to most recent. */
  touched(ids: readonly string[]): void {
    for (const id of ids.toReversed()) {
      if (this.#order.has(id)) this.#renew(id);
    }
  }

  /** Forgets an id. */
  removed(id: string): void {
    this.#order.delete(id);
  }

  /** Ids from the least to the most recently used. */
  candidates(): Iterable<string> {
    return this.#order.keys();
  }

  #renew(id: string): void {
    this.#order.delete(id);
    this.#order.set(id, undefined);
  }
}
