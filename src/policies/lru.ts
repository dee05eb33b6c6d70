import { EvictionOrder, type OrderPolicy } from "./eviction_order.ts";
import type { Place } from "./place.ts";

/** The least recently used objects first; of objects used together, the tail of the chain first. */
export const lru: OrderPolicy = { name: "LRU", start: () => new LruOrder() };

class LruOrder extends EvictionOrder {
  protected entered(place: Place): void {
    place.rank = place.usedAt;
  }

  protected used(place: Place): void {
    place.rank = place.usedAt;
  }
}
