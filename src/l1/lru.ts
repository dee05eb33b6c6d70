import type { EvictionPolicy } from "./eviction_policy.ts";

/**
 * Evicts the least recently used objects first; of objects used together, the tail of the prefix
 * first.
 */
export class LruPolicy implements EvictionPolicy {
  readonly name = "lru";
  #uses = 0;

  /** Counts uses: each use gets the next higher rank. */
  rank(): number {
    return ++this.#uses;
  }
}
