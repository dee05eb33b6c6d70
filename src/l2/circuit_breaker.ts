import type { Clock } from "../runtime/clock.ts";

/** Whether calls are let through: all, none, or one to see whether they work again. */
export type CircuitState = "closed" | "open" | "half-open";

/** When a circuit opens, and for how long. */
export interface BreakerOptions {
  /** Failures in a row after which it opens. @default {3} */
  readonly failures: number;
  /** How long it stays open, in milliseconds; each failed probe doubles that. @default {5000} */
  readonly coolDownMs: number;
  /** Longest time that it stays open, in milliseconds. @default {300000} */
  readonly maxCoolDownMs: number;
}

/** How a {@linkcode CircuitBreaker} is set up. */
export interface CircuitBreakerOptions extends Partial<BreakerOptions> {
  /** Source of time. */
  readonly clock: Clock;
  /** Told when it opens, a probe that failed included, and when it closes. */
  readonly onChange?: (state: "open" | "closed") => void;
}

/**
 * Leaves alone what fails: after some failures in a row it opens and lets nothing through; when the
 * cool-down is over, one call is the probe whose outcome closes it or opens it for longer. It has
 * no timers. After M. Nygard, "Release It!".
 */
export class CircuitBreaker {
  readonly #clock: Clock;
  readonly #failures: number;
  readonly #firstCoolDownMs: number;
  readonly #maxCoolDownMs: number;
  readonly #onChange: (state: "open" | "closed") => void;
  #isClosed = true;
  #isProbing = false;
  /** Changes with the state, so that calls which began before the change count no more. */
  #epoch = 1;
  #failuresInARow = 0;
  #openCount = 0;
  #coolDownMs: number;
  #retryAt = 0;

  /** Starts closed. */
  constructor(options: CircuitBreakerOptions) {
    this.#clock = options.clock;
    this.#failures = options.failures ?? 3;
    this.#maxCoolDownMs = options.maxCoolDownMs ?? 300_000;
    this.#firstCoolDownMs = Math.min(options.coolDownMs ?? 5_000, this.#maxCoolDownMs);
    this.#coolDownMs = this.#firstCoolDownMs;
    this.#onChange = options.onChange ?? (() => {});
  }

  /** State now. */
  get state(): CircuitState {
    if (this.#isClosed) return "closed";
    return this.retryInMs > 0 ? "open" : "half-open";
  }

  /** Time until a probe is let through, in milliseconds; 0 unless it is open. */
  get retryInMs(): number {
    return this.#isClosed ? 0 : Math.max(0, this.#retryAt - this.#clock.now());
  }

  /** How often it opened, failed probes included. */
  get openCount(): number {
    return this.#openCount;
  }

  /** Failures since the last success. */
  get failuresInARow(): number {
    return this.#failuresInARow;
  }

  /** Whether {@linkcode tryEnter} would let a call through. */
  get canEnter(): boolean {
    return this.#isClosed || (!this.#isProbing && this.retryInMs === 0);
  }

  /**
   * Asks to make a call.
   *
   * @returns A pass, to be handed to one of {@linkcode success}, {@linkcode failure} and
   * {@linkcode release} when the call has ended; `undefined` if it must not be made.
   */
  tryEnter(): number | undefined {
    if (!this.canEnter) return undefined;
    if (!this.#isClosed) {
      this.#isProbing = true;
      this.#epoch++;
    }
    return this.#epoch;
  }

  /** The call worked. */
  success(pass: number): void {
    if (pass !== this.#epoch) return;
    this.#failuresInARow = 0;
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#isProbing = false;
    this.#epoch++;
    this.#coolDownMs = this.#firstCoolDownMs;
    this.#onChange("closed");
  }

  /** The call failed; `trip` opens the circuit however few failures there were before. */
  failure(pass: number, options: { trip?: boolean } = {}): void {
    if (pass !== this.#epoch) return;
    this.#failuresInARow++;
    if (this.#isClosed && !options.trip && this.#failuresInARow < this.#failures) return;
    if (!this.#isClosed) this.#coolDownMs = Math.min(2 * this.#coolDownMs, this.#maxCoolDownMs);
    this.#isClosed = false;
    this.#isProbing = false;
    this.#epoch++;
    this.#openCount++;
    this.#retryAt = this.#clock.now() + this.#coolDownMs;
    this.#onChange("open");
  }

  /** The call said nothing about whether calls work; if it was the probe, another may be. */
  release(pass: number): void {
    if (pass !== this.#epoch || this.#isClosed) return;
    this.#isProbing = false;
    this.#epoch++;
  }
}
