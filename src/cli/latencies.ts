/** Buckets for each factor of 2: quantiles are exact to 2.2 %. */
const STEPS = 32;

/** Times of any number, in memory that does not grow with it. */
export class Latencies {
  readonly #buckets = new Map<number, number>();
  #count = 0;
  #sum = 0;

  /** Adds a time in milliseconds. */
  add(ms: number): void {
    const bucket = Math.round(STEPS * Math.log2(Math.max(ms, 1e-6)));
    this.#buckets.set(bucket, (this.#buckets.get(bucket) ?? 0) + 1);
    this.#count++;
    this.#sum += ms;
  }

  /** Mean, median and 95th percentile; 0 if there are no times. */
  summary(): { mean: number; p50: number; p95: number } {
    const mean = this.#count === 0 ? 0 : this.#sum / this.#count;
    return { mean, p50: this.#quantile(0.5), p95: this.#quantile(0.95) };
  }

  #quantile(share: number): number {
    let left = Math.ceil(share * this.#count);
    for (const [bucket, count] of [...this.#buckets].sort(([a], [b]) => a - b)) {
      left -= count;
      if (left <= 0) return 2 ** (bucket / STEPS);
    }
    return 0;
  }
}
