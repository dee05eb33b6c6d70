import { EvictionOrder, type OrderPolicy } from "./eviction_order.ts";
import { GhostList } from "./ghost_list.ts";
import type { Place } from "./place.ts";

/** Queues: of objects used once, and of those used again. */
const [ONCE, AGAIN] = [0, 1] as const;

/**
 * Adaptive replacement (ARC): balances the objects used once against those used again, by the
 * evicted objects of either kind that return. Each kind leaves in order of its last use.
 */
export const arc: OrderPolicy = { name: "ARC", start: () => new ArcOrder() };

class ArcOrder extends EvictionOrder {
  readonly #onceGhosts = new GhostList();
  readonly #againGhosts = new GhostList();
  /** Number of objects that the queue of those used once should have. */
  #target = 0;

  override nextQueue([once, again]: readonly [number, number]): 0 | 1 {
    const onceSize = this.sizes[ONCE] - once;
    const isExcess = onceSize > this.#target || this.sizes[AGAIN] === again;
    return onceSize > 0 && isExcess ? ONCE : AGAIN;
  }

  protected entered(place: Place, id: string): void {
    const [once, again] = [this.#onceGhosts.size, this.#againGhosts.size];
    const wasOnce = this.#onceGhosts.take(id) !== undefined;
    const wasAgain = this.#againGhosts.take(id) !== undefined;
    if (wasOnce) this.#target = Math.min(this.size, this.#target + Math.max(1, again / once));
    else if (wasAgain) this.#target = Math.max(0, this.#target - Math.max(1, once / again));
    place.queue = wasOnce || wasAgain ? AGAIN : ONCE;
    place.rank = place.usedAt;
  }

  protected used(place: Place, _next: Place | undefined, isUse: boolean): void {
    if (isUse) place.queue = AGAIN;
    place.rank = place.usedAt;
  }

  protected override left(place: Place, id: string, isEvicted: boolean): void {
    if (!isEvicted) return;
    const capacity = this.size + 1;
    if (place.queue === ONCE) {
      this.#onceGhosts.add(id, 0, Math.max(0, capacity - this.sizes[ONCE]));
    } else this.#againGhosts.add(id, 0, capacity);
    // Together they remember as many objects as the store has.
    this.#againGhosts.trim(Math.max(0, capacity - this.#onceGhosts.size));
  }
}
