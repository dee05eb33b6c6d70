import type { ObjectKey } from "../../src/keys/object_key.ts";
import type { SimStore } from "./sim_store.ts";

/** Oracle for what a cache may return: knows what was put, forgotten and expired. */
export class SimOracle {
  readonly #puts = new Map<string, { readonly key: ObjectKey; readonly at: number }>();
  /** Number of the call that forgot each object; a match that started later must not return it. */
  readonly #forgotten = new Map<string, number>();
  #turn = 0;

  /** Returns the number of a call, greater than all earlier ones. */
  next(): number {
    return ++this.#turn;
  }

  /**
   * Records a put of objects reserved with a number, at a simulated time; objects forgotten since
   * then stay forgotten.
   */
  put(keys: readonly ObjectKey[], turn: number, at: number): void {
    for (const key of keys) {
      this.#puts.set(key.id, { key, at });
      if ((this.#forgotten.get(key.id) ?? 0) < turn) this.#forgotten.delete(key.id);
    }
  }

  /** All objects that were put and pass `test`. */
  keys(test: (key: ObjectKey) => boolean): ObjectKey[] {
    return [...this.#puts.values()].map(({ key }) => key).filter(test);
  }

  /** Forgets objects; returns the number of that call. */
  forget(keys: readonly ObjectKey[]): number {
    const turn = this.next();
    for (const { id } of keys) this.#forgotten.set(id, turn);
    return turn;
  }

  /** Forgets the objects whose time to live has passed, unless they were put again. */
  expire(keys: readonly ObjectKey[], expiredAt: number): void {
    const turn = this.next();
    for (const { id } of keys) {
      if ((this.#puts.get(id)?.at ?? -1) < expiredAt) this.#forgotten.set(id, turn);
    }
  }

  /** Whether an object has not been put again since the forget with that number. */
  isForgottenSince({ id }: ObjectKey, turn: number): boolean {
    return this.#forgotten.get(id) === turn;
  }

  /**
   * Allows objects to return: a store has them that was absent or failing when they were forgotten.
   */
  excuse(keys: Iterable<ObjectKey>): void {
    for (const { id } of keys) this.#forgotten.delete(id);
  }

  /**
   * Reason why a match that started with a number must not return an object; `undefined` if it may.
   */
  fault({ id }: ObjectKey, turn: number, stores: Iterable<SimStore>): string | undefined {
    if (!this.#puts.has(id)) return `hit of what was never put: ${id}`;
    const forgotten = this.#forgotten.get(id);
    if (forgotten === undefined || forgotten > turn) return undefined;
    // An adapter without `delete`, or that denied having the object, may still hold it.
    for (const { kind, everHeld, denied } of stores) {
      if (denied.has(id) || (!kind.canDelete && everHeld.has(id))) return undefined;
    }
    return `hit of what was forgotten: ${id}`;
  }
}
