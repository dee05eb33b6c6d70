/** What a call of the operating system is made for. */
export type CallPurpose = "lookup" | "load" | "store" | "housekeeping";

/** Calls of all adapters together: Deno has 32 threads for them, and the program needs some. */
const PROCESS_CALLS = 24;
/** Calls of one adapter: two whose file systems hang leave a third adapter room. */
const ADAPTER_CALLS = 10;
/** Calls of one adapter for one purpose: none takes the share of all the others. */
const PURPOSE_CALLS: Readonly<Record<CallPurpose, number>> = {
  lookup: 8,
  load: 8,
  store: 6,
  housekeeping: 3,
};

interface Waiter {
  readonly calls: OsCalls;
  readonly purpose: CallPurpose;
  readonly start: () => void;
}

/** The calls that the adapters of one process may make at a time. */
export class OsCallPool {
  readonly #waiters = new Set<Waiter>();
  readonly #most: number;
  #running = 0;

  /** Allows `most` calls at a time. */
  constructor(most: number = PROCESS_CALLS) {
    this.#most = most;
  }

  /** Calls that have not returned. */
  get running(): number {
    return this.#running;
  }

  /** Callers that wait for their turn. */
  get waiting(): number {
    return this.#waiters.size;
  }

  /** Enters a call if there is room; callers wait only where there is none. */
  tryEnter(calls: OsCalls, purpose: CallPurpose): boolean {
    if (this.#running >= this.#most || !calls.hasRoom(purpose)) return false;
    this.#running++;
    calls.entered(purpose);
    return true;
  }

  /** Waits for room; resolves to whether there is, which is not so once `signal` aborts. */
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
    const waiter: Waiter = { calls, purpose, start };
    this.#waiters.add(waiter);
    signal?.addEventListener("abort", giveUp, { once: true });
    return promise;
  }

  /** Ends a call, and admits the first caller that has room now. */
  leave(calls: OsCalls, purpose: CallPurpose): void {
    this.#running--;
    calls.left(purpose);
    for (const waiter of this.#waiters) {
      // Those of an adapter that hangs must not keep the others waiting.
      if (!this.tryEnter(waiter.calls, waiter.purpose)) continue;
      this.#waiters.delete(waiter);
      waiter.start();
      if (this.#running >= this.#most) return;
    }
  }
}

/** The pool of this process. */
const processPool = new OsCallPool();

/**
 * The calls of the operating system that one adapter makes. Each takes one of Deno's few threads
 * until it returns; on a file system that hangs, that is never. So an adapter has a share, and
 * callers wait for their turn within it until they give up.
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

  /** Makes calls in the share of one adapter. */
  constructor(pool: OsCallPool = processPool) {
    this.#pool = pool;
  }

  /** Calls that have not returned. */
  get running(): number {
    return this.#all;
  }

  /**
   * Makes a call in its turn.
   *
   * @throws The reason of `signal`, if that aborts before it is the call's turn.
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

  /** Whether the adapter may make another call. */
  hasRoom(purpose: CallPurpose): boolean {
    return this.#all < ADAPTER_CALLS && this.#running[purpose] < PURPOSE_CALLS[purpose];
  }

  /** Counts a call that begins. */
  entered(purpose: CallPurpose): void {
    this.#all++;
    this.#running[purpose]++;
  }

  /** Counts a call that has returned. */
  left(purpose: CallPurpose): void {
    this.#all--;
    this.#running[purpose]--;
  }
}
