import { LruList, type LruPlace } from "./lru_list.ts";

/** Items by id, in order of last use; drops the least recently used one above a maximum. */
export class LruMap<Item> implements Iterable<Item> {
  readonly #idOf: (item: Item) => string;
  readonly #maxSize: number;
  readonly #order = new LruList<Item>();
  readonly #places = new Map<string, LruPlace<Item>>();

  /**
   * @param maxSize Max number of items.
   */
  constructor(idOf: (item: Item) => string, maxSize = Infinity) {
    this.#idOf = idOf;
    this.#maxSize = maxSize;
  }

  /** Number of items. */
  get size(): number {
    return this.#places.size;
  }

  /** The item with an id; this is no use of it. */
  get(id: string): Item | undefined {
    return this.#places.get(id)?.item;
  }

  /** Whether there is an item with an id. */
  has(id: string): boolean {
    return this.#places.has(id);
  }

  /** Adds an item as most recently used; replaces the one with its id. */
  put(item: Item): void {
    const id = this.#idOf(item);
    this.delete(id);
    this.#places.set(id, this.#order.add(item));
    const { oldest } = this.#order;
    if (this.size > this.#maxSize && oldest !== undefined) this.delete(this.#idOf(oldest));
  }

  /** Marks an item as most recently used; returns whether it is present. */
  renew(id: string): boolean {
    const place = this.#places.get(id);
    if (place === undefined) return false;
    this.#order.renew(place);
    return true;
  }

  /** Removes an item; returns whether it was present. */
  delete(id: string): boolean {
    const place = this.#places.get(id);
    if (place === undefined) return false;
    this.#order.remove(place);
    return this.#places.delete(id);
  }

  /**
   * Iterates from the least to the most recently used item. Items may be removed during the
   * iteration.
   */
  [Symbol.iterator](): Iterator<Item> {
    return this.#order[Symbol.iterator]();
  }
}
