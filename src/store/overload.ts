import type { Clock } from "../base/clock.ts";

/** A period of overload ends after this many milliseconds without a rejection. */
const PERIOD_MS = 30_000;
/** Number of rejections from which a period counts as overload. */
const MIN_REJECTIONS = 3;

/** Counts objects rejected for lack of space and detects when that persists. */
export class Overload {
  readonly #clock: Clock;
  #rejections = 0;
  #objects = 0;
  #lastAt = -Infinity;

  /** Starts without a period of overload. */
  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Objects rejected in the current period of overload; 0 if there is none. */
  get objects(): number {
    return this.#isOver || this.#rejections < MIN_REJECTIONS ? 0 : this.#objects;
  }

  /** Records objects that were rejected together. */
  note(objects: number): void {
    if (this.#isOver) [this.#rejections, this.#objects] = [0, 0];
    this.#rejections++;
    this.#objects += objects;
    this.#lastAt = this.#clock.now();
  }

  get #isOver(): boolean {
    return this.#clock.now() - this.#lastAt > PERIOD_MS;
  }
}
