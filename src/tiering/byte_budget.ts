interface ByteWaiter {
  readonly bytes: number;
  readonly grant: () => void;
}

/**
 * FIFO limiter of bytes in use. A request above the limit is granted only when nothing else is in
 * use, so it cannot starve.
 */
export class ByteLimiter {
  readonly #waiters = new Set<ByteWaiter>();
  readonly #limit: () => number;
  #used = 0;

  /** Creates a limiter whose limit may change at any time. */
  constructor(limit: () => number) {
    this.#limit = limit;
  }

  get used(): number {
    return this.#used;
  }

  /**
   * Waits for `bytes` to become available.
   *
   * @returns Whether they were acquired; `false` if `signal` aborted first.
   */
  acquire(bytes: number, signal?: AbortSignal): Promise<boolean> {
    if (signal?.aborted) return Promise.resolve(false);
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const giveUp = (): void => {
      this.#waiters.delete(waiter);
      resolve(false);
      // Requests behind it may be smaller.
      this.#serve();
    };
    const grant = (): void => {
      signal?.removeEventListener("abort", giveUp);
      this.#used += bytes;
      resolve(true);
    };
    const waiter = { bytes, grant };
    this.#waiters.add(waiter);
    signal?.addEventListener("abort", giveUp, { once: true });
    this.#serve();
    return promise;
  }

  release(bytes: number): void {
    this.#used -= bytes;
    this.#serve();
  }

  #serve(): void {
    for (const waiter of this.#waiters) {
      if (this.#used > 0 && this.#used + waiter.bytes > this.#limit()) return;
      this.#waiters.delete(waiter);
      waiter.grant();
    }
  }
}
