import type { ObjectKey } from "../../src/keys/object_key.ts";
import type { SimStore } from "./sim_store.ts";

/** What a cache may return: a model that knows what was put, forgotten and expired. */
export class SimOracle {
  readonly #puts = new Map<string, { readonly key: ObjectKey; readonly at: number }>();
  /** Since when objects are forgotten, in turns; a hit of a match that began later is wrong. */
  readonly #forgotten = new Map<string, number>();
  #turn = 0;

  /** The number of a call, greater than those of all calls before. */
  next(): number {
    return ++this.#turn;
  }

  /**
   * Objects are put that were reserved with a number, at a simulated time: what was forgotten since
   * stays so.
   */
  put(keys: readonly ObjectKey[], turn: number, at: number): void {
    for (const key of keys) {
      this.#puts.set(key.id, { key, at });
      if ((this.#forgotten.get(key.id) ?? 0) < turn) this.#forgotten.delete(key.id);
    }
  }

  /** Everything that was put and passes a test. */
  keys(test: (key: ObjectKey) => boolean): ObjectKey[] {
    return [...this.#puts.values()].map(({ key }) => key).filter(test);
  }

  /** Objects are forgotten from now on; returns the number of that. */
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

  /** Objects may come back: a store has them that was not there, or did not work, when they went. */
  excuse(keys: Iterable<ObjectKey>): void {
    for (const { id } of keys) this.#forgotten.delete(id);
  }

  /** Why a match that began with a number must not return an object, if it must not. */
  fault({ id }: ObjectKey, turn: number, stores: Iterable<SimStore>): string | undefined {
    if (!this.#puts.has(id)) return `hit of what was never put: ${id}`;
    const forgotten = this.#forgotten.get(id);
    if (forgotten === undefined || forgotten > turn) return undefined;
    // It cannot be removed from an adapter without delete, or that reported a failure.
    for (const { kind, everHeld, denied } of stores) {
      if (denied.has(id) || (!kind.canDelete && everHeld.has(id))) return undefined;
    }
    return `hit of what was forgotten: ${id}`;
  }
}
