/** Max number of buckets; more are merged in pairs. */
const MAX_BUCKETS = 65_536;

/** Where the least recently used bytes of an amount end. */
export interface UseCut {
  /** Objects used before this time are among them, in milliseconds since 1970. */
  readonly before: number;
  /** End of the bucket of which only a part is among them. */
  readonly until: number;
  /** Bytes of that part. */
  readonly bytes: number;
}

/** Bytes by time of the last use, in bounded memory. */
export class UseHistogram {
  #widthMs = 1_000;
  #buckets = new Map<number, number>();
  #bytes = 0;

  /** Bytes of all objects. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Adds an object. */
  add(usedAt: number, bytes: number): void {
    this.#bytes += bytes;
    addTo(this.#buckets, Math.floor(usedAt / this.#widthMs), bytes);
    if (this.#buckets.size <= MAX_BUCKETS) return;
    this.#widthMs *= 2;
    const merged = new Map<number, number>();
    for (const [bucket, sum] of this.#buckets) addTo(merged, Math.floor(bucket / 2), sum);
    this.#buckets = merged;
  }

  /** Finds the `bytes` that were used least recently. */
  cut(bytes: number): UseCut {
    let left = bytes;
    for (const [bucket, sum] of [...this.#buckets].sort(([a], [b]) => a - b)) {
      const before = bucket * this.#widthMs;
      if (sum >= left) return { before, until: before + this.#widthMs, bytes: left };
      left -= sum;
    }
    return { before: Infinity, until: Infinity, bytes: 0 };
  }
}

function addTo(sums: Map<number, number>, bucket: number, bytes: number): void {
  sums.set(bucket, (sums.get(bucket) ?? 0) + bytes);
}
