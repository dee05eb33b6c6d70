import type { Clock } from "../base/clock.ts";
import type { Bitmap } from "../keys/bitmap.ts";
import type { CallEnd } from "./adapter_calls.ts";

/** Weight of the newest measurement. */
const WEIGHT = 1 / 4;
/** Time after which a measurement is outdated, in milliseconds. */
const RECENT_MS = 60_000;
/** Minimum duration of a call in milliseconds: clocks are coarse, and a speed must be finite. */
const MIN_MS = 1e-3;
const DEFAULT_LATENCY_MS = 1;
const DEFAULT_BYTES_PER_MS = 1e5;

/**
 * Recent lookup time and load throughput of an adapter, as exponentially weighted moving averages.
 */
export class LoadSpeed {
  readonly #clock: Clock;
  #lookupMs = 0;
  #lookupAt = -Infinity;
  #loadMs = 0;
  #loadBytes = 0;
  #loadAt = -Infinity;

  /** Starts without measurements. */
  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Duration of a lookup in milliseconds, if known. */
  get lookupMs(): number | undefined {
    return this.#isRecent(this.#lookupAt) ? this.#lookupMs : undefined;
  }

  /** Load throughput of one call in bytes per millisecond, if known. */
  get bytesPerMs(): number | undefined {
    const isKnown = this.#isRecent(this.#loadAt) && this.#loadBytes > 0;
    return isKnown ? this.#loadBytes / this.#loadMs : undefined;
  }

  /** Expected duration of a load in milliseconds; an unknown adapter is assumed to be fast. */
  estimateMs(bytes: number): number {
    const latencyMs = this.lookupMs ?? DEFAULT_LATENCY_MS;
    return latencyMs + bytes / (this.bytesPerMs ?? DEFAULT_BYTES_PER_MS);
  }

  /** Records the duration of a lookup in milliseconds. */
  addLookup(ms: number): void {
    const weight = this.#isRecent(this.#lookupAt) ? WEIGHT : 1;
    this.#lookupMs += weight * (ms - this.#lookupMs);
    this.#lookupAt = this.#clock.now();
  }

  /** Records the duration of a load in milliseconds, and its bytes. */
  addLoad(ms: number, bytes: number): void {
    const weight = this.#isRecent(this.#loadAt) ? WEIGHT : 1;
    this.#loadMs += weight * (Math.max(ms, MIN_MS) - this.#loadMs);
    this.#loadBytes += weight * (bytes - this.#loadBytes);
    this.#loadAt = this.#clock.now();
  }

  /** Records how a load of objects ended. */
  addLoadCall(end: CallEnd<Bitmap>, objects: readonly { readonly byteLength: number }[]): void {
    if (end.status === "abandoned") return;
    // On a timeout, at most these bytes were moved by the deadline.
    const isTimeout = end.status === "failed" && end.isTimeout;
    const moved = end.status === "answered" ? end.value.gather(objects) : isTimeout ? objects : [];
    const bytes = moved.reduce((sum, { byteLength }) => sum + byteLength, 0);
    // An answer without objects is a miss, which says nothing about load speed.
    if (bytes > 0 || end.status === "failed") this.addLoad(end.ms, bytes);
  }

  #isRecent(at: number): boolean {
    return this.#clock.now() - at <= RECENT_MS;
  }
}
