import type { OrderPolicy } from "../policies/eviction_order.ts";
import { BlockTier } from "./block_tier.ts";
import type { Trace } from "./trace_file.ts";

/** Outcome of a simulation, in blocks. */
export interface SimulatedHits {
  /** Blocks that requests asked for. */
  readonly blocks: number;
  /** Blocks of the served prefixes. */
  readonly hits: number;
  /** Blocks stored. */
  readonly written: number;
  /** Stored blocks that were hit at least once afterwards. */
  readonly usefulWrites: number;
}

/** Runs a policy over a trace, without bytes: each request is a match, then a put of the rest. */
export function simulate(trace: Trace, policy: OrderPolicy, capacity: number): SimulatedHits {
  const tier = new BlockTier(policy, capacity, trace.uniqueBlocks);
  let hits = 0;
  for (const { blocks } of trace.requests) {
    const missing = blocks.findIndex((block) => !tier.has(block));
    const found = missing < 0 ? blocks : blocks.slice(0, missing);
    hits += found.length;
    tier.use(found);
    tier.store(blocks);
  }
  const { written, usefulWrites } = tier;
  return { blocks: trace.blockCount, hits, written, usefulWrites };
}
