import type { EvictionOrder } from "./eviction_order.ts";
import type { Place } from "./place.ts";
import { RankQueue } from "./rank_queue.ts";

/** Objects of an {@linkcode EvictionOrder} that have something in common, such as their salt. */
export class VictimQueue<Item extends Place> {
  readonly #queues: readonly [RankQueue<Item>, RankQueue<Item>];

  /**
   * @param bit The first of two bits that mark the objects of this queue.
   * @param belongs Whether an object still belongs here; others are dropped when they are visited.
   */
  constructor(bit: number, belongs: (item: Item) => boolean) {
    const queue = (index: 0 | 1): RankQueue<Item> =>
      new RankQueue({
        bit: bit << index,
        rankOf: ({ rank }) => rank,
        tieOf: ({ usedAt }) => usedAt,
        belongs: (item) => item.queue === index && belongs(item),
      });
    this.#queues = [queue(0), queue(1)];
  }

  /** Adds an object, unless it is in its queue already. To be called whenever that changes. */
  add(item: Item): void {
    this.#queues[item.queue].add(item);
  }

  /** The queue with a number. */
  at(index: 0 | 1): RankQueue<Item> {
    return this.#queues[index];
  }
}

/**
 * Iterates over the objects of queues in the order in which they leave. They may be removed during
 * the iteration; objects added during it may not be visited.
 *
 * @param requeue Called with each object that was spared: adds it to all its queues.
 */
export function* victims<Item extends Place>(
  order: EvictionOrder,
  queues: readonly VictimQueue<Item>[],
  requeue: (item: Item) => void,
): Generator<Item> {
  const taken: [number, number] = [0, 0];
  const passed: { readonly item: Item; readonly from: RankQueue<Item> }[] = [];
  try {
    for (;;) {
      const preferred = order.nextQueue(taken);
      const from = firstOf(queues, preferred) ?? firstOf(queues, preferred === 0 ? 1 : 0);
      const item = from?.first();
      if (from === undefined || item === undefined) return;
      if (order.spares(item)) {
        requeue(item);
        continue;
      }
      const { queue } = item;
      from.takeFirst();
      passed.push({ item, from });
      taken[queue]++;
      yield item;
      // The order has counted its removal.
      if (!item.isPlaced) taken[queue]--;
    }
  } finally {
    for (const { item, from } of passed) from.putBack(item);
  }
}

/** Of the queues with a number, the one whose first object leaves before those of the others. */
function firstOf<Item extends Place>(
  queues: readonly VictimQueue<Item>[],
  index: 0 | 1,
): RankQueue<Item> | undefined {
  let best: RankQueue<Item> | undefined;
  let lowest: Item | undefined;
  for (const each of queues) {
    const queue = each.at(index);
    const first = queue.first();
    if (first === undefined || (lowest !== undefined && !leavesBefore(first, lowest))) continue;
    best = queue;
    lowest = first;
  }
  return best;
}

function leavesBefore(a: Place, b: Place): boolean {
  return a.rank < b.rank || (a.rank === b.rank && a.usedAt < b.usedAt);
}
