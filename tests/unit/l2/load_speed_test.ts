import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { Bitmap } from "../../../src/keys/bitmap.ts";
import { LoadSpeed, type RunningLoad } from "../../../src/l2/load_speed.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";

/** A speed, and loads that take time by its clock. */
class Loads {
  readonly clock = new ManualClock();
  readonly speed = new LoadSpeed(this.clock);

  start(bytes: number): RunningLoad {
    return this.speed.startLoad([{ byteLength: bytes }]);
  }

  end(load: RunningLoad, isFound = true): void {
    const { bytes } = load;
    const value = new Bitmap(1, isFound ? 1 : 0);
    this.speed.endLoad(load, { status: "answered", value, ms: 0 }, [{ byteLength: bytes }]);
  }

  async load(ms: number, bytes: number): Promise<void> {
    const load = this.start(bytes);
    await this.clock.advance(ms);
    this.end(load);
  }

  /** Milliseconds that a load is expected to take. */
  estimate(bytes: number): number {
    return this.speed.estimateMs(bytes);
  }
}

Deno.test("an adapter without measurements is assumed to be fast", () => {
  const { speed } = new Loads();
  assertEquals([speed.lookupMs, speed.bytesPerMs, speed.lastEstimate], Array(3).fill(undefined));
  assertEquals([speed.estimateMs(0), speed.estimateMs(1e6)], [1, 11]);
});

Deno.test("an estimate is the time of a lookup, and of the bytes without it", async () => {
  const loads = new Loads();
  loads.speed.addLookup(2);
  await loads.load(12, 1000);
  assertEquals([loads.speed.lookupMs, loads.speed.bytesPerMs], [2, 1000 / 12]);
  assertAlmostEquals(loads.estimate(1000), 12);
  assertAlmostEquals(loads.estimate(3000), 32);
});

Deno.test("small loads say little about large ones", async () => {
  const loads = new Loads();
  for (let i = 0; i < 10; i++) {
    await loads.load(1, 10);
    await loads.load(10, 1e6);
  }
  assertAlmostEquals(loads.estimate(1e6), 10, 1);
});

Deno.test("two outliers change nothing, and a change is followed after three loads", async () => {
  const loads = new Loads();
  for (let i = 0; i < 5; i++) await loads.load(10, 1000);
  const healthy = loads.estimate(1000);
  for (let i = 0; i < 2; i++) {
    await loads.load(1000, 1000);
    assertEquals(loads.estimate(1000), healthy);
  }
  await loads.load(1000, 1000);
  assert(loads.estimate(1000) > 900);
  for (let i = 0; i < 3; i++) await loads.load(10, 1000);
  assertEquals(loads.estimate(1000), healthy);
});

Deno.test("concurrent loads share the adapter: their estimate is what each takes of it", async () => {
  const alone = new Loads();
  for (let i = 0; i < 3; i++) await alone.load(10, 1000);
  const shared = new Loads();
  for (let i = 0; i < 3; i++) {
    const running = [1000, 1000, 1000].map((bytes) => shared.start(bytes));
    assertEquals(shared.speed.bytesInFlight, 3000);
    await shared.clock.advance(30);
    for (const load of running) shared.end(load);
  }
  assertEquals(shared.speed.bytesInFlight, 0);
  assertAlmostEquals(shared.estimate(1e5), alone.estimate(1e5), 100);
  assertEquals(shared.speed.bytesPerMs, 100);
});

Deno.test("a load that found nothing is no measurement", async () => {
  const loads = new Loads();
  const missing = loads.start(1000);
  await loads.clock.advance(50);
  loads.end(missing, false);
  assertEquals(loads.speed.lastEstimate, undefined);
});

Deno.test("a load that took no time, or less, by a coarse clock has a speed all the same", () => {
  for (const ms of [0, -1000]) {
    let now = 0;
    const speed = new LoadSpeed({ now: () => now, schedule: () => () => {} });
    speed.addLookup(ms);
    const load = speed.startLoad([{ byteLength: 1000 }]);
    now += ms;
    const value = new Bitmap(1, 1);
    speed.endLoad(load, { status: "answered", value, ms }, [{ byteLength: 1000 }]);
    const { latencyMs = NaN, msPerByte = NaN } = speed.lastEstimate ?? {};
    assertEquals(latencyMs, 0);
    assert(msPerByte > 0 && msPerByte < 1e-5, `${msPerByte}`);
  }
});

Deno.test("a choice between adapters forgets a measurement after a minute, a gate does not", async () => {
  const loads = new Loads();
  const { clock, speed } = loads;
  speed.addLookup(8);
  await clock.advance(30_000);
  await loads.load(10, 1000);
  await clock.advance(29_990);
  assertEquals([speed.lookupMs, speed.bytesPerMs], [8, 100]);
  const known = speed.lastEstimate;
  await clock.advance(60_000);
  assertEquals([speed.lookupMs, speed.bytesPerMs, speed.estimateMs(1e5)], [
    undefined,
    undefined,
    2,
  ]);
  assertEquals([speed.lastLookupMs, speed.lastEstimate], [8, known]);
  speed.addLookup(4);
  await loads.load(1, 1000);
  assertEquals([speed.lookupMs, speed.bytesPerMs], [4, 1000], "nothing of the old is left");
});
