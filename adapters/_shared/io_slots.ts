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
  readonly #waiters: { readonly bytes: number; readonly start: () => void }[] = [];
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

  /** Runs `work` on every item; it must not reject. */
  async forEach<Item>(
    items: readonly Item[],
    bytesOf: (item: Item) => number,
    work: (item: Item, index: number) => Promise<void>,
  ): Promise<void> {
    let next = 0;
    const run = async (): Promise<void> => {
      for (let index = next++; index < items.length; index = next++) {
        const item = items[index] as Item;
        const bytes = bytesOf(item);
        if (!this.#tryTake(bytes)) await this.#take(bytes);
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
    if (this.#waiters.length > 0 || !this.#hasRoom(bytes)) return false;
    this.#operations++;
    this.#bytes += bytes;
    return true;
  }

  #take(bytes: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiters.push({ bytes, start: resolve });
    return promise;
  }

  #giveBack(bytes: number): void {
    this.#operations--;
    this.#bytes -= bytes;
    for (let [first] = this.#waiters; first !== undefined; [first] = this.#waiters) {
      if (!this.#hasRoom(first.bytes)) return;
      this.#operations++;
      this.#bytes += first.bytes;
      this.#waiters.shift();
      first.start();
    }
  }

  #hasRoom(bytes: number): boolean {
    if (this.#operations === 0) return true;
    return this.#operations < this.#options.operations &&
      this.#bytes + bytes <= this.#options.bytes;
  }
}
