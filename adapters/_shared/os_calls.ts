/** Purpose of a system call. */
export type CallPurpose = "lookup" | "load" | "store" | "housekeeping";

/** Max calls of all adapters: Deno has 32 threads for them, and the program needs some. */
const PROCESS_CALLS = 24;
/** Max calls of one adapter: if two adapters hang, a third still has threads. */
const ADAPTER_CALLS = 10;
/** Max calls of one adapter by purpose: no purpose can starve the others. */
const PURPOSE_CALLS: Readonly<Record<CallPurpose, number>> = {
  lookup: 8,
  load: 8,
  store: 6,
  housekeeping: 3,
};

interface QueuedCall {
  readonly calls: OsCalls;
  readonly purpose: CallPurpose;
  readonly start: () => void;
}

/** Limits the system calls that all adapters of a process make at a time. */
export class OsCallPool {
  readonly #waiters = new Set<QueuedCall>();
  readonly #maxCalls: number;
  #running = 0;

  /**
   * @param maxCalls Max calls at a time.
   */
  constructor(maxCalls: number = PROCESS_CALLS) {
    this.#maxCalls = maxCalls;
  }

  /** Number of calls that have not returned. */
  get running(): number {
    return this.#running;
  }

  /** Number of callers in the queue. */
  get waiting(): number {
    return this.#waiters.size;
  }

  /** Starts a call if the limits allow it now. */
  tryEnter(calls: OsCalls, purpose: CallPurpose): boolean {
    if (this.#running >= this.#maxCalls || !calls.hasRoom(purpose)) return false;
    this.#running++;
    calls.entered(purpose);
    return true;
  }

  /** Waits until the limits allow a call; resolves to `false` if `signal` aborts first. */
  enter(calls: OsCalls, purpose: CallPurpose, signal: AbortSignal | undefined): Promise<boolean> {
    if (signal?.aborted) return Promise.resolve(false);
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const giveUp = (): void => {
      this.#waiters.delete(waiter);
      resolve(false);
    };
    const start = (): void => {
      signal?.removeEventListener("abort", giveUp);
      resolve(true);
    };
    const waiter: QueuedCall = { calls, purpose, start };
    this.#waiters.add(waiter);
    signal?.addEventListener("abort", giveUp, { once: true });
    return promise;
  }

  /** Ends a call, and admits waiting callers. */
  leave(calls: OsCalls, purpose: CallPurpose): void {
    this.#running--;
    calls.left(purpose);
    for (const waiter of this.#waiters) {
      // Calls of a hanging adapter must not block those of the others.
      if (!this.tryEnter(waiter.calls, waiter.purpose)) continue;
      this.#waiters.delete(waiter);
      waiter.start();
      if (this.#running >= this.#maxCalls) return;
    }
  }
}

const processPool = new OsCallPool();

/**
 * The system calls of one adapter. Each occupies one of Deno's few threads until it returns, which
 * on a hanging file system is never. Each adapter therefore has a limited share, and callers queue
 * for it until they give up.
 */
export class OsCalls {
  readonly #pool: OsCallPool;
  readonly #running: Record<CallPurpose, number> = {
    lookup: 0,
    load: 0,
    store: 0,
    housekeeping: 0,
  };
  #all = 0;

  constructor(pool: OsCallPool = processPool) {
    this.#pool = pool;
  }

  /** Number of calls that have not returned. */
  get running(): number {
    return this.#all;
  }

  /**
   * Runs a call when the limits allow it.
   *
   * @throws The reason of `signal`, if it aborts before the call starts.
   */
  async run<Value>(
    purpose: CallPurpose,
    signal: AbortSignal | undefined,
    call: () => Promise<Value>,
  ): Promise<Value> {
    if (!this.#pool.tryEnter(this, purpose)) {
      if (!await this.#pool.enter(this, purpose, signal)) throw signal?.reason;
    }
    try {
      return await call();
    } finally {
      this.#pool.leave(this, purpose);
    }
  }

  /** Whether the adapter's limits allow another call. */
  hasRoom(purpose: CallPurpose): boolean {
    return this.#all < ADAPTER_CALLS && this.#running[purpose] < PURPOSE_CALLS[purpose];
  }

  /** Records the start of a call. */
  entered(purpose: CallPurpose): void {
    this.#all++;
    this.#running[purpose]++;
  }

  /** Records the end of a call. */
  left(purpose: CallPurpose): void {
    this.#all--;
    this.#running[purpose]--;
  }
}
