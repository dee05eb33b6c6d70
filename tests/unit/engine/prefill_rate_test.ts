import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { PrefillRate } from "../../../src/engine/prefill_rate.ts";

/** Time of an engine whose tokens take 0.4 ms at first, and twice as long at position 20,000. */
function engineMs(from: number, end: number): number {
  return (end - from) * (0.4 + 2e-5 * (from + end) / 2);
}

/** Reports prompts that were computed from a position on. */
function report(
  rate: PrefillRate,
  prompts: readonly (readonly [from: number, end: number])[],
): void {
  for (const [position, end] of prompts) {
    rate.add({ position, tokens: end - position, ms: engineMs(position, end) });
  }
}

Deno.test("nothing is known of an engine without reports, unless it was told", () => {
  assertEquals(new PrefillRate().ms(0, 100), undefined);
  assertEquals(new PrefillRate(0.5).ms(40, 100), 30);
  assertEquals(new PrefillRate(0).ms(40, 100), 0);
});

Deno.test("a report takes the place of what was told", () => {
  const rate = new PrefillRate(0.5);
  rate.add({ tokens: 100, ms: 200 });
  assertEquals(rate.ms(0, 10), 20);
});

Deno.test("the growth with the position is found where positions differ", () => {
  const rate = new PrefillRate();
  report(rate, [[0, 1000], [0, 4000], [2000, 12_000], [0, 20_000], [512, 1500]]);
  for (const [from, end] of [[0, 1000], [30_000, 32_000], [0, 100_000]] as const) {
    assertAlmostEquals(rate.ms(from, end) ?? 0, engineMs(from, end), 1);
  }
});

Deno.test("reports of like positions tell the time of a token, not how it grows", () => {
  const rate = new PrefillRate();
  report(rate, [[0, 1000], [0, 1010], [0, 990]]);
  assertAlmostEquals(rate.ms(0, 1000) ?? 0, engineMs(0, 1000), 1);
  assertAlmostEquals((rate.ms(9000, 10_000) ?? 0) / (rate.ms(0, 1000) ?? 0), 1);
});

Deno.test("times that fall with the position are no negative growth", () => {
  const rate = new PrefillRate();
  rate.add({ tokens: 1000, ms: 500 });
  rate.add({ tokens: 1000, ms: 250, position: 50_000 });
  const ms = rate.ms(0, 1000) ?? 0;
  assertEquals(rate.ms(90_000, 91_000), ms);
  assert(ms > 250 && ms < 500);
});

Deno.test("a new speed counts after a few reports, a single outlier little", () => {
  const rate = new PrefillRate();
  for (let i = 0; i < 10; i++) rate.add({ tokens: 1000, ms: 400 });
  rate.add({ tokens: 1000, ms: 1e9 });
  assert((rate.ms(0, 1000) ?? 0) < 800);
  for (let i = 0; i < 20; i++) rate.add({ tokens: 1000, ms: 4000 });
  assertAlmostEquals(rate.ms(0, 1000) ?? 0, 4000, 500);
});

Deno.test("a report of no time, by a clock that stands still, is none", () => {
  const rate = new PrefillRate();
  rate.add({ tokens: 1000, ms: 0 });
  assertEquals(rate.ms(0, 1000), undefined);
});
