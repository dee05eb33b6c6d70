import { EvictionOrder, type OrderPolicy } from "./eviction_order.ts";
import { GhostList } from "./ghost_list.ts";
import type { Place } from "./place.ts";

/** Rank of an object that was not used again, above the age. */
const UNUSED = 0.5;
/** Remembered objects for each object in the store. */
const GHOSTS = 4;

/**
 * The objects with the lowest sum of frequency and age first. The frequency is the logarithm of the
 * number of uses, also of those before an eviction, as long as they are remembered. The age is the
 * rank of the last evicted object: it rises with the evictions, so that an object which is not used
 * any more leaves, however often it was used before.
 */
export const lfuAged: OrderPolicy = { name: "LFU_AGED", start: () => new LfuAgedOrder() };

class LfuAgedOrder extends EvictionOrder {
  readonly #ghosts = new GhostList();
  #age = 0;
  #lastRank = 0;

  protected entered(place: Place, id: string): void {
    this.#rank(place, (this.#ghosts.take(id) ?? 0) + 1);
  }

  protected used(place: Place, next: Place | undefined, isUse: boolean): void {
    // A chunk without its predecessors is worthless, so it never has a higher rank than they have.
    this.#rank(place, Math.max(place.uses + (isUse ? 1 : 0), next?.uses ?? 0));
    if (next !== undefined) place.rank = Math.max(place.rank, next.rank);
  }

  protected override left(place: Place, id: string, isEvicted: boolean): void {
    if (!isEvicted) return;
    this.#age = Math.max(this.#age, place.rank);
    this.#ghosts.add(id, place.uses, GHOSTS * this.size);
  }

  protected override lastRank(): number {
    return this.#lastRank;
  }

  #rank(place: Place, uses: number): void {
    place.uses = uses;
    place.rank = this.#age + (uses === 1 ? UNUSED : 1 + Math.log2(uses));
    this.#lastRank = Math.max(this.#lastRank, place.rank);
  }
}
