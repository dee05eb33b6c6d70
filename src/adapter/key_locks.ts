import { Bitmap } from "../keys/bitmap.ts";
import type { ObjectKey } from "../keys/object_key.ts";

/** Counts the locks that lookups hold on objects, and tracks objects that are being removed. */
export class KeyLocks {
  readonly #counts = new Map<string, number>();
  readonly #removing = new Set<string>();

  /** Number of locked objects. */
  get size(): number {
    return this.#counts.size;
  }

  /** Ids of the locked objects. */
  ids(): Iterable<string> {
    return this.#counts.keys();
  }

  /** Whether an object is locked. */
  has({ id }: ObjectKey): boolean {
    return this.#counts.has(id);
  }

  /** Adds one lock to each object. */
  add(keys: readonly ObjectKey[]): void {
    for (const { id } of keys) this.#counts.set(id, (this.#counts.get(id) ?? 0) + 1);
  }

  /** Releases one lock of each object; objects without a lock are skipped. */
  remove(keys: readonly ObjectKey[]): void {
    for (const { id } of keys) {
      const count = this.#counts.get(id) ?? 0;
      if (count > 1) this.#counts.set(id, count - 1);
      else this.#counts.delete(id);
    }
  }

  /**
   * Locks the objects that a lookup finds. Keys are locked before `ask` runs, so that no removal
   * starts meanwhile; objects already being removed count as missing.
   *
   * @param isChain Whether only the keys before the first missing one count.
   */
  async lockFound(
    keys: readonly ObjectKey[],
    isChain: boolean,
    ask: () => Promise<Bitmap>,
  ): Promise<Bitmap> {
    const removable = Bitmap.from(keys, ({ id }) => !this.#removing.has(id));
    this.add(keys);
    let found = new Bitmap(keys.length);
    try {
      const present = (await ask()).and(removable);
      found = isChain ? new Bitmap(keys.length, present.countLeadingOnes()) : present;
      return found;
    } finally {
      this.remove(keys.filter((_, i) => !found.test(i)));
    }
  }

  /**
   * Starts a removal unless the object is locked; it counts as missing until {@linkcode
   * endRemoval}.
   */
  startRemoval({ id }: ObjectKey): boolean {
    if (this.#counts.has(id) || this.#removing.has(id)) return false;
    this.#removing.add(id);
    return true;
  }

  /** Ends a removal. */
  endRemoval({ id }: ObjectKey): void {
    this.#removing.delete(id);
  }
}
