import type { Clock } from "../base/clock.ts";

/** Least time between two explorations, in milliseconds. */
const MIN_PAUSE_MS = 1_000;
/** An exploration is followed by a pause of at least this many times its own duration. */
const PAUSE_FACTOR = 20;
/** An exploration that takes less than this share of the estimate is followed by another at once. */
const SURPRISING_SHARE = 0.5;

/**
 * Now and then loads one chunk in the background that a request did not load, to learn whether
 * loading has become fast enough. No request waits for it.
 */
export class Explorer {
  readonly #clock: Clock;
  #isExploring = false;
  #nextAt = -Infinity;
  #count = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Number of explorations. */
  get count(): number {
    return this.#count;
  }

  /**
   * Explores, unless another exploration is in progress or was not long ago.
   *
   * @param expectedMs Estimated time of the load.
   * @param load Loads one chunk; resolves with whether it did.
   */
  async explore(expectedMs: number, load: () => Promise<boolean>): Promise<void> {
    const startedAt = this.#clock.now();
    if (this.#isExploring || startedAt < this.#nextAt) return;
    this.#isExploring = true;
    this.#count++;
    let hasLoaded = false;
    try {
      hasLoaded = await load();
    } finally {
      this.#isExploring = false;
      const now = this.#clock.now();
      const tookMs = Math.max(0, now - startedAt);
      const isSurprising = hasLoaded && tookMs < SURPRISING_SHARE * expectedMs;
      this.#nextAt = isSurprising ? now : now + Math.max(MIN_PAUSE_MS, PAUSE_FACTOR * tookMs);
    }
  }
}
