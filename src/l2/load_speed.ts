import type { Clock } from "../runtime/clock.ts";

/** Weight of the newest measurement. */
const WEIGHT = 1 / 4;
/** After this time without a measurement nothing is known any more. */
const RECENT_MS = 60_000;
/** Least duration of a call: clocks are coarse, and a speed is a number. */
const MIN_MS = 1e-3;
const DEFAULT_LATENCY_MS = 1;
const DEFAULT_BYTES_PER_MS = 1e5;

/**
 * How fast an adapter answers and loads, as exponentially weighted moving averages of what it did
 * lately.
 */
export class LoadSpeed {
  readonly #clock: Clock;
  #lookupMs = 0;
  #lookupAt = -Infinity;
  #loadMs = 0;
  #loadBytes = 0;
  #loadAt = -Infinity;

  /** Nothing is known yet. */
  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Time of a lookup, in milliseconds, if known. */
  get lookupMs(): number | undefined {
    return this.#isRecent(this.#lookupAt) ? this.#lookupMs : undefined;
  }

  /** Bytes loaded in a millisecond of one call, if known. */
  get bytesPerMs(): number | undefined {
    const isKnown = this.#isRecent(this.#loadAt) && this.#loadBytes > 0;
    return isKnown ? this.#loadBytes / this.#loadMs : undefined;
  }

  /** Expected time of a load, in milliseconds; what is not known is taken for fast. */
  estimateMs(bytes: number): number {
    const latencyMs = this.lookupMs ?? DEFAULT_LATENCY_MS;
    return latencyMs + bytes / (this.bytesPerMs ?? DEFAULT_BYTES_PER_MS);
  }

  /** Notes how long a lookup took. */
  addLookup(ms: number): void {
    const weight = this.#isRecent(this.#lookupAt) ? WEIGHT : 1;
    this.#lookupMs += weight * (ms - this.#lookupMs);
    this.#lookupAt = this.#clock.now();
  }

  /** Notes how long a load took, and the bytes that it moved. */
  addLoad(ms: number, bytes: number): void {
    const weight = this.#isRecent(this.#loadAt) ? WEIGHT : 1;
    this.#loadMs += weight * (Math.max(ms, MIN_MS) - this.#loadMs);
    this.#loadBytes += weight * (bytes - this.#loadBytes);
    this.#loadAt = this.#clock.now();
  }

  #isRecent(at: number): boolean {
    return this.#clock.now() - at <= RECENT_MS;
  }
}
