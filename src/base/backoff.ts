/** Bounds of delays that double with each attempt, in milliseconds. */
export interface BackoffLimits {
  readonly firstMs: number;
  readonly maxMs: number;
}

/** Delay after the failed attempt number `attempt`, which counts from 1, in milliseconds. */
export function backoffMs({ firstMs, maxMs }: BackoffLimits, attempt: number): number {
  // A higher power is infinite, and not a number when multiplied by 0.
  return Math.min(firstMs * 2 ** Math.min(attempt - 1, 1023), maxMs);
}

/** Delays that double with each failure in a row. */
export class Backoff {
  readonly #limits: BackoffLimits;
  #failures = 0;

  constructor(limits: BackoffLimits) {
    this.#limits = limits;
  }

  /** Delay after one more failure, in milliseconds. */
  next(): number {
    return backoffMs(this.#limits, ++this.#failures);
  }

  /** Starts over with the first delay, after a success. */
  reset(): void {
    this.#failures = 0;
  }
}
