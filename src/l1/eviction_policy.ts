/**
 * Defines the order of eviction by ranks: of the evictable objects, the one with the lowest rank is
 * evicted first. The cache decides which objects are evictable.
 */
export interface EvictionPolicy {
  /** Name of the policy, shown in the status. */
  readonly name: string;
  /**
   * Rank of an object that is used now, possibly for the first time; never lower than its previous
   * rank. Objects used together are ranked from the tail of their prefix to its head, because the
   * tail should be evicted first.
   *
   * @param before Previous rank; `undefined` for a new object.
   */
  rank(before: number | undefined): number;
}
