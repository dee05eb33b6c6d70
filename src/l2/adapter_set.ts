import { Listeners } from "../base/listeners.ts";
import type { AdapterGuard } from "./adapter_guard.ts";

/** Called when the adapters of a cache change. */
export type AdapterSetListener = (adapters: AdapterSet) => void;

/**
 * The adapters of a cache in order of preference. They can be added and removed while the cache is
 * in use.
 */
export class AdapterSet {
  #guards: readonly AdapterGuard[] = [];
  readonly #retiring = new Set<AdapterGuard>();
  readonly #listeners = new Listeners<AdapterSetListener>();

  /** All adapters that have not been removed; a new array after each change. */
  get all(): readonly AdapterGuard[] {
    return this.#guards;
  }

  /** Adapters that receive new objects. */
  get storing(): AdapterGuard[] {
    return this.#guards.filter((guard) => guard.takesStores && !this.#retiring.has(guard));
  }

  /** Adapters that answer lookups. */
  get serving(): AdapterGuard[] {
    return this.#guards.filter((guard) => guard.takesLookups);
  }

  get(id: number): AdapterGuard | undefined {
    return this.#guards.find((guard) => guard.id === id);
  }

  add(guard: AdapterGuard): void {
    this.#guards = [...this.#guards, guard];
    this.#notify();
  }

  /**
   * Stops new objects from going to an adapter. Objects already queued for it can still be stored.
   */
  retire(guard: AdapterGuard): void {
    this.#retiring.add(guard);
  }

  /**
   * Removes an adapter that is no longer in use.
   *
   * @returns Whether it was present.
   */
  remove(guard: AdapterGuard): boolean {
    this.#retiring.delete(guard);
    if (!this.#guards.includes(guard)) return false;
    this.#guards = this.#guards.filter((other) => other !== guard);
    this.#notify();
    return true;
  }

  /** Calls `listener` after each change. */
  onChange(listener: AdapterSetListener): void {
    this.#listeners.add(listener);
  }

  #notify(): void {
    this.#listeners.tell((listener) => listener(this));
  }
}
