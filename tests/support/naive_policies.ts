// Eviction policies as lists that are searched from the start: too simple to be wrong, too slow to
// use. Each works on blocks of one size, in the calls of a simulation.

interface NaiveBlock {
  readonly block: number;
  uses: number;
  /** Number of the last use. */
  usedAt: number;
  /** Position; its meaning depends on the policy. */
  rank: number;
  isMain: boolean;
}

/** A policy: what happens to blocks, and which one leaves next. */
export interface NaivePolicy {
  readonly name: string;
  enter(blocks: NaiveBlock[], block: NaiveBlock): void;
  use(block: NaiveBlock, next: NaiveBlock | undefined, isUse: boolean): void;
  /** The block that leaves, of those that may; may move blocks. */
  victim(blocks: NaiveBlock[], mayLeave: (block: NaiveBlock) => boolean): NaiveBlock | undefined;
  left(blocks: NaiveBlock[], block: NaiveBlock): void;
}

/** A cache of equal blocks that evicts by a naive policy. */
export class NaiveCache {
  readonly #policy: NaivePolicy;
  readonly #capacity: number;
  readonly #tick: () => number;
  #blocks: NaiveBlock[] = [];

  constructor(start: (tick: () => number) => NaivePolicy, capacity: number) {
    let ticks = 0;
    this.#tick = () => ++ticks;
    this.#policy = start(this.#tick);
    this.#capacity = capacity;
  }

  /** The blocks in the cache, in ascending order. */
  get content(): number[] {
    return this.#blocks.map(({ block }) => block).sort((a, b) => a - b);
  }

  /** Matches a chain and stores the rest of it; returns the length of the prefix that was found. */
  request(chain: readonly number[]): number {
    const front = chain.findIndex((block) => !this.content.includes(block));
    const found = front < 0 ? chain : chain.slice(0, front);
    this.#touch(found, true);
    const missing = chain.filter((block) => !this.content.includes(block));
    while (this.#blocks.length + missing.length > this.#capacity) {
      const mayLeave = ({ block }: NaiveBlock): boolean => !chain.includes(block);
      const victim = this.#policy.victim(this.#blocks, mayLeave);
      if (victim === undefined) break;
      this.#blocks = this.#blocks.filter((each) => each !== victim);
      this.#policy.left(this.#blocks, victim);
    }
    const room = Math.max(0, this.#capacity - this.#blocks.length);
    for (const block of missing.slice(0, room).toReversed()) {
      const entry = { block, uses: 0, usedAt: this.#tick(), rank: 0, isMain: false };
      this.#policy.enter(this.#blocks, entry);
      this.#blocks.push(entry);
    }
    this.#touch(chain, false);
    return found.length;
  }

  #touch(chain: readonly number[], isUse: boolean): void {
    let next: NaiveBlock | undefined;
    for (const block of chain.toReversed()) {
      const entry = this.#blocks.find((each) => each.block === block);
      if (entry === undefined) continue;
      entry.usedAt = this.#tick();
      this.#policy.use(entry, next, isUse);
      next = entry;
    }
  }
}

function lowest(
  blocks: readonly NaiveBlock[],
  may: (block: NaiveBlock) => boolean,
): NaiveBlock | undefined {
  return blocks.filter(may)
    .toSorted((a, b) => a.rank - b.rank || a.usedAt - b.usedAt)[0];
}

const naiveLru = (): NaivePolicy => ({
  name: "LRU",
  enter: (_, block) => void (block.rank = block.usedAt),
  use: (block) => void (block.rank = block.usedAt),
  victim: lowest,
  left: () => {},
});

function naiveLfuAged(): NaivePolicy {
  let age = 0;
  const ghosts: { block: number; uses: number }[] = [];
  const rank = (block: NaiveBlock): void => {
    block.rank = age + (block.uses === 1 ? 0.5 : 1 + Math.log2(block.uses));
  };
  return {
    name: "LFU_AGED",
    enter(_, block) {
      const at = ghosts.findIndex((ghost) => ghost.block === block.block);
      block.uses = 1 + (at < 0 ? 0 : ghosts.splice(at, 1)[0]?.uses ?? 0);
      rank(block);
    },
    use(block, next, isUse) {
      block.uses = Math.max(block.uses + Number(isUse), next?.uses ?? 0);
      rank(block);
      block.rank = Math.max(block.rank, next?.rank ?? 0);
    },
    victim: lowest,
    left(blocks, { block, uses, rank }) {
      age = Math.max(age, rank);
      ghosts.push({ block, uses });
      while (ghosts.length > 4 * blocks.length) ghosts.shift();
    },
  };
}

function naiveS3Fifo(tick: () => number): NaivePolicy {
  let ghosts: number[] = [];
  return {
    name: "S3_FIFO",
    enter(_, block) {
      block.isMain = ghosts.includes(block.block);
      ghosts = ghosts.filter((each) => each !== block.block);
      block.rank = block.usedAt;
    },
    use: (block, _, isUse) => void (block.uses = Math.min(3, block.uses + Number(isUse))),
    victim(blocks, mayLeave) {
      for (;;) {
        const small = blocks.filter(({ isMain }) => !isMain);
        const isSmall = small.length > 0 && 10 * small.length >= blocks.length;
        const first = lowest(blocks, (block) => mayLeave(block) && block.isMain !== isSmall) ??
          lowest(blocks, mayLeave);
        if (first === undefined || first.uses === 0) return first;
        first.uses = first.isMain ? first.uses - 1 : 0;
        first.isMain = true;
        first.rank = first.usedAt = tick();
      }
    },
    left(blocks, { block, isMain }) {
      if (isMain) return;
      ghosts.push(block);
      while (ghosts.length > blocks.length) ghosts.shift();
    },
  };
}

function naiveArc(): NaivePolicy {
  let target = 0;
  let [once, again]: [number[], number[]] = [[], []];
  return {
    name: "ARC",
    enter(blocks, block) {
      const [inOnce, inAgain] = [once.includes(block.block), again.includes(block.block)];
      if (inOnce) {
        target = Math.min(blocks.length, target + Math.max(1, again.length / once.length));
      } else if (inAgain) target = Math.max(0, target - Math.max(1, once.length / again.length));
      once = once.filter((each) => each !== block.block);
      again = again.filter((each) => each !== block.block);
      block.isMain = inOnce || inAgain;
      block.rank = block.usedAt;
    },
    use(block, _, isUse) {
      block.isMain ||= isUse;
      block.rank = block.usedAt;
    },
    victim(blocks, mayLeave) {
      const first = blocks.filter(({ isMain }) => !isMain);
      const isOnce = first.length > 0 &&
        (first.length > target || first.length === blocks.length);
      return lowest(blocks, (block) => mayLeave(block) && block.isMain !== isOnce) ??
        lowest(blocks, mayLeave);
    },
    left(blocks, { block, isMain }) {
      const capacity = blocks.length + 1;
      if (isMain) again.push(block);
      else once.push(block);
      const onceMax = capacity - blocks.filter((each) => !each.isMain).length;
      while (!isMain && once.length > onceMax) once.shift();
      while (again.length > Math.max(0, capacity - once.length)) again.shift();
    },
  };
}

/** Starts each policy by name. */
export const NAIVE_POLICIES: Readonly<Record<string, (tick: () => number) => NaivePolicy>> = {
  "LRU": naiveLru,
  "LFU_AGED": naiveLfuAged,
  "S3_FIFO": naiveS3Fifo,
  "ARC": naiveArc,
};
