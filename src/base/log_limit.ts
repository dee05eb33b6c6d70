import type { Clock } from "./clock.ts";

/** Maximum number of lines within {@linkcode WINDOW_MS}. */
const LINES = 10;
const WINDOW_MS = 10_000;

/** Limits the lines that one source of trouble writes to the log. */
export class LogLimit {
  readonly #clock: Clock;
  #windowEndsAt = -Infinity;
  #lines = 0;
  #leftOut = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Whether a line may be written: at most 10 within 10 s.
   *
   * @param tellLeftOut Called before it may, with the number of lines that could not be written
   * since the last one.
   */
  allows(tellLeftOut: (lines: number) => void): boolean {
    const now = this.#clock.now();
    if (now >= this.#windowEndsAt) {
      this.#windowEndsAt = now + WINDOW_MS;
      this.#lines = 0;
    }
    if (this.#lines >= LINES) {
      this.#leftOut++;
      return false;
    }
    this.#lines++;
    const leftOut = this.#leftOut;
    this.#leftOut = 0;
    if (leftOut > 0) tellLeftOut(leftOut);
    return true;
  }
}
