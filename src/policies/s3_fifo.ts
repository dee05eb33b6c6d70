import { EvictionOrder, type OrderPolicy } from "./eviction_order.ts";
import { GhostList } from "./ghost_list.ts";
import type { Place } from "./place.ts";

/** Queues: of new objects, and of those that proved useful. */
const [SMALL, MAIN] = [0, 1] as const;
/** Share of the objects that the small queue keeps. */
const SMALL_SHARE = 0.1;
/** Uses that are counted at most. */
const MAX_USES = 3;

/**
 * S3-FIFO: new objects pass through a small queue, and those used in it go to the main queue, where
 * each counted use gives an object another round. Objects that return soon after they left the
 * small queue go straight to the main queue.
 */
export const s3Fifo: OrderPolicy = { name: "S3_FIFO", start: () => new S3FifoOrder() };

class S3FifoOrder extends EvictionOrder {
  readonly #ghosts = new GhostList();

  override nextQueue([small, main]: readonly [number, number]): 0 | 1 {
    const [smallSize, mainSize] = [this.sizes[SMALL] - small, this.sizes[MAIN] - main];
    return smallSize > 0 && smallSize >= SMALL_SHARE * (smallSize + mainSize) ? SMALL : MAIN;
  }

  protected entered(place: Place, id: string): void {
    place.queue = this.#ghosts.take(id) === undefined ? SMALL : MAIN;
    place.rank = place.usedAt;
    place.uses = 0;
  }

  protected used(place: Place, _next: Place | undefined, isUse: boolean): void {
    if (isUse) place.uses = Math.min(MAX_USES, place.uses + 1);
  }

  protected override spared(place: Place): boolean {
    if (place.uses === 0) return false;
    place.uses = place.queue === SMALL ? 0 : place.uses - 1;
    place.queue = MAIN;
    place.rank = place.usedAt = this.tick();
    return true;
  }

  protected override left(place: Place, id: string, isEvicted: boolean): void {
    if (isEvicted && place.queue === SMALL) this.#ghosts.add(id, 0, this.size);
  }
}
