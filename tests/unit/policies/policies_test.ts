import { assert, assertEquals } from "@std/assert";
import { EVICTION_POLICIES, evictionPolicy } from "../../../src/policies/eviction_policy.ts";
import { BlockTier } from "../../../src/trace/block_tier.ts";
import { randomChains } from "../../support/chains.ts";
import * as fc from "../../support/fast_check.ts";
import { NAIVE_POLICIES, NaiveCache } from "../../support/naive_policies.ts";
import { seededRandom } from "../../support/random.ts";
import { runs } from "../../support/runs.ts";

/** The policy as a simulation uses it. */
class RealCache {
  readonly #tier: BlockTier;

  constructor(name: "LRU" | "LFU_AGED" | "S3_FIFO" | "ARC", capacity: number, blocks: number) {
    this.#tier = new BlockTier(evictionPolicy(name), capacity, blocks);
  }

  request(chain: readonly number[]): number {
    const front = chain.findIndex((block) => !this.#tier.has(block));
    const found = front < 0 ? chain : chain.slice(0, front);
    this.#tier.use(found);
    this.#tier.store(chain);
    return found.length;
  }

  contentOf(blocks: number): number[] {
    return [...Array(blocks).keys()].filter((block) => this.#tier.has(block));
  }
}

for (const { name } of EVICTION_POLICIES) {
  Deno.test(`${name} keeps what a naive model of it keeps`, () => {
    const shape = fc.record({
      requests: fc.constant(60),
      conversations: fc.integer({ min: 1, max: 8 }),
      turnBlocks: fc.integer({ min: 1, max: 4 }),
    });
    fc.assert(
      fc.property(fc.integer(), fc.integer({ min: 1, max: 40 }), shape, (seed, capacity, shape) => {
        const chains = randomChains(seededRandom(seed), shape);
        const blocks = 1 + Math.max(...chains.flat());
        const real = new RealCache(name, capacity, blocks);
        const naive = new NaiveCache(
          NAIVE_POLICIES[name] as typeof NAIVE_POLICIES[string],
          capacity,
        );
        for (const chain of chains) {
          assertEquals(real.request(chain), naive.request(chain), "length of the prefix");
          assertEquals(real.contentOf(blocks), naive.content);
        }
      }),
      runs(40),
    );
  });
}

for (const name of ["LRU", "LFU_AGED"] as const) {
  Deno.test(`${name}: a chunk never leaves before what follows it in a chain`, () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer({ min: 1, max: 40 }), (seed, capacity) => {
        const shape = { requests: 80, conversations: 6, turnBlocks: 3 };
        const chains = randomChains(seededRandom(seed), shape);
        const cache = new RealCache(name, capacity, 1 + Math.max(...chains.flat()));
        for (const chain of chains) {
          cache.request(chain);
          const left = new Set(cache.contentOf(1 + Math.max(...chains.flat())));
          for (const each of chains) {
            const front = each.findIndex((block) => !left.has(block));
            assert(front < 0 || each.slice(front).every((block) => !left.has(block)));
          }
        }
      }),
      runs(20),
    );
  });
}

/** Blocks left after requests for single blocks, in a cache of four. */
function left(name: "LRU" | "LFU_AGED" | "S3_FIFO" | "ARC", requests: string): string {
  const letters = [..."abcdefghijklmnopqrstuvwxyz"];
  const cache = new RealCache(name, 4, letters.length);
  for (const letter of requests) cache.request([letters.indexOf(letter)]);
  return cache.contentOf(letters.length).map((block) => letters[block]).join("");
}

Deno.test("policies: examples by hand", () => {
  // Four new blocks; a is used again, then two more come.
  assertEquals(left("LRU", "abcdaef"), "adef");
  // a was used three times, long ago: it stays as long as the age has not caught up with it.
  assertEquals(left("LFU_AGED", "aaabcdefg"), "aefg");
  // Five rounds of new blocks raise the age by a half each.
  assertEquals(left("LFU_AGED", "aaa" + "bcdefghijklmnopqrstuvw"), "tuvw");
  // Of two that returned, the memory of uses before the eviction keeps b.
  assertEquals(left("LFU_AGED", "bbbcdefghijklmnopqrstuvwbxyz"), "bxyz");
  // The small queue lets new blocks pass by, and what was used in it goes to the main one.
  assertEquals(left("S3_FIFO", "aabcdefg"), "aefg");
  // b left the small queue, returned, and is in the main queue from then on.
  assertEquals(left("S3_FIFO", "abcdebfgh"), "bfgh");
  // a was used again: all others come from those used once.
  assertEquals(left("ARC", "aabcdefg"), "aefg");
});

Deno.test("policies: what they remember of evicted objects is bounded", () => {
  for (const policy of EVICTION_POLICIES) {
    const tier = new BlockTier(policy, 10, 5_000);
    for (let block = 0; block < 5_000; block++) tier.store([block]);
    // A block that left long ago is as new as any other: it leaves before one that was used.
    tier.use([4_999]);
    tier.store([0]);
    for (let block = 1; block <= 10; block++) tier.store([block]);
    assert(!tier.has(0), policy.name);
  }
});
