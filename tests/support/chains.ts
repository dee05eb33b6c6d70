import type { SeededRandom } from "./random.ts";

/** What a trace of chains looks like. */
export interface ChainShape {
  readonly requests: number;
  /** Conversations that go on at a time. */
  readonly conversations: number;
  /** Most blocks that a turn adds. */
  readonly turnBlocks: number;
}

/**
 * Chains of blocks as conversations ask for them: all begin with the same block, each turn repeats
 * the turns before it and adds some blocks, and now and then a conversation ends.
 */
export function randomChains(random: SeededRandom, shape: ChainShape): number[][] {
  let blocks = 1;
  const open: number[][] = Array.from({ length: shape.conversations }, () => [0]);
  return Array.from({ length: shape.requests }, () => {
    const at = random.below(open.length);
    const added = 1 + random.below(shape.turnBlocks);
    const chain = [...open[at] ?? [], ...Array.from({ length: added }, () => blocks++)];
    open[at] = random.chance(0.2) ? [0] : chain;
    return chain;
  });
}
