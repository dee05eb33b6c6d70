import type { EvictionPolicy } from "./eviction_policy.ts";

/** Least recently used first; of objects used together, the tail of the prefix first. */
export class LruPolicy implements EvictionPolicy {
  /** Name of the policy. */
  readonly name = "lru";
  #uses = 0;

  /** The number of the use. */
  rank(): number {
    return ++this.#uses;
  }
}
