import { assert, assertEquals } from "@std/assert";
import { runGate, SCENARIOS, summary, type TraceRequest } from "./gate_world.ts";
import { SimRandom } from "./sim_random.ts";

const REQUESTS = 250;

/** Requests of conversations that share a system prompt, in the shape of recorded traces. */
function conversations(seed: number): TraceRequest[] {
  const random = new SimRandom(seed);
  const open: { ids: number[] }[] = [];
  let next = 1;
  let timestamp = 0;
  const grow = (ids: readonly number[], blocks: number): number[] => {
    return [...ids, ...Array.from({ length: blocks }, () => next++)];
  };
  return Array.from({ length: REQUESTS }, (): TraceRequest => {
    timestamp += random.below(600);
    const isNew = open.length === 0 || random.chance(0.4);
    const chat = isNew ? { ids: [0] } : open[random.below(open.length)] ?? { ids: [0] };
    if (isNew) open.push(chat);
    // Most turns are short, a few bring a long document.
    chat.ids = grow(chat.ids, random.chance(0.05) ? 40 + random.below(120) : 1 + random.below(12));
    const tokens = chat.ids.length * 512 - random.below(512);
    return { timestamp, "input_length": tokens, "hash_ids": chat.ids };
  });
}

const trace = conversations(7);

for (const scenario of SCENARIOS) {
  Deno.test(`a match is never slower than computing the prompt: ${scenario.name}`, async () => {
    for (const tokensPerSecond of [2_500, 10_000]) {
      const { cached, computed, free } = await runGate(trace, scenario, { tokensPerSecond });
      const [ours, none, best] = [summary(cached), summary(computed), summary(free)];
      assert(ours.p95 <= 1.02 * none.p95, `p95 ${ours.p95}, without a cache ${none.p95}`);
      assert(ours.mean <= 1.02 * none.mean, `mean ${ours.mean}, without a cache ${none.mean}`);
      const isSlow = (ms: number, i: number): boolean => ms > 1.02 * (computed[i] ?? 0);
      assert(cached.filter(isSlow).length <= 0.05 * REQUESTS, "requests that became slower");
      if (scenario.name !== "healthy disk" || tokensPerSecond > 2_500) continue;
      const saving = (none.mean - ours.mean) / (none.mean - best.mean);
      assert(saving >= 0.85, `${saving} of what free loads save`);
    }
  });
}

Deno.test("without an estimate of computing, a slow disk makes matches slower", async () => {
  const slow = SCENARIOS.find(({ name }) => name === "disk at 1/100");
  assert(slow !== undefined);
  const { cached, computed, status } = await runGate(trace, slow, { isGated: false });
  assert(summary(cached).mean > 1.5 * summary(computed).mean);
  assertEquals(status.decisions.computedInstead, 0);
});
