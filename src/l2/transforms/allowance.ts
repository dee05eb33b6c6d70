interface LimiterWaiter {
  readonly amount: number;
  readonly answer: (isTaken: boolean) => void;
}

/**
 * FIFO limiter of a shared amount. A request above the limit is granted only when nothing else is
 * in use, so it cannot starve.
 */
export class Limiter {
  readonly #capacity: number;
  readonly #waiters = new Set<LimiterWaiter>();
  #used = 0;

  /** Creates a limiter of `capacity`. */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get used(): number {
    return this.#used;
  }

  /**
   * Waits for `amount` to become available.
   *
   * @returns Whether it was acquired; `false` if `signal` aborted first.
   */
  acquire(amount: number, signal: AbortSignal): Promise<boolean> {
    if (signal.aborted) return Promise.resolve(false);
    if (this.#waiters.size === 0 && this.#hasRoom(amount)) {
      this.#used += amount;
      return Promise.resolve(true);
    }
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const waiter: LimiterWaiter = {
      amount,
      answer: (isTaken) => {
        this.#waiters.delete(waiter);
        signal.removeEventListener("abort", giveUp);
        resolve(isTaken);
      },
    };
    const giveUp = (): void => {
      waiter.answer(false);
      this.#serve();
    };
    signal.addEventListener("abort", giveUp, { once: true });
    this.#waiters.add(waiter);
    return promise;
  }

  release(amount: number): void {
    this.#used -= amount;
    this.#serve();
  }

  #serve(): void {
    for (const waiter of this.#waiters) {
      if (!this.#hasRoom(waiter.amount)) return;
      this.#used += waiter.amount;
      waiter.answer(true);
    }
  }

  #hasRoom(amount: number): boolean {
    return this.#used === 0 || this.#used + amount <= this.#capacity;
  }
}
