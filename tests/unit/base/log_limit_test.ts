import { assertEquals } from "@std/assert";
import { LogLimit } from "../../../src/base/log_limit.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";

Deno.test("LogLimit lets a few lines through, and tells how many it left out", async () => {
  const clock = new ManualClock();
  const limit = new LogLimit(clock);
  const told: number[] = [];
  const write = (lines: number): number =>
    Array.from({ length: lines }, () => limit.allows((leftOut) => told.push(leftOut)))
      .filter(Boolean).length;
  assertEquals([write(25), told], [10, []]);
  await clock.advance(9_999);
  assertEquals([write(1), told], [0, []]);
  await clock.advance(1);
  assertEquals([write(3), told], [3, [16]]);
  assertEquals([write(8), told], [7, [16]]);
});
