import { assertAlmostEquals, assertEquals } from "@std/assert";
import { LoadSpeed } from "../../../src/l2/load_speed.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";

Deno.test("an adapter without measurements is assumed to be fast", () => {
  const speed = new LoadSpeed(new ManualClock());
  assertEquals([speed.lookupMs, speed.bytesPerMs], [undefined, undefined]);
  assertEquals([speed.estimateMs(0), speed.estimateMs(1e6)], [1, 11]);
});

Deno.test("an estimate is the latency and the time for the bytes, the newest weighing a quarter", () => {
  const speed = new LoadSpeed(new ManualClock());
  speed.addLookup(8);
  speed.addLoad(10, 1000);
  assertEquals([speed.lookupMs, speed.bytesPerMs, speed.estimateMs(500)], [8, 100, 13]);
  speed.addLookup(4);
  speed.addLoad(30, 1000);
  assertEquals([speed.lookupMs, speed.bytesPerMs], [7, 1000 / 15]);
  assertAlmostEquals(speed.estimateMs(1000), 7 + 15);
});

Deno.test("small loads say little about large ones", () => {
  const speed = new LoadSpeed(new ManualClock());
  for (let i = 0; i < 10; i++) {
    speed.addLoad(1, 10);
    speed.addLoad(10, 1e6);
  }
  assertAlmostEquals(speed.estimateMs(1e6), 1 + 10, 2);
});

Deno.test("a load that moved nothing makes estimates worse, never better or infinite", () => {
  const speed = new LoadSpeed(new ManualClock());
  speed.addLoad(1000, 0);
  assertEquals([speed.bytesPerMs, speed.estimateMs(1e5)], [undefined, 2]);
  const other = new LoadSpeed(new ManualClock());
  other.addLoad(10, 1000);
  other.addLoad(50, 0);
  assertEquals(other.bytesPerMs, 750 / 20);
  other.addLoad(0, 0);
  assertAlmostEquals(other.bytesPerMs ?? 0, 750 / 20, 0.01);
});

Deno.test("a load that took no time by a coarse clock has a speed all the same", () => {
  const speed = new LoadSpeed(new ManualClock());
  speed.addLoad(0, 1000);
  assertEquals(speed.bytesPerMs, 1e6);
});

Deno.test("a measurement is valid for a minute", async () => {
  const clock = new ManualClock();
  const speed = new LoadSpeed(clock);
  speed.addLookup(8);
  await clock.advance(30_000);
  speed.addLoad(10, 1000);
  await clock.advance(30_000);
  assertEquals([speed.lookupMs, speed.bytesPerMs], [8, 100]);
  await clock.advance(1);
  assertEquals([speed.lookupMs, speed.bytesPerMs], [undefined, 100]);
  await clock.advance(30_000);
  assertEquals([speed.bytesPerMs, speed.estimateMs(1e5)], [undefined, 2]);
  speed.addLookup(4);
  speed.addLoad(1, 1000);
  assertEquals([speed.lookupMs, speed.bytesPerMs], [4, 1000], "nothing of the old is left");
});
