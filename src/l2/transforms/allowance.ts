interface LimiterWaiter {
  readonly amount: number;
  readonly answer: (isTaken: boolean) => void;
}

/** A bounded amount of something that many share: first come, first served. */
export class Limiter {
  readonly #capacity: number;
  readonly #waiters = new Set<LimiterWaiter>();
  #used = 0;

  /** All of it is there. */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** How much is taken. */
  get used(): number {
    return this.#used;
  }

  /**
   * Takes some of it, when it is there; who asks for more than there is at all gets it alone.
   *
   * @returns Whether it was taken: not if `signal` aborts before.
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

  /** Gives back what was taken. */
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
