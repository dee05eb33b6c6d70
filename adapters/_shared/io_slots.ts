/** Limits of an {@linkcode IoLimiter}. */
export interface IoLimits {
  /** Max operations at a time. */
  readonly operations: number;
  /** Max bytes in flight; a larger operation runs alone. */
  readonly bytes: number;
}

/**
 * FIFO limiter for work on many items, over all callers. Deno has 32 threads for file operations,
 * and other work needs some of them.
 */
export class IoLimiter {
  readonly #options: IoLimits;
  readonly #waiters = new Set<{ readonly bytes: number; readonly start: () => void }>();
  readonly #idleWaiters: (() => void)[] = [];
  #callers = 0;
  #operations = 0;
  #bytes = 0;

  constructor(options: IoLimits) {
    this.#options = options;
  }

  /** Number of running operations. */
  get operations(): number {
    return this.#operations;
  }

  /** Resolves when the work of all callers is done. */
  idle(): Promise<void> {
    if (this.#callers === 0) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#idleWaiters.push(resolve);
    return promise;
  }

  /**
   * Runs `work` on every item; `work` must not reject. Items not started when `signal` aborts are
   * skipped.
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
        if (!this.#tryAcquire(bytes) && !await this.#acquire(bytes, signal)) return;
        try {
          await work(item, index);
        } finally {
          this.#release(bytes);
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

  #tryAcquire(bytes: number): boolean {
    if (this.#waiters.size > 0 || !this.#hasRoom(bytes)) return false;
    this.#operations++;
    this.#bytes += bytes;
    return true;
  }

  #acquire(bytes: number, signal: AbortSignal | undefined): Promise<boolean> {
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

  #release(bytes: number): void {
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
