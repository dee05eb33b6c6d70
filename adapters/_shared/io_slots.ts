/** What an {@linkcode IoSlots} allows at a time. */
export interface IoSlotsOptions {
  /** Most operations. */
  readonly operations: number;
  /** Most bytes that they move; a larger operation runs alone. */
  readonly bytes: number;
}

/**
 * Runs work on many items, bounded over all callers together: Deno has 32 threads for file
 * operations, and other work needs some. First come, first served.
 */
export class IoSlots {
  readonly #options: IoSlotsOptions;
  readonly #waiters = new Set<{ readonly bytes: number; readonly start: () => void }>();
  readonly #idleWaiters: (() => void)[] = [];
  #callers = 0;
  #operations = 0;
  #bytes = 0;

  /** All slots are free. */
  constructor(options: IoSlotsOptions) {
    this.#options = options;
  }

  /** Operations that run now. */
  get operations(): number {
    return this.#operations;
  }

  /** Resolves when all work of all callers is done. */
  idle(): Promise<void> {
    if (this.#callers === 0) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#idleWaiters.push(resolve);
    return promise;
  }

  /**
   * Runs `work` on every item; it must not reject. What has not begun when `signal` aborts is left
   * out.
   */
  async forEach<Item>(
    items: readonly Item[],
    bytesOf: (item: Item) => number,
    work: (item: Item, index: number) => Promise<void>,
    signal?: AbortSignal,
  ): Promise<void> {
    let next = 0;
    const run = async (): Promise<void> => {
      for (let index = next++; index < items.length; index = next++) {
        const item = items[index] as Item;
        const bytes = bytesOf(item);
        if (!this.#tryTake(bytes) && !await this.#take(bytes, signal)) return;
        try {
          await work(item, index);
        } finally {
          this.#giveBack(bytes);
        }
      }
    };
    const runners = Math.min(items.length, this.#options.operations);
    this.#callers++;
    try {
      await Promise.all(Array.from({ length: runners }, run));
    } finally {
      if (--this.#callers === 0) { for (const wake of this.#idleWaiters.splice(0)) wake(); }
    }
  }

  #tryTake(bytes: number): boolean {
    if (this.#waiters.size > 0 || !this.#hasRoom(bytes)) return false;
    this.#operations++;
    this.#bytes += bytes;
    return true;
  }

  #take(bytes: number, signal: AbortSignal | undefined): Promise<boolean> {
    if (signal?.aborted) return Promise.resolve(false);
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const leave = (): void => {
      this.#waiters.delete(waiter);
      resolve(false);
      this.#admit();
    };
    const start = (): void => {
      signal?.removeEventListener("abort", leave);
      resolve(true);
    };
    const waiter = { bytes, start };
    this.#waiters.add(waiter);
    signal?.addEventListener("abort", leave, { once: true });
    return promise;
  }

  #giveBack(bytes: number): void {
    this.#operations--;
    this.#bytes -= bytes;
    this.#admit();
  }

  #admit(): void {
    for (const waiter of this.#waiters) {
      if (!this.#hasRoom(waiter.bytes)) return;
      this.#operations++;
      this.#bytes += waiter.bytes;
      this.#waiters.delete(waiter);
      waiter.start();
    }
  }

  #hasRoom(bytes: number): boolean {
    if (this.#operations === 0) return true;
    return this.#operations < this.#options.operations &&
      this.#bytes + bytes <= this.#options.bytes;
  }
}
