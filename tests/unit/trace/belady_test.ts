import { assert, assertEquals } from "@std/assert";
import { EVICTION_POLICIES } from "../../../src/policies/eviction_policy.ts";
import { beladyHits } from "../../../src/trace/belady.ts";
import { simulate } from "../../../src/trace/simulation.ts";
import { Trace } from "../../../src/trace/trace_file.ts";
import { randomChains } from "../../support/chains.ts";
import * as fc from "../../support/fast_check.ts";
import { seededRandom } from "../../support/random.ts";
import { runs } from "../../support/runs.ts";

function traceOf(chains: readonly (readonly number[])[]): Trace {
  const trace = new Trace();
  for (const blocks of chains) {
    trace.add({ timestamp: 0, inputTokens: blocks.length, outputTokens: 1, blocks });
  }
  return trace;
}

/** The most blocks of prefixes that any choice of what to keep after each request can serve. */
function mostHits(chains: readonly (readonly number[])[], capacity: number): number {
  const known = new Map<string, number>();
  const best = (at: number, kept: readonly number[]): number => {
    const chain = chains[at];
    if (chain === undefined) return 0;
    const id = `${at}:${kept.join()}`;
    const before = known.get(id);
    if (before !== undefined) return before;
    const front = chain.findIndex((block) => !kept.includes(block));
    const hits = front < 0 ? chain.length : front;
    const candidates = [...new Set([...kept, ...chain])].sort((a, b) => a - b);
    let most = 0;
    for (const choice of subsets(candidates, capacity)) most = Math.max(most, best(at + 1, choice));
    known.set(id, hits + most);
    return hits + most;
  };
  return best(0, []);
}

function* subsets(items: readonly number[], max: number, from = 0): Generator<number[]> {
  yield [];
  if (max === 0) return;
  for (let i = from; i < items.length; i++) {
    for (const rest of subsets(items, max - 1, i + 1)) yield [items[i] as number, ...rest];
  }
}

Deno.test("Belady's bound is what the best choice of all reaches", () => {
  fc.assert(
    fc.property(fc.integer(), fc.integer({ min: 0, max: 3 }), (seed, capacity) => {
      const shape = { requests: 6, conversations: 2, turnBlocks: 1 };
      const chains = randomChains(seededRandom(seed), shape).map((chain) => chain.slice(0, 4));
      assertEquals(beladyHits(traceOf(chains), capacity), mostHits(chains, capacity));
    }),
    runs(30),
  );
});

Deno.test("no policy hits more than Belady's bound, and with room for all each reaches it", () => {
  fc.assert(
    fc.property(fc.integer(), fc.integer({ min: 1, max: 60 }), (seed, capacity) => {
      const shape = { requests: 60, conversations: 5, turnBlocks: 3 };
      const trace = traceOf(randomChains(seededRandom(seed), shape));
      const all = trace.uniqueBlocks;
      for (const policy of EVICTION_POLICIES) {
        const { hits, blocks } = simulate(trace, policy, capacity);
        assert(hits <= beladyHits(trace, capacity), `${policy.name}: ${hits} of ${blocks}`);
        assertEquals(simulate(trace, policy, all).hits, beladyHits(trace, all), policy.name);
      }
    }),
    runs(20),
  );
});
