import { assertEquals } from "@std/assert";
import { Backoff, backoffMs } from "../../../src/base/backoff.ts";

const limits = { firstMs: 100, maxMs: 1_000 };

Deno.test("backoffMs() doubles with each attempt, up to the maximum", () => {
  const delays = [1, 2, 3, 4, 5, 6].map((attempt) => backoffMs(limits, attempt));
  assertEquals(delays, [100, 200, 400, 800, 1_000, 1_000]);
});

Deno.test("backoffMs() stays at the maximum after any number of attempts", () => {
  assertEquals(backoffMs(limits, 1_000_000), 1_000);
  assertEquals(backoffMs({ firstMs: 0, maxMs: 1_000 }, 1_000_000), 0);
  assertEquals(backoffMs({ firstMs: 5_000, maxMs: 1_000 }, 1), 1_000);
});

Deno.test("Backoff.next() doubles until reset() starts over", () => {
  const backoff = new Backoff(limits);
  assertEquals([backoff.next(), backoff.next(), backoff.next()], [100, 200, 400]);
  backoff.reset();
  assertEquals([backoff.next(), backoff.next()], [100, 200]);
});
