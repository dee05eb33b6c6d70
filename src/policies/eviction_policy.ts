import { ConfigError } from "../base/config_error.ts";
import { namedChoice } from "../base/named_choice.ts";
import { arc } from "./arc.ts";
import type { EvictionPolicyName, OrderPolicy } from "./eviction_order.ts";
import { lfuAged } from "./lfu_aged.ts";
import { lru } from "./lru.ts";
import { s3Fifo } from "./s3_fifo.ts";

/**
 * Defines the order in which L1 evicts, by ranks: of the evictable objects, the one with the lowest
 * rank is evicted first. The cache decides which objects are evictable. A policy that counts
 * something belongs to one cache.
 *
 * @example Evict the least frequently used objects first
 * ```ts
 * import type { EvictionPolicy } from "@kvtier/kvtier";
 *
 * export const lfu: EvictionPolicy = { name: "lfu", rank: (before = 0) => before + 1 };
 * ```
 */
export interface EvictionPolicy {
  /** Name of the policy, shown in the status. */
  readonly name: string;
  /**
   * Rank of an object that is used now, possibly for the first time: a finite number, never lower
   * than its previous rank. Any other answer is counted in the status, and the object keeps its
   * previous rank. Objects used together are ranked from the tail of their prefix to its head,
   * because the tail should be evicted first. Called for each use of each object.
   *
   * @param before Previous rank; `undefined` for a new object.
   */
  rank(before: number | undefined): number;
}

/**
 * Evicts the least recently used objects first; of objects used together, the tail of the prefix
 * first.
 */
export class LruPolicy implements EvictionPolicy {
  /** Name of the policy. */
  readonly name = "LRU";
  #uses = 0;

  /** Counts uses: each use gets the next higher rank. */
  rank(): number {
    return ++this.#uses;
  }
}

/** All eviction policies with a name. */
export const EVICTION_POLICIES: readonly OrderPolicy[] = [lru, lfuAged, s3Fifo, arc];

/** The eviction policy with a name, which a configuration has checked. */
export function evictionPolicy(name: EvictionPolicyName): OrderPolicy {
  return namedChoice("eviction_policy", name, EVICTION_POLICIES);
}

/** Resolves the option `l1.eviction`; throws a `ConfigError` for what is no policy. */
export function resolveEvictionPolicy(
  policy: string | EvictionPolicy,
): OrderPolicy | EvictionPolicy {
  const chosen = namedChoice<OrderPolicy | EvictionPolicy>(
    "l1.eviction",
    policy,
    EVICTION_POLICIES,
  );
  if ("start" in chosen && EVICTION_POLICIES.includes(chosen)) return chosen;
  const { name, rank } = chosen as Partial<EvictionPolicy>;
  if (typeof name === "string" && typeof rank === "function") return chosen;
  const names = EVICTION_POLICIES.map((each) => `"${each.name}"`).join(", ");
  const expected = `${names}, or a policy of your own with a name and a method rank`;
  throw new ConfigError({ subject: "l1.eviction", expected, received: chosen });
}
