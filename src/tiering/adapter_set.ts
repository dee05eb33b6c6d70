import type { AdapterGuard } from "../l2/adapter_guard.ts";

/** Told when the adapters of a cache change. */
export type AdapterSetListener = (adapters: AdapterSet) => void;

/** The adapters of a cache, the preferred one first. They come and go while the cache is in use. */
export class AdapterSet {
  #guards: readonly AdapterGuard[] = [];
  readonly #retiring = new Set<AdapterGuard>();
  readonly #listeners = new Set<AdapterSetListener>();

  /** All that are not removed; a new array after each change. */
  get all(): readonly AdapterGuard[] {
    return this.#guards;
  }

  /** Those that new objects are written to. */
  get storing(): AdapterGuard[] {
    return this.#guards.filter((guard) => guard.takesStores && !this.#retiring.has(guard));
  }

  /** Those that objects are looked up in. */
  get serving(): AdapterGuard[] {
    return this.#guards.filter((guard) => guard.takesLookups);
  }

  /** The adapter with an id. */
  get(id: number): AdapterGuard | undefined {
    return this.#guards.find((guard) => guard.id === id);
  }

  /** Adds an adapter behind the others. */
  add(guard: AdapterGuard): void {
    this.#guards = [...this.#guards, guard];
    this.#notify();
  }

  /** Keeps new objects from an adapter; those that are meant for it already can still be stored. */
  retire(guard: AdapterGuard): void {
    this.#retiring.add(guard);
  }

  /**
   * Removes an adapter that nobody uses any more.
   *
   * @returns Whether it was there.
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
    for (const listener of this.#listeners) listener(this);
  }
}
