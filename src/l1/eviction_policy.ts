/**
 * Decides which object leaves first, by ranks: of the objects that may leave, the one with the
 * lowest rank goes. Whether one may leave is decided by the cache.
 */
export interface EvictionPolicy {
  /** Name of the policy, for status. */
  readonly name: string;
  /**
   * The rank of an object that is used now, its first use included; never lower than the one that
   * it had. Objects that are used together are ranked from the tail of their prefix to its head,
   * because the tail should leave first.
   *
   * @param before The rank that it had; `undefined` if it is new.
   */
  rank(before: number | undefined): number;
}
