/** What a {@linkcode FlightLimit} allows at a time. */
export interface FlightLimitOptions {
  /** Most operations. */
  readonly operations: number;
  /** Most bytes that they move; a larger operation runs alone. @default {Infinity} */
  readonly bytes?: number;
}

interface Waiter {
  readonly bytes: number;
  readonly start: () => void;
}

/**
 * Bounds what is in flight over all callers together. First come, first served; who is aborted
 * while he waits leaves the queue at once.
 */
export class FlightLimit {
  readonly #maxOperations: number;
  readonly #maxBytes: number;
  readonly #waiters = new Set<Waiter>();
  #operations = 0;
  #bytes = 0;

  /** Nothing is in flight. */
  constructor({ operations, bytes = Infinity }: FlightLimitOptions) {
    this.#maxOperations = operations;
    this.#maxBytes = bytes;
  }

  /** Operations in flight. */
  get operations(): number {
    return this.#operations;
  }

  /**
   * Does `work` on every item, in order, each as soon as there is room for its bytes; what has not
   * begun when `signal` aborts is left out. `work` must not reject.
   */
  async forEach<Item>(
    items: readonly Item[],
    bytesOf: (item: Item) => number,
    signal: AbortSignal,
    work: (item: Item, index: number) => Promise<void>,
  ): Promise<void> {
    const running: Promise<void>[] = [];
    for (const [index, item] of items.entries()) {
      const bytes = bytesOf(item);
      if (!await this.take(bytes, signal)) break;
      running.push(work(item, index).finally(() => this.giveBack(bytes)));
    }
    await Promise.all(running);
  }

  /** Waits for room; resolves to whether it has it, which it has not once `signal` aborts. */
  take(bytes: number, signal: AbortSignal): Promise<boolean> {
    if (signal.aborted) return Promise.resolve(false);
    if (this.#waiters.size === 0 && this.#fits(bytes)) {
      this.#enter(bytes);
      return Promise.resolve(true);
    }
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const leave = (): void => {
      this.#waiters.delete(waiter);
      resolve(false);
      this.#admit();
    };
    const waiter: Waiter = {
      bytes,
      start: () => {
        signal.removeEventListener("abort", leave);
        resolve(true);
      },
    };
    this.#waiters.add(waiter);
    signal.addEventListener("abort", leave, { once: true });
    return promise;
  }

  /** Gives the room of one operation back. */
  giveBack(bytes: number): void {
    this.#operations--;
    this.#bytes -= bytes;
    this.#admit();
  }

  #admit(): void {
    for (const waiter of this.#waiters) {
      if (!this.#fits(waiter.bytes)) return;
      this.#waiters.delete(waiter);
      this.#enter(waiter.bytes);
      waiter.start();
    }
  }

  #enter(bytes: number): void {
    this.#operations++;
    this.#bytes += bytes;
  }

  #fits(bytes: number): boolean {
    if (this.#operations === 0) return true;
    return this.#operations < this.#maxOperations && this.#bytes + bytes <= this.#maxBytes;
  }
}
