import { assertEquals } from "@std/assert";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { EVICTION_POLICIES } from "../../../src/policies/eviction_policy.ts";
import { TieredCache } from "../../../src/tiered_cache.ts";
import { BlockTier } from "../../../src/trace/block_tier.ts";
import { put } from "../../support/caches.ts";
import { randomChains } from "../../support/chains.ts";
import { testKeys, testLayout } from "../../support/objects.ts";
import { seededRandom } from "../../support/random.ts";

const SIZE = 256;
const LAYOUT = testLayout(SIZE);
const CAPACITY = 24;

for (const policy of EVICTION_POLICIES) {
  Deno.test(`${policy.name}: L1 keeps the blocks that a simulation keeps`, async () => {
    for (const seed of [1, 2, 3]) {
      const shape = { requests: 120, conversations: 7, turnBlocks: 2 };
      const chains = randomChains(seededRandom(seed), shape)
        .map((chain) => chain.slice(0, CAPACITY));
      const blocks = 1 + Math.max(...chains.flat());
      const keys = testKeys(blocks);
      const tier = new BlockTier(policy, CAPACITY, blocks);
      await using cache = await TieredCache.open({
        device: new HostDevice(),
        l1: { capacityBytes: CAPACITY * SIZE, eviction: policy.name },
      });
      for (const chain of chains) {
        const chainKeys = chain.map((block) => keys[block] as typeof keys[number]);
        const front = chain.findIndex((block) => !tier.has(block));
        const found = front < 0 ? chain.length : front;
        tier.use(chain.slice(0, found));
        tier.store(chain);

        using hit = await cache.match(chainKeys, LAYOUT);
        assertEquals(hit.length, found);
        using _resident = cache.leaseResident(chainKeys);
        put(cache, chainKeys, LAYOUT);
        cache.touch(chainKeys, { isUse: false });
      }
    }
  });
}
