/** How long an engine took to compute tokens. */
export interface PrefillReport {
  /** Number of tokens computed. */
  readonly tokens: number;
  /** Time in milliseconds. */
  readonly ms: number;
  /** Index of the first of them in the prompt. @default {0} */
  readonly position?: number;
}

/** Weight of the past when a report arrives: some ten reports count. */
const MEMORY = 0.9;
/** A report counts with at most this many times the estimate, and at least its inverse. */
const MAX_DEVIATION = 4;
/** Positions must vary by this share of their mean to tell how the time grows with them. */
const MIN_SPREAD = 0.25;

/**
 * Estimates how long an engine takes to compute tokens: a time per token, which grows linearly with
 * the position of the token, because attention looks back at all tokens before it. Both are fitted to
 * the reports by least squares.
 */
export class PrefillRate {
  /** Sums of weights, positions, their squares, times per token, and times by positions. */
  #weight = 0;
  #position = 0;
  #square = 0;
  #time = 0;
  #product = 0;
  readonly #toldMsPerToken: number | undefined;

  /** @param msPerToken Time of a token in milliseconds until there is a report. */
  constructor(msPerToken?: number) {
    this.#toldMsPerToken = msPerToken;
  }

  /** Takes a report into account. One of 0 ms, by a clock that is coarse or stands still, is not. */
  add({ tokens, ms, position = 0 }: PrefillReport): void {
    if (ms === 0) return;
    const end = position + tokens;
    const estimate = this.#weight === 0 ? undefined : this.ms(position, end);
    const likely = estimate === undefined || estimate === 0
      ? ms
      : Math.min(Math.max(ms, estimate / MAX_DEVIATION), estimate * MAX_DEVIATION);
    const middle = (position + end) / 2;
    const perToken = likely / tokens;
    this.#weight = this.#weight * MEMORY + tokens;
    this.#position = this.#position * MEMORY + tokens * middle;
    this.#square = this.#square * MEMORY + tokens * middle * middle;
    this.#time = this.#time * MEMORY + tokens * perToken;
    this.#product = this.#product * MEMORY + tokens * perToken * middle;
  }

  /** Estimated time in milliseconds to compute the tokens from an index to another. */
  ms(from: number, end: number): number | undefined {
    const tokens = Math.max(0, end - from);
    if (this.#weight === 0) {
      return this.#toldMsPerToken === undefined ? undefined : this.#toldMsPerToken * tokens;
    }
    const { first, growth } = this.#fit();
    return tokens * (first + growth * (from + end) / 2);
  }

  /** Time of a token at position 0, and by how much it grows with each position. */
  #fit(): { readonly first: number; readonly growth: number } {
    const position = this.#position / this.#weight;
    const time = this.#time / this.#weight;
    const variance = this.#square / this.#weight - position ** 2;
    if (!(variance > (MIN_SPREAD * position) ** 2)) return { first: time, growth: 0 };
    const covariance = this.#product / this.#weight - position * time;
    const growth = Math.max(0, covariance / variance);
    const first = time - growth * position;
    return first >= 0 ? { first, growth } : { first: 0, growth: time / position };
  }
}
