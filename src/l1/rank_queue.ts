/** Queues that may hold the same item need different bits. */
export interface Queued {
  /** The bits of the queues that it is in; theirs alone to change. */
  queues: number;
}

/** How a {@linkcode RankQueue} is set up. */
export interface RankQueueOptions<T> {
  /** The bit that marks its items. */
  readonly bit: number;
  /** Rank of an item; it may grow while the item is in the queue, and never shrinks. */
  readonly rankOf: (item: T) => number;
  /** Whether an item still belongs; the queue drops one that does not. */
  readonly belongs: (item: T) => boolean;
}

/** Below this size a queue is never tidied up. */
const MIN_TIDY_SIZE = 64;

/**
 * Items by rank, the lowest first: a binary heap that looks at changes as late as it can. Where an
 * item's rank grows, or the item belongs no more, nothing is done until it comes to the front, so
 * that a use or a lease of an object costs nothing here.
 */
export class RankQueue<T extends Queued> {
  readonly #options: RankQueueOptions<T>;
  readonly #items: T[] = [];
  /** The rank that each item had when it was put in its place. */
  readonly #ranks: number[] = [];
  #sizeOnceTidy = 0;

  /** Without items. */
  constructor(options: RankQueueOptions<T>) {
    this.#options = options;
  }

  /** Adds an item; nothing happens if it is in the queue already. */
  add(item: T): void {
    const { bit } = this.#options;
    if ((item.queues & bit) !== 0) return;
    item.queues |= bit;
    const size = this.#items.length;
    if (size >= MIN_TIDY_SIZE && size > 2 * this.#sizeOnceTidy) this.#tidy();
    this.#insert(item);
  }

  /** The item with the lowest rank. */
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
   * Items from the lowest rank on. Meanwhile items may be removed, and others added, which may not
   * come any more.
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

  /** Drops what belongs no more, so that the queue is at most twice as long as it need be. */
  #tidy(): void {
    const items = this.#items.splice(0);
    this.#ranks.length = 0;
    for (const item of items) {
      if (this.#options.belongs(item)) this.#insert(item);
      else this.#forget(item);
    }
    this.#sizeOnceTidy = this.#items.length;
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
