/**
 * Runs work on many items, bounded over all callers together: Deno has 32 threads for file
 * operations, and other work needs some. First come, first served.
 */
export class IoLimit {
  readonly #operations: number;
  readonly #waiters: (() => void)[] = [];
  #running = 0;
  #idle: PromiseWithResolvers<void> | undefined;

  /** Allows `operations` at a time. */
  constructor(operations: number) {
    this.#operations = operations;
  }

  /** Runs `work` on every item, whatever happens to others; it must not reject. */
  async forEach<Item>(
    items: readonly Item[],
    work: (item: Item, index: number) => Promise<void>,
  ): Promise<void> {
    let next = 0;
    const run = async (): Promise<void> => {
      while (next < items.length) {
        if (this.#running < this.#operations) this.#running++;
        else await this.#wait();
        try {
          const index = next++;
          if (index < items.length) await work(items[index] as Item, index);
        } finally {
          this.#leave();
        }
      }
    };
    const runners = Math.min(items.length, this.#operations);
    await Promise.all(Array.from({ length: runners }, run));
  }

  /** Resolves when nothing runs. */
  whenIdle(): Promise<void> {
    if (this.#running === 0) return Promise.resolve();
    return (this.#idle ??= Promise.withResolvers()).promise;
  }

  #wait(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiters.push(resolve);
    return promise;
  }

  #leave(): void {
    const next = this.#waiters.shift();
    if (next !== undefined) return next();
    this.#running--;
    if (this.#running > 0) return;
    this.#idle?.resolve();
    this.#idle = undefined;
  }
}
