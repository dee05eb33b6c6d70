import type { PrefillReport } from "../prefill_rate.ts";

/** Measures how fast a decoder computes prompts, and reports it. */
export class PrefillTimer {
  readonly #report: (report: PrefillReport) => void;
  readonly #isSynchronous: boolean;
  #isWarm = false;
  #position = 0;
  #tokens = 0;
  #ms = 0;

  /**
   * @param isSynchronous Whether a step has been computed when it returns. On a GPU, only a step
   * whose logits were read has, and the steps before it.
   */
  constructor(report: (report: PrefillReport) => void, isSynchronous: boolean) {
    this.#report = report;
    this.#isSynchronous = isSynchronous;
  }

  /** Starts a prompt whose tokens are computed from a position on. */
  start(position: number): void {
    this.#position = position;
    this.#tokens = this.#ms = 0;
  }

  /** Adds a step. */
  add(tokens: number, ms: number, hasLogits: boolean): void {
    this.#tokens += tokens;
    this.#ms += ms;
    if (!this.#isSynchronous && !hasLogits) return;
    const report = { position: this.#position, tokens: this.#tokens, ms: this.#ms };
    // The first run also compiles kernels and allocates memory.
    if (this.#isWarm) this.#report(report);
    this.#isWarm = true;
    this.start(this.#position + this.#tokens);
  }
}
