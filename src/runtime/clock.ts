/** A source of time that a test can replace, so that nothing in the cache ever waits for real. */
export interface Clock {
  /** Milliseconds since an arbitrary start; never goes backwards. */
  now(): number;
  /**
   * Calls `callback` once, after `delayMs` milliseconds, of which there may be any number.
   *
   * @returns A function that cancels the call; calling it again, or too late, does nothing.
   */
  schedule(callback: () => void, delayMs: number): () => void;
}

/** The longest time that timers of hosts can wait. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** The host's monotonic clock and timers. */
export const systemClock: Clock = {
  now: () => performance.now(),
  schedule(callback, delayMs) {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const start = (leftMs: number): void => {
      timer = leftMs <= MAX_TIMER_MS
        ? setTimeout(callback, leftMs)
        : setTimeout(() => start(leftMs - MAX_TIMER_MS), MAX_TIMER_MS);
    };
    start(delayMs);
    return () => clearTimeout(timer);
  },
};

/** Resolves after `delayMs` milliseconds of `clock`, or at once when `signal` aborts. */
export function wait(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = (): void => {
      cancel();
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const cancel = clock.schedule(done, delayMs);
    signal?.addEventListener("abort", done, { once: true });
  });
}
