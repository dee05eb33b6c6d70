/** Limits of a {@linkcode Limiter}. */
export interface LimiterOptions {
  /** Max operations at a time. @default {Infinity} */
  readonly operations?: number;
  /** Max bytes in flight, or a function that returns the current maximum. @default {Infinity} */
  readonly bytes?: number | (() => number);
}

interface Waiter {
  readonly bytes: number;
  readonly grant: () => void;
}

/**
 * FIFO limiter of the operations and bytes in flight, over all callers. A request above the limit
 * is granted only when nothing else is in flight, so it cannot starve. A waiting caller whose
 * signal aborts leaves the queue at once.
 */
export class Limiter {
  readonly #maxOperations: number;
  readonly #maxBytes: () => number;
  readonly #waiters = new Set<Waiter>();
  readonly #idleWaiters = new Set<() => void>();
  #callers = 0;
  #operations = 0;
  #bytes = 0;

  constructor({ operations = Infinity, bytes = Infinity }: LimiterOptions) {
    this.#maxOperations = operations;
    this.#maxBytes = typeof bytes === "number" ? () => bytes : bytes;
  }

  /** Number of operations in flight. */
  get operations(): number {
    return this.#operations;
  }

  /** Bytes in flight. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Takes capacity for one operation if that needs no waiting; returns whether it did. */
  tryAcquire(bytes: number): boolean {
    if (this.#waiters.size > 0 || !this.#fits(bytes)) return false;
    this.#operations++;
    this.#bytes += bytes;
    return true;
  }

  /** Takes capacity for one operation; resolves to `false` if `signal` aborts first. */
  acquire(bytes: number, signal?: AbortSignal): Promise<boolean> {
    if (signal?.aborted) return Promise.resolve(false);
    if (this.tryAcquire(bytes)) return Promise.resolve(true);
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const leave = (): void => {
      this.#waiters.delete(waiter);
      resolve(false);
      // The requests behind it may need less.
      this.#admit();
    };
    const grant = (): void => {
      signal?.removeEventListener("abort", leave);
      resolve(true);
    };
    const waiter = { bytes, grant };
    this.#waiters.add(waiter);
    signal?.addEventListener("abort", leave, { once: true });
    return promise;
  }

  /** Releases the capacity of one operation. */
  release(bytes: number): void {
    this.#operations--;
    this.#bytes -= bytes;
    this.#admit();
  }

  /**
   * Runs `work` on every item, in order, each as soon as the limits allow; `work` should not reject.
   * Items not started when `signal` aborts are skipped.
   */
  async forEach<Item>(
    items: readonly Item[],
    bytesOf: (item: Item) => number,
    work: (item: Item, index: number) => Promise<void>,
    signal?: AbortSignal,
  ): Promise<void> {
    let next = 0;
    let running = 0;
    let isWaiting = false;
    let failure: { readonly error: unknown } | undefined;
    const { promise, resolve } = Promise.withResolvers<void>();
    const run = async (): Promise<void> => {
      // One runner waits for capacity at a time, so that other callers get their turn.
      while (next < items.length && !isWaiting && !signal?.aborted) {
        const item = items[next] as Item;
        const bytes = bytesOf(item);
        let hasWaited = false;
        if (!this.tryAcquire(bytes)) {
          isWaiting = hasWaited = true;
          if (!await this.acquire(bytes, signal)) next = items.length;
          isWaiting = false;
          if (next >= items.length) return;
        }
        try {
          const done = work(item, next++);
          if (hasWaited) start();
          await done;
        } finally {
          this.release(bytes);
        }
      }
    };
    const end = (): void => {
      if (--running === 0) resolve();
    };
    const start = (): void => {
      while (next < items.length && !isWaiting && running < this.#maxOperations) {
        running++;
        run().then(end, (error: unknown) => {
          failure ??= { error };
          end();
        });
      }
    };
    if (items.length === 0) return;
    this.#callers++;
    start();
    await promise;
    if (--this.#callers === 0) {
      for (const wake of this.#idleWaiters) wake();
      this.#idleWaiters.clear();
    }
    if (failure !== undefined) throw failure.error;
  }

  /** Resolves when no call of {@linkcode forEach} is in progress. */
  idle(): Promise<void> {
    if (this.#callers === 0) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#idleWaiters.add(resolve);
    return promise;
  }

  #admit(): void {
    for (const waiter of this.#waiters) {
      if (!this.#fits(waiter.bytes)) return;
      this.#operations++;
      this.#bytes += waiter.bytes;
      this.#waiters.delete(waiter);
      waiter.grant();
    }
  }

  #fits(bytes: number): boolean {
    if (this.#operations === 0) return true;
    return this.#operations < this.#maxOperations && this.#bytes + bytes <= this.#maxBytes();
  }
}
