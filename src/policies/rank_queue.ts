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
  /** Orders items of equal rank; must not shrink while the rank stays the same. */
  readonly tieOf?: (item: T) => number;
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
  /** Tie-break of each item when it was last placed. */
  readonly #ties: number[] = [];
  readonly #tieOf: (item: T) => number;
  #compactSize = 0;

  /** Creates an empty queue. */
  constructor(options: RankQueueOptions<T>) {
    this.#options = options;
    this.#tieOf = options.tieOf ?? (() => 0);
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
      const [rank, tie] = [rankOf(item), this.#tieOf(item)];
      if (rank === this.#ranks[0] && tie === this.#ties[0]) return item;
      this.#ranks[0] = rank;
      this.#ties[0] = tie;
      this.#sink(0);
    }
  }

  /** Takes the item with the lowest rank out, until {@linkcode putBack}. */
  takeFirst(): void {
    this.#removeFirst();
  }

  /** Puts an item back that was taken out, if it still belongs. */
  putBack(item: T): void {
    if (this.#options.belongs(item)) this.#insert(item);
    else this.#forget(item);
  }

  #forget(item: T): void {
    item.queues &= ~this.#options.bit;
  }

  /** Drops items that no longer belong, so that the queue is at most twice as long as necessary. */
  #compact(): void {
    const items = this.#items.splice(0);
    this.#ranks.length = 0;
    this.#ties.length = 0;
    for (const item of items) this.putBack(item);
    this.#compactSize = this.#items.length;
  }

  #insert(item: T): void {
    const [rank, tie] = [this.#options.rankOf(item), this.#tieOf(item)];
    let i = this.#items.length;
    while (i > 0) {
      const parent = (i - 1) >>> 1;
      if (!this.#isBelow(rank, tie, parent)) break;
      this.#copy(parent, i);
      i = parent;
    }
    this.#set(i, item, rank, tie);
  }

  #removeFirst(): void {
    const [item, rank, tie] = [this.#items.pop(), this.#ranks.pop(), this.#ties.pop()];
    if (item === undefined || rank === undefined || tie === undefined) return;
    if (this.#items.length === 0) return;
    this.#set(0, item, rank, tie);
    this.#sink(0);
  }

  #sink(from: number): void {
    const item = this.#items[from] as T;
    const [rank, tie] = [this.#ranks[from] as number, this.#ties[from] as number];
    const size = this.#items.length;
    let i = from;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= size) break;
      const right = child + 1;
      const isRight = right < size &&
        this.#isBelow(this.#ranks[right] as number, this.#ties[right] as number, child);
      if (isRight) child = right;
      if (!this.#isAbove(rank, tie, child)) break;
      this.#copy(child, i);
      i = child;
    }
    this.#set(i, item, rank, tie);
  }

  /** Whether a rank is lower than that of the item at an index. */
  #isBelow(rank: number, tie: number, index: number): boolean {
    const other = this.#ranks[index] as number;
    return rank < other || (rank === other && tie < (this.#ties[index] as number));
  }

  /** Whether a rank is higher than that of the item at an index. */
  #isAbove(rank: number, tie: number, index: number): boolean {
    const other = this.#ranks[index] as number;
    return rank > other || (rank === other && tie > (this.#ties[index] as number));
  }

  #copy(from: number, to: number): void {
    const [rank, tie] = [this.#ranks[from] as number, this.#ties[from] as number];
    this.#set(to, this.#items[from] as T, rank, tie);
  }

  #set(i: number, item: T, rank: number, tie: number): void {
    this.#items[i] = item;
    this.#ranks[i] = rank;
    this.#ties[i] = tie;
  }
}
