import { assertEquals } from "@std/assert";
import { DEFAULT_ADAPTER_TIMEOUTS } from "../../../src/l2/adapter_status.ts";
import { AdapterGuard } from "../../../src/l2/adapter_guard.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { type DirtyObject, StoreLane } from "../../../src/store/store_lane.ts";
import { mapAdapter } from "../../support/adapters.ts";
import { testKey, testLayout } from "../../support/objects.ts";

const layout = testLayout(1000);

function dirtyObject(n: number): DirtyObject {
  return {
    object: { key: testKey(n), layout },
    lanes: new Set(),
    waiting: 0,
    waiters: new Set(),
    isStored: false,
    gone: undefined,
  };
}

Deno.test("StoreLane: objects that failed together are due together, and rest on their own", async () => {
  const clock = new ManualClock();
  const guard = new AdapterGuard(mapAdapter(), {
    id: 0,
    type: "map",
    clock,
    timeouts: DEFAULT_ADAPTER_TIMEOUTS,
  });
  const waiting = { objects: 0, bytes: 0 };
  let due = 0;
  const lane = new StoreLane({ guard, clock, waiting, onRetryDue: () => due++ });
  const objects = [0, 1, 2, 3, 4, 5].map(dirtyObject);
  const [one, two, three, four, five, six] = objects as [
    DirtyObject,
    DirtyObject,
    DirtyObject,
    DirtyObject,
    DirtyObject,
    DirtyObject,
  ];
  lane.backOff([one, two], 1, 3_000);
  lane.backOff([three, four], 2, 1_000);
  lane.backOff([five, six], 1, 2_000);
  lane.backOff([], 1, 5);
  assertEquals([clock.pendingTimers, waiting], [3, { objects: 6, bytes: 6_000 }]);
  await clock.advance(1_000);
  assertEquals([[...lane.queued()], due, lane.isDue], [[three, four], 1, true]);
  assertEquals(lane.take([three, four, one]), new Map([[three, 2], [four, 2]]));
  // Forgotten objects are not awaited.
  assertEquals([lane.remove(five), lane.remove(six), lane.remove(six)], [true, true, false]);
  assertEquals(clock.pendingTimers, 1);
  assertEquals([lane.remove(one), [...lane.waiting()]], [true, [two]]);
  await clock.advance(2_000);
  assertEquals([[...lane.queued()], due, clock.pendingTimers], [[two], 2, 0]);
  assertEquals([waiting, lane.waitingBytes], [{ objects: 1, bytes: 1_000 }, 1_000]);
  await guard.close();
});
