import type { ObjectKey } from "../../src/l2/adapter.ts";

/** Objects that somebody is about to load, counted. */
export class KeyLocks {
  readonly #counts = new Map<string, number>();

  /** Number of objects. */
  get size(): number {
    return this.#counts.size;
  }

  /** Whether an object is locked. */
  has({ id }: ObjectKey): boolean {
    return this.#counts.has(id);
  }

  /** Locks objects once more. */
  add(keys: readonly ObjectKey[]): void {
    for (const { id } of keys) this.#counts.set(id, (this.#counts.get(id) ?? 0) + 1);
  }

  /** Takes one lock from each object that has any. */
  remove(keys: readonly ObjectKey[]): void {
    for (const { id } of keys) {
      const count = this.#counts.get(id) ?? 0;
      if (count > 1) this.#counts.set(id, count - 1);
      else this.#counts.delete(id);
    }
  }
}
