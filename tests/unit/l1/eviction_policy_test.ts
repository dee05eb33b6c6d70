import { assertEquals, assertStringIncludes } from "@std/assert";
import { type EvictionPolicy, HostDevice, LruPolicy, TieredCache } from "../../../mod.ts";
import { put } from "../../support/caches.ts";
import { testKeys, testLayout } from "../../support/objects.ts";

const SIZE = 1024;
const LAYOUT = testLayout(SIZE);

/** A cache for four objects, which evicts by `eviction`. */
function open(eviction?: "LRU" | EvictionPolicy): Promise<TieredCache> {
  const l1 = { capacityBytes: 4 * SIZE, ...(eviction && { eviction }) };
  return TieredCache.open({ device: new HostDevice(), l1 });
}

/** Puts four objects, uses some of them, and puts two more; returns the numbers of those left. */
async function leftAfter(cache: TieredCache, used: readonly number[]): Promise<number[]> {
  const keys = testKeys(6);
  for (const key of keys.slice(0, 4)) put(cache, [key], LAYOUT);
  for (const n of used) {
    using _ = await cache.match(keys.slice(n, n + 1), LAYOUT);
  }
  for (const key of keys.slice(4)) put(cache, [key], LAYOUT);
  const left: number[] = [];
  for (const [n, key] of keys.entries()) {
    using hit = await cache.match([key], LAYOUT);
    if (hit.length > 0) left.push(n);
  }
  return left;
}

Deno.test("l1.eviction: the objects used least often leave first, unless a policy is given", async () => {
  const uses = [2, 2, 3, 0, 1];
  await using byDefault = await open();
  assertEquals(await leftAfter(byDefault, uses), [1, 2, 4, 5]);
  assertEquals(byDefault.reportStatus().l1.evictionPolicy, "LFU_AGED");
  for (const policy of ["LRU", new LruPolicy()] as const) {
    await using lru = await open(policy);
    assertEquals(await leftAfter(lru, uses), [0, 1, 4, 5]);
  }
  let count = 0;
  await using fifo = await open({ name: "fifo", rank: (before) => before ?? count++ });
  assertEquals(await leftAfter(fifo, uses), [2, 3, 4, 5]);
});

Deno.test("l1.eviction: a policy that counts uses keeps what is used often", async () => {
  await using cache = await open({ name: "lfu", rank: (before = 0) => before + 1 });
  assertEquals(await leftAfter(cache, [2, 2, 2, 3, 3, 0]), [0, 2, 3, 5]);
  const { l1, problems } = cache.reportStatus();
  assertEquals([l1.evictionPolicy, l1.invalidRankCount, problems], ["lfu", 0, []]);
});

const wrong: Readonly<Record<string, (before?: number) => unknown>> = {
  "is no number": () => "7",
  "is NaN": () => NaN,
  "is infinite": () => Infinity,
  "is lower than before": (before) => before === undefined ? 5 : before - 1,
  "is missing": () => undefined,
  "is an exception": () => {
    throw new Error("no rank");
  },
};

for (const [what, rank] of Object.entries(wrong)) {
  Deno.test(`l1.eviction: a rank that ${what} is counted, and changes nothing`, async () => {
    const policy = { name: "odd", rank } as EvictionPolicy;
    await using cache = await open(policy);
    assertEquals((await leftAfter(cache, [0, 1, 2, 3])).length, 4);
    const { l1, problems } = cache.reportStatus();
    assertEquals(l1.invalidRankCount >= 4, true, `${l1.invalidRankCount}`);
    assertStringIncludes(problems.join(), "the policy odd of l1.eviction answered");
  });
}
