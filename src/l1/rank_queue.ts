/** An item that can be in several queues, each with a bit of its own. */
export interface Queued {
  /** Bits of the queues that contain the item; written only by the queues. */
  queues: number;
}

/** Options of {@linkcode RankQueue}. */
export interface RankQueueOptions<T> {
  /** Bit that marks the items of this queue. */
  readonly bit: number;
  /** Rank of an item. It may grow while the item is queued; it never shrinks. */
  readonly rankOf: (item: T) => number;
  /** Whether an item still belongs to the queue; items that do not are dropped. */
  readonly belongs: (item: T) => boolean;
}

/** Below this size the queue is never compacted. */
const MIN_COMPACT_SIZE = 64;

/**
 * Priority queue of items, lowest rank first: a binary heap with lazy updates. An item whose rank
 * grew, or that no longer belongs, is handled when it reaches the front, so using or leasing an
 * object costs nothing here.
 */
export class RankQueue<T extends Queued> {
  readonly #options: RankQueueOptions<T>;
  readonly #items: T[] = [];
  /** Rank of each item when it was last placed. */
  readonly #ranks: number[] = [];
  #compactSize = 0;

  /** Creates an empty queue. */
  constructor(options: RankQueueOptions<T>) {
    this.#options = options;
  }

  /** Adds an item, unless the queue already contains it. */
  add(item: T): void {
    const { bit } = this.#options;
    if ((item.queues & bit) !== 0) return;
    item.queues |= bit;
    const size = this.#items.length;
    if (size >= MIN_COMPACT_SIZE && size > 2 * this.#compactSize) this.#compact();
    this.#insert(item);
  }

  /** Item with the lowest rank. */
  first(): T | undefined {
    const { rankOf, belongs } = this.#options;
    for (;;) {
      const item = this.#items[0];
      if (item === undefined) return undefined;
      if (!belongs(item)) {
        this.#removeFirst();
        this.#forget(item);
        continue;
      }
      const rank = rankOf(item);
      if (rank === this.#ranks[0]) return item;
      this.#ranks[0] = rank;
      this.#sink(0);
    }
  }

  /**
   * Iterates in rank order. Items may be removed during the iteration; items added during it may
   * not be visited.
   */
  *inOrder(): Generator<T> {
    const passed: T[] = [];
    try {
      for (let item = this.first(); item !== undefined; item = this.first()) {
        this.#removeFirst();
        passed.push(item);
        yield item;
      }
    } finally {
      for (const item of passed) {
        if (this.#options.belongs(item)) this.#insert(item);
        else this.#forget(item);
      }
    }
  }

  #forget(item: T): void {
    item.queues &= ~this.#options.bit;
  }

  /** Drops items that no longer belong, so that the queue is at most twice as long as necessary. */
  #compact(): void {
    const items = this.#items.splice(0);
    this.#ranks.length = 0;
    for (const item of items) {
      if (this.#options.belongs(item)) this.#insert(item);
      else this.#forget(item);
    }
    this.#compactSize = this.#items.length;
  }

  #insert(item: T): void {
    const rank = this.#options.rankOf(item);
    let i = this.#items.length;
    while (i > 0) {
      const parent = (i - 1) >>> 1;
      if ((this.#ranks[parent] as number) <= rank) break;
      this.#set(i, this.#items[parent] as T, this.#ranks[parent] as number);
      i = parent;
    }
    this.#set(i, item, rank);
  }

  #removeFirst(): void {
    const item = this.#items.pop();
    const rank = this.#ranks.pop();
    if (item === undefined || rank === undefined || this.#items.length === 0) return;
    this.#set(0, item, rank);
    this.#sink(0);
  }

  #sink(from: number): void {
    const item = this.#items[from] as T;
    const rank = this.#ranks[from] as number;
    const size = this.#items.length;
    let i = from;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= size) break;
      const right = child + 1;
      if (right < size && (this.#ranks[right] as number) < (this.#ranks[child] as number)) {
        child = right;
      }
      if ((this.#ranks[child] as number) >= rank) break;
      this.#set(i, this.#items[child] as T, this.#ranks[child] as number);
      i = child;
    }
    this.#set(i, item, rank);
  }

  #set(i: number, item: T, rank: number): void {
    this.#items[i] = item;
    this.#ranks[i] = rank;
  }
}
