/**
 * Decides which object leaves first. It sees ids only; whether one may leave now is decided by
 * the cache, which skips what is locked.
 */
export interface EvictionPolicy {
  /** Name of the policy, for status. */
  readonly name: string;
  /** Objects came in together, in prefix order: the tail of a prefix should leave before its head. */
  admitted(ids: readonly string[]): void;
  /** Objects were used together, in prefix order. Unknown ids are ignored. */
  touched(ids: readonly string[]): void;
  /** An object left, for whatever reason. */
  removed(id: string): void;
  /**
   * All known ids, the first to leave first. Iterating changes nothing; removing ids meanwhile is
   * allowed.
   */
  candidates(): Iterable<string>;
}
