/** A source of time. Tests replace it with one that never waits in real time. */
export interface Clock {
  /** Milliseconds since an arbitrary start. Monotonic. */
  now(): number;
  /**
   * Calls `callback` once, after `delayMs` milliseconds. Negative delays and `NaN` count as 0.
   *
   * @returns A function that cancels the call. It can be called more than once.
   */
  schedule(callback: () => void, delayMs: number, options?: ScheduleOptions): () => void;
}

/** Options of {@linkcode Clock.schedule}. */
export interface ScheduleOptions {
  /**
   * Marks work that no caller awaits, such as housekeeping: the timer does not keep the process
   * alive.
   *
   * @default {false}
   */
  readonly background?: boolean;
}

/** The longest delay that `setTimeout` accepts, in milliseconds. */
export const MAX_TIMER_MS: number = 2 ** 31 - 1;

/** The host's monotonic clock and timers. */
export const systemClock: Clock = {
  now: () => performance.now(),
  schedule(callback, delayMs, { background = false } = {}) {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const start = (leftMs: number): void => {
      timer = leftMs <= MAX_TIMER_MS
        ? setTimeout(callback, leftMs)
        : setTimeout(() => start(leftMs - MAX_TIMER_MS), MAX_TIMER_MS);
      // Lets the process exit while the timer is pending. Browsers have no such method.
      if (background) (timer as { unref?(): void }).unref?.();
    };
    // Deno and Node warn on stderr about delays that are negative or NaN.
    start(delayMs > 0 ? delayMs : 0);
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

/** Signal with a time limit. Disposing it cancels the limit. */
export interface TimeLimit extends Disposable {
  readonly signal: AbortSignal;
}

/**
 * Creates a signal that aborts after `ms` milliseconds of `clock`; never if `ms` is infinite.
 *
 * @param reason Reason of the abort.
 */
export function abortAfter(clock: Clock, ms: number, reason?: unknown): TimeLimit {
  const controller = new AbortController();
  const cancel = ms === Infinity
    ? () => {}
    : clock.schedule(() => controller.abort(reason), Math.min(ms, MAX_TIMER_MS));
  return { signal: controller.signal, [Symbol.dispose]: cancel };
}

/** Resolves when `work` has settled, but after `ms` milliseconds of `clock` at the latest. */
export async function within(clock: Clock, work: Promise<unknown>, ms: number): Promise<void> {
  if (ms > MAX_TIMER_MS) return void await work;
  const over = new AbortController();
  try {
    await Promise.race([work, wait(clock, ms, over.signal)]);
  } finally {
    over.abort();
  }
}
