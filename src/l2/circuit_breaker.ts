import { Backoff } from "../base/backoff.ts";
import type { Clock } from "../base/clock.ts";

/** State of a circuit: `closed` lets all calls through, `open` none, `half-open` a single probe. */
export type CircuitState = "closed" | "open" | "half-open";

/** When a circuit opens, and for how long. */
export interface BreakerOptions {
  /** Consecutive failures after which it opens. @default {3} */
  readonly failures: number;
  /** Cool-down in milliseconds; doubled by each failed probe. @default {5000} */
  readonly coolDownMs: number;
  /** Maximum cool-down in milliseconds. @default {300000} */
  readonly maxCoolDownMs: number;
}

/** Options of {@linkcode CircuitBreaker}. */
export interface CircuitBreakerOptions extends Partial<BreakerOptions> {
  /** Clock for cool-downs. */
  readonly clock: Clock;
  /** Called when it opens, also after a failed probe, and when it closes. */
  readonly onChange?: (state: "open" | "closed") => void;
}

/**
 * Circuit breaker: opens after consecutive failures and lets no call through until the cool-down is
 * over. Then one call is the probe: its success closes the circuit, its failure opens it for
 * longer. Uses no timers. After M. Nygard, "Release It!".
 */
export class CircuitBreaker {
  readonly #clock: Clock;
  readonly #failures: number;
  readonly #coolDown: Backoff;
  readonly #onChange: (state: "open" | "closed") => void;
  #isClosed = true;
  #isProbing = false;
  /** Incremented with each state change, so that calls that started earlier no longer count. */
  #epoch = 1;
  #failuresInARow = 0;
  #openCount = 0;
  #retryAt = 0;

  /** Creates a closed circuit. */
  constructor(options: CircuitBreakerOptions) {
    this.#clock = options.clock;
    this.#failures = options.failures ?? 3;
    this.#coolDown = new Backoff({
      firstMs: options.coolDownMs ?? 5_000,
      maxMs: options.maxCoolDownMs ?? 300_000,
    });
    this.#onChange = options.onChange ?? (() => {});
  }

  /** Current state. */
  get state(): CircuitState {
    if (this.#isClosed) return "closed";
    return this.retryInMs > 0 ? "open" : "half-open";
  }

  /** Milliseconds until a probe is let through; 0 unless it is open. */
  get retryInMs(): number {
    return this.#isClosed ? 0 : Math.max(0, this.#retryAt - this.#clock.now());
  }

  /** Number of times it opened, failed probes included. */
  get openCount(): number {
    return this.#openCount;
  }

  /** Consecutive failures since the last success. */
  get failuresInARow(): number {
    return this.#failuresInARow;
  }

  /** Whether {@linkcode tryEnter} would let a call through. */
  get canEnter(): boolean {
    return this.#isClosed || (!this.#isProbing && this.retryInMs === 0);
  }

  /**
   * Requests a call.
   *
   * @returns A pass for {@linkcode success}, {@linkcode failure} or {@linkcode release} when the
   * call has ended; `undefined` if the call is not allowed.
   */
  tryEnter(): number | undefined {
    if (!this.canEnter) return undefined;
    if (!this.#isClosed) {
      this.#isProbing = true;
      this.#epoch++;
    }
    return this.#epoch;
  }

  /** Records a successful call. */
  success(pass: number): void {
    if (pass !== this.#epoch) return;
    this.#failuresInARow = 0;
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#isProbing = false;
    this.#epoch++;
    this.#coolDown.reset();
    this.#onChange("closed");
  }

  /** Records a failed call; `trip` opens the circuit regardless of earlier failures. */
  failure(pass: number, options: { trip?: boolean } = {}): void {
    if (pass !== this.#epoch) return;
    this.#failuresInARow++;
    if (this.#isClosed && !options.trip && this.#failuresInARow < this.#failures) return;
    this.#isClosed = false;
    this.#isProbing = false;
    this.#epoch++;
    this.#openCount++;
    this.#retryAt = this.#clock.now() + this.#coolDown.next();
    this.#onChange("open");
  }

  /** Records a call without a verdict; if it was the probe, another call may be. */
  release(pass: number): void {
    if (pass !== this.#epoch || this.#isClosed) return;
    this.#isProbing = false;
    this.#epoch++;
  }
}
