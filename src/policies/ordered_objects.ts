import type { EvictionOrder, OrderPolicy } from "./eviction_order.ts";
import type { Place } from "./place.ts";
import { VictimQueue, victims } from "./victim_queue.ts";

/** The objects of a store in the order in which a policy lets them leave. */
export class OrderedObjects<Item extends Place> implements Iterable<Item> {
  readonly #order: EvictionOrder;
  readonly #queue = new VictimQueue<Item>(1, ({ isPlaced }) => isPlaced);
  readonly #idOf: (item: Item) => string;

  /** Starts with no objects. */
  constructor(policy: OrderPolicy, idOf: (item: Item) => string) {
    this.#order = policy.start();
    this.#idOf = idOf;
  }

  /** Adds an object that was stored now. */
  add(item: Item): void {
    this.#order.enter(item, this.#idOf(item));
    this.#queue.add(item);
  }

  /** Records a use as {@linkcode EvictionOrder.use} does. */
  use(item: Item, next: Item | undefined, isUse: boolean): void {
    this.#order.use(item, next, isUse);
    if (item.isPlaced) this.#queue.add(item);
  }

  /** Removes an object. */
  remove(item: Item, isEvicted = false): void {
    this.#order.leave(item, this.#idOf(item), isEvicted);
  }

  /** Iterates in eviction order. Objects may be removed during the iteration. */
  [Symbol.iterator](): Iterator<Item> {
    return victims(this.#order, [this.#queue], (item) => this.#queue.add(item));
  }
}
