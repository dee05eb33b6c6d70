/** Limits of an {@linkcode OperationLimiter}. */
export interface OperationLimits {
  /** Max operations at a time. */
  readonly operations: number;
  /** Max bytes in flight; a larger operation runs alone. @default {Infinity} */
  readonly bytes?: number;
}

interface QueuedOperation {
  readonly bytes: number;
  readonly start: () => void;
}

/**
 * FIFO limiter of the operations and bytes in flight, over all callers. A waiting caller whose
 * signal aborts leaves the queue at once.
 */
export class OperationLimiter {
  readonly #maxOperations: number;
  readonly #maxBytes: number;
  readonly #waiters = new Set<QueuedOperation>();
  #operations = 0;
  #bytes = 0;

  constructor({ operations, bytes = Infinity }: OperationLimits) {
    this.#maxOperations = operations;
    this.#maxBytes = bytes;
  }

  /** Number of operations in flight. */
  get operations(): number {
    return this.#operations;
  }

  /**
   * Runs `work` on every item in order, each as soon as the limits allow. Items not started when
   * `signal` aborts are skipped. `work` must not reject.
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
      if (!await this.acquire(bytes, signal)) break;
      running.push(work(item, index).finally(() => this.release(bytes)));
    }
    await Promise.all(running);
  }

  /** Waits for capacity; resolves to `false` if `signal` aborts first. */
  acquire(bytes: number, signal: AbortSignal): Promise<boolean> {
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
    const waiter: QueuedOperation = {
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

  /** Releases the capacity of one operation. */
  release(bytes: number): void {
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
