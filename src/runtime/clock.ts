/** A source of time that a test can replace, so that nothing in the cache ever waits for real. */
export interface Clock {
  /** Milliseconds since an arbitrary start; never goes backwards. */
  now(): number;
  /**
   * Calls `callback` once, after `delayMs` milliseconds. Any number is a delay: one in the past, or
   * `NaN`, is 0.
   *
   * @returns A function that cancels the call; calling it again, or too late, does nothing.
   */
  schedule(callback: () => void, delayMs: number, options?: ScheduleOptions): () => void;
}

/** Options of {@linkcode Clock.schedule}. */
export interface ScheduleOptions {
  /**
   * The call is for work that no caller awaits, such as housekeeping: a program that has nothing
   * else to do ends without it.
   *
   * @default {false}
   */
  readonly background?: boolean;
}

/** The longest time that timers of hosts can wait. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** The host's monotonic clock and timers. */
export const systemClock: Clock = {
  now: () => performance.now(),
  schedule(callback, delayMs, { background = false } = {}) {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const start = (leftMs: number): void => {
      timer = leftMs <= MAX_TIMER_MS
        ? setTimeout(callback, leftMs)
        : setTimeout(() => start(leftMs - MAX_TIMER_MS), MAX_TIMER_MS);
      if (background) unref(timer);
    };
    // Hosts warn on stderr about delays that are negative or no number.
    start(delayMs > 0 ? delayMs : 0);
    return () => clearTimeout(timer);
  },
};

/** Lets the process end although a timer is set; browsers have none to keep. */
function unref(timer: unknown): void {
  if (isUnrefable(timer)) timer.unref();
}

function isUnrefable(timer: unknown): timer is { unref(): void } {
  return timer instanceof Object && "unref" in timer && typeof timer.unref === "function";
}

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

/** Resolves when `work` has settled or `ms` milliseconds of `clock` are over, whichever is first. */
export async function within(clock: Clock, work: Promise<unknown>, ms: number): Promise<void> {
  const over = new AbortController();
  try {
    await Promise.race([work, wait(clock, ms, over.signal)]);
  } finally {
    over.abort();
  }
}
