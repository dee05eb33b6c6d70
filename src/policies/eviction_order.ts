import type { Place } from "./place.ts";

/** Names of the eviction policies. */
export type EvictionPolicyName = "LRU" | "LFU_AGED" | "S3_FIFO" | "ARC";

/** An eviction policy with a name: starts the order of one store. */
export interface OrderPolicy {
  readonly name: EvictionPolicyName;
  readonly start: () => EvictionOrder;
}

/**
 * Order in which the objects of one store leave it: the state of an eviction policy. It has one or
 * two queues; a policy decides where an object is placed, which queue the next victim comes from,
 * and whether an object at the front of its queue is spared. Every method takes constant time,
 * except for memory of evicted objects, which is bounded.
 */
export abstract class EvictionOrder {
  /** Number of objects in each queue. */
  protected readonly sizes: [number, number] = [0, 0];
  #uses = 0;
  #seeds = 0;

  /** Number of objects in the order. */
  get size(): number {
    return this.sizes[0] + this.sizes[1];
  }

  /** Adds an object that was stored now. */
  enter(place: Place, id: string): void {
    place.usedAt = this.tick();
    place.isPlaced = true;
    this.entered(place, id);
    this.sizes[place.queue]++;
  }

  /** Adds an object that was found in the store: it leaves before all that were used since. */
  seed(place: Place, id: string): void {
    this.enter(place, id);
    place.usedAt = place.rank = ++this.#seeds - 2 ** 52;
  }

  /**
   * Records that an object was used, stored again, or moved. Objects of a chain are recorded from
   * its tail to its head.
   *
   * @param next The object after it in the chain that was recorded just before: it leaves first.
   * @param isUse Whether this is a use, such as a hit of a lookup, rather than a store.
   */
  use(place: Place, next: Place | undefined, isUse: boolean): void {
    if (!place.isPlaced) return;
    const before = place.queue;
    place.usedAt = this.tick();
    this.used(place, next, isUse);
    this.#count(place, before);
  }

  /** Moves an object that cannot leave now behind the others of its queue. */
  postpone(place: Place): void {
    place.usedAt = this.tick();
    place.rank = Math.max(place.rank, this.lastRank());
  }

  /** Removes an object; `isEvicted` if it left because it was the next one. */
  leave(place: Place, id: string, isEvicted: boolean): void {
    if (!place.isPlaced) return;
    place.isPlaced = false;
    this.sizes[place.queue]--;
    this.left(place, id, isEvicted);
  }

  /**
   * Queue of the next victim.
   *
   * @param taken Objects of each queue that are about to leave.
   */
  nextQueue(_taken: readonly [number, number]): 0 | 1 {
    return 0;
  }

  /** Whether the object at the front of its queue stays for another round; it has moved then. */
  spares(place: Place): boolean {
    const before = place.queue;
    const isSpared = this.spared(place);
    this.#count(place, before);
    return isSpared;
  }

  /** Number of the next use. */
  protected tick(): number {
    return ++this.#uses;
  }

  /** Rank behind all others. */
  protected lastRank(): number {
    return this.#uses;
  }

  protected abstract entered(place: Place, id: string): void;

  protected abstract used(place: Place, next: Place | undefined, isUse: boolean): void;

  protected left(_place: Place, _id: string, _isEvicted: boolean): void {}

  protected spared(_place: Place): boolean {
    return false;
  }

  #count(place: Place, before: 0 | 1): void {
    if (place.queue === before) return;
    this.sizes[before]--;
    this.sizes[place.queue]++;
  }
}
