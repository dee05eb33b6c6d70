import { Bitmap, type ObjectKey } from "../../src/l2/adapter.ts";

/** Objects that somebody is about to load, counted, and those that are being removed. */
export class KeyLocks {
  readonly #counts = new Map<string, number>();
  readonly #leaving = new Set<string>();

  /** Number of locked objects. */
  get size(): number {
    return this.#counts.size;
  }

  /** Whether an object is locked. */
  has({ id }: ObjectKey): boolean {
    return this.#counts.has(id);
  }

  /** Takes one lock from each object that has any. */
  remove(keys: readonly ObjectKey[]): void {
    for (const { id } of keys) {
      const count = this.#counts.get(id) ?? 0;
      if (count > 1) this.#counts.set(id, count - 1);
      else this.#counts.delete(id);
    }
  }

  /**
   * Locks what a lookup finds. The keys are locked before it asks, so that nobody begins to remove
   * them meanwhile; what was being removed already counts as missing.
   *
   * @param isChain Whether only the front counts, up to the first key that is missing.
   */
  async lockFound(
    keys: readonly ObjectKey[],
    isChain: boolean,
    ask: () => Promise<Bitmap>,
  ): Promise<Bitmap> {
    const staying = Bitmap.from(keys, ({ id }) => !this.#leaving.has(id));
    for (const { id } of keys) this.#counts.set(id, (this.#counts.get(id) ?? 0) + 1);
    let found = new Bitmap(keys.length);
    try {
      const there = (await ask()).and(staying);
      found = isChain ? new Bitmap(keys.length, there.countLeadingOnes()) : there;
      return found;
    } finally {
      this.remove(keys.filter((_, i) => !found.test(i)));
    }
  }

  /** Whether an object can be removed: then it counts as missing until {@linkcode endRemoval}. */
  startRemoval({ id }: ObjectKey): boolean {
    if (this.#counts.has(id) || this.#leaving.has(id)) return false;
    this.#leaving.add(id);
    return true;
  }

  /** Tells that a removal is over. */
  endRemoval({ id }: ObjectKey): void {
    this.#leaving.delete(id);
  }
}
