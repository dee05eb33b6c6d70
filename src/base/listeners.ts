/** Listeners that are told of events, in the order in which they were added. */
export class Listeners<Listener> {
  readonly #listeners = new Set<Listener>();
  readonly #onError: ((error: unknown) => void) | undefined;

  /**
   * @param onError Receives the error of a listener that throws; the other listeners are told all
   * the same. Without it, `tell()` throws the error.
   */
  constructor(onError?: (error: unknown) => void) {
    this.#onError = onError;
  }

  /** Number of listeners. */
  get size(): number {
    return this.#listeners.size;
  }

  /** Adds a listener; returns a function that removes it. */
  add(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Removes a listener. */
  delete(listener: Listener): void {
    this.#listeners.delete(listener);
  }

  /** Removes all listeners. */
  clear(): void {
    this.#listeners.clear();
  }

  /** Whether `test` holds for a listener. */
  some(test: (listener: Listener) => boolean): boolean {
    return this.#listeners.values().some(test);
  }

  /** Calls `call` with each listener. */
  tell(call: (listener: Listener) => void): void {
    for (const listener of this.#listeners) {
      try {
        call(listener);
      } catch (error) {
        if (this.#onError === undefined) throw error;
        this.#onError(error);
      }
    }
  }
}
