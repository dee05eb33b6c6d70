import { MAX_TIMER_MS } from "./base/clock.ts";
import { type OptionRules, readOptions, SIGNAL } from "./base/options.ts";
import type { PrefetchOptions } from "./prefetch/prefetch_controller.ts";

/** Options of `TieredCache.flush()`. */
export interface FlushOptions {
  /** Deadline in milliseconds; if left out, only the deadlines of the adapters apply. */
  readonly deadlineMs?: number;
}

/** Options of `TieredCache.close()`. */
export interface CloseOptions {
  /**
   * Deadline in milliseconds after which the cache is closed even if adapters hang. @default
   * {10000}
   */
  readonly deadlineMs?: number;
}

const deadlineRules: OptionRules<FlushOptions> = { deadlineMs: { type: "number", minimum: 0 } };
const prefetchRules: OptionRules<PrefetchOptions> = {
  deadlineMs: { type: "number", minimum: 0 },
  signal: SIGNAL,
  computeMs: {
    type: "value",
    accepts: (value) => typeof value === "function",
    expected: "a function that returns milliseconds",
  },
};

/**
 * Validates the options of `flush()` or `close()` and returns the deadline.
 *
 * @throws {TypeError} If an option is unknown or has the wrong type.
 * @throws {RangeError} If the deadline is negative.
 */
export function readDeadline(call: string, options: FlushOptions): number | undefined {
  return readOptions(`${call}() options`, options, deadlineRules).deadlineMs;
}

/** Validates the options of a match. A deadline beyond the range of timers is left out. */
export function readPrefetchOptions(options: PrefetchOptions): PrefetchOptions {
  const { deadlineMs = Infinity, ...others } = readOptions("match options", options, prefetchRules);
  return deadlineMs > MAX_TIMER_MS ? others : { ...others, deadlineMs };
}
