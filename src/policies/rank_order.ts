import { EvictionOrder } from "./eviction_order.ts";
import type { Place } from "./place.ts";

/** Order by ranks that a function computes for each use. */
export class RankOrder extends EvictionOrder {
  readonly #rank: (before: number | undefined) => number;
  #lastRank = 0;

  constructor(rank: (before: number | undefined) => number) {
    super();
    this.#rank = rank;
  }

  protected entered(place: Place): void {
    this.#place(place, undefined);
  }

  protected used(place: Place): void {
    this.#place(place, place.rank);
  }

  protected override lastRank(): number {
    return this.#lastRank;
  }

  #place(place: Place, before: number | undefined): void {
    place.rank = this.#rank(before);
    this.#lastRank = Math.max(this.#lastRank, place.rank);
  }
}
