interface ByteWaiter {
  readonly bytes: number;
  readonly grant: () => void;
}

/**
 * Bytes that may be in use at a time; who finds too few waits, first come first served. More than
 * all of them are granted when nobody has any, so that nothing is too large for ever.
 */
export class ByteLimiter {
  readonly #waiters = new Set<ByteWaiter>();
  readonly #limit: () => number;
  #used = 0;

  /** A budget whose limit may change while it is in use. */
  constructor(limit: () => number) {
    this.#limit = limit;
  }

  /** Bytes in use. */
  get used(): number {
    return this.#used;
  }

  /** Takes bytes, as soon as there are as many; says whether that was before `signal` aborted. */
  acquire(bytes: number, signal?: AbortSignal): Promise<boolean> {
    if (signal?.aborted) return Promise.resolve(false);
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const giveUp = (): void => {
      this.#waiters.delete(waiter);
      resolve(false);
      // Those behind it may need less.
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

  /** Gives bytes back. */
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
