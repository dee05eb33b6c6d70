import type { EvictionOrder, OrderPolicy } from "../policies/eviction_order.ts";
import { Place } from "../policies/place.ts";
import { VictimQueue, victims } from "../policies/victim_queue.ts";

/** A block in a tier. */
class PlacedBlock extends Place {
  readonly block: number;
  /** Number of the request that must not evict it. */
  heldBy = -1;
  /** Whether it was hit since it was written. */
  wasHit = false;

  constructor(block: number) {
    super();
    this.block = block;
  }
}

/** Blocks of equal size that fill a tier up to a capacity, in the order of a real policy. */
export class BlockTier {
  /** Blocks that were written. */
  written = 0;
  /** Written blocks that were hit before they left. */
  usefulWrites = 0;
  readonly #capacity: number;
  readonly #order: EvictionOrder;
  readonly #queue = new VictimQueue<PlacedBlock>(
    1,
    ({ isPlaced, heldBy }) => isPlaced && heldBy !== this.#holder,
  );
  readonly #places: (PlacedBlock | undefined)[];
  #requests = 0;
  /** Number of the request that holds blocks now. */
  #holder = 0;

  /** @param uniqueBlocks Number of blocks that there are; each is a number below it. */
  constructor(policy: OrderPolicy, capacity: number, uniqueBlocks: number) {
    this.#capacity = capacity;
    this.#order = policy.start();
    this.#places = new Array<PlacedBlock | undefined>(uniqueBlocks).fill(undefined);
  }

  /** Whether a block is here. */
  has(block: number): boolean {
    return this.#places[block] !== undefined;
  }

  /** Records a hit on those blocks of a chain that are here. */
  use(chain: readonly number[]): void {
    this.#record(chain, true);
  }

  /** Stores the blocks of a chain that are missing, as many from its front as there is room for. */
  store(chain: readonly number[]): void {
    const request = this.#holder = ++this.#requests;
    let missing = 0;
    for (const block of chain) {
      const place = this.#places[block];
      if (place === undefined) missing++;
      else place.heldBy = request;
    }
    let room = this.#capacity - this.#order.size;
    if (room < missing) room += this.#evict(missing - room);
    this.#holder = 0;
    const stored = chain.filter((block) => !this.has(block)).slice(0, room);
    for (let i = stored.length - 1; i >= 0; i--) {
      const place = new PlacedBlock(stored[i] as number);
      this.#places[place.block] = place;
      this.#order.enter(place, String(place.block));
      this.#queue.add(place);
    }
    this.written += stored.length;
    this.#record(chain, false);
  }

  #record(chain: readonly number[], isUse: boolean): void {
    let next: PlacedBlock | undefined;
    for (let i = chain.length - 1; i >= 0; i--) {
      const place = this.#places[chain[i] as number];
      if (place === undefined) continue;
      if (isUse && !place.wasHit) {
        place.wasHit = true;
        this.usefulWrites++;
      }
      this.#order.use(place, next, isUse);
      this.#queue.add(place);
      next = place;
    }
  }

  /** Evicts blocks that are not held; returns how many. */
  #evict(count: number): number {
    let evicted = 0;
    for (const place of victims(this.#order, [this.#queue], (spared) => this.#queue.add(spared))) {
      this.#places[place.block] = undefined;
      this.#order.leave(place, String(place.block), true);
      if (++evicted === count) break;
    }
    return evicted;
  }
}
