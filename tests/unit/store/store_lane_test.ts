import { assertEquals, assertThrows } from "@std/assert";
import { DEFAULT_ADAPTER_TIMEOUTS } from "../../../src/l2/adapter_status.ts";
import { AdapterGuard } from "../../../src/l2/adapter_guard.ts";
import { DirtyObject } from "../../../src/store/dirty_object.ts";
import { StoreLane } from "../../../src/store/store_lane.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { mapAdapter } from "../../support/adapters.ts";
import { testKey, testLayout } from "../../support/objects.ts";

const layout = testLayout(1000);

interface SetUp {
  readonly clock: ManualClock;
  readonly lane: StoreLane;
  readonly waiting: { readonly objects: number; readonly bytes: number };
  /** Times at which objects were queued again. */
  readonly due: number[];
}

function setUp(): SetUp {
  const clock = new ManualClock();
  const guard = new AdapterGuard(mapAdapter(), {
    id: 0,
    type: "map",
    clock,
    timeouts: DEFAULT_ADAPTER_TIMEOUTS,
  });
  const waiting = { objects: 0, bytes: 0 };
  const due: number[] = [];
  const lane = new StoreLane(guard, {
    clock,
    random: { bytes: (length) => new Uint8Array(length).fill(128) },
    flushBytes: 3_000,
    attempts: 3,
    backOffMs: 1_000,
    waiting,
    onRetryDue: () => due.push(clock.now()),
  });
  return { clock, lane, waiting, due };
}

function dirtyObjects(count: number): DirtyObject[] {
  return Array.from({ length: count }, (_, n) => new DirtyObject({ key: testKey(n), layout }));
}

Deno.test("StoreLane: objects that failed together are due together, and rest on their own", async () => {
  const { clock, lane, waiting, due } = setUp();
  const startedAt = clock.now();
  const objects = dirtyObjects(5);
  const [one, two, three, four, five] = objects as [
    DirtyObject,
    DirtyObject,
    DirtyObject,
    DirtyObject,
    DirtyObject,
  ];
  for (const dirty of objects) lane.queue(dirty);
  assertEquals([lane.isReady, lane.isDue, lane.waitingBytes], [true, false, 5_000]);
  assertEquals(lane.take([one, two, three]), [one, two, three]);
  assertEquals([lane.isReady, lane.storing.bytes, waiting], [
    false,
    3_000,
    { objects: 2, bytes: 2_000 },
  ]);
  lane.endBatch();
  lane.end(three, "stored");
  lane.retryLater([one, two]);
  lane.retryLater([]);
  assertEquals([lane.take([four, one]), lane.storing.bytes], [[four], 1_000]);
  lane.endBatch();
  await clock.advance(500);
  lane.retryLater([four]);
  assertEquals([clock.pendingTimers, waiting], [2, { objects: 4, bytes: 4_000 }]);

  await clock.advance(500);
  assertEquals([[...lane.queued.objects()], [...lane.waiting()]], [[five, one, two], [
    four,
    five,
    one,
    two,
  ]]);
  assertEquals([due, lane.isDue], [[startedAt + 1_000], true]);
  // The second attempt of two fails: the delay doubles.
  lane.take([two]);
  lane.endBatch();
  assertEquals([lane.hasAttemptsLeft(one), lane.hasAttemptsLeft(two)], [true, true]);
  lane.retryLater([two]);
  // Forgotten objects are not awaited.
  lane.end(four, "dropped");
  assertEquals([clock.pendingTimers, [...lane.waiting()]], [1, [two, five, one]]);
  await clock.advance(2_000);
  assertEquals([due.length, clock.pendingTimers, lane.hasAttemptsLeft(two)], [2, 0, false]);

  for (const dirty of [one, two, five]) lane.end(dirty, "dropped");
  assertEquals([lane.isEmpty, lane.isDue, waiting], [true, false, { objects: 0, bytes: 0 }]);
  assertEquals(objects.map(({ shares }) => shares.size), [0, 0, 0, 0, 0]);
});

Deno.test("StoreLane rejects what cannot follow", () => {
  const { lane } = setUp();
  const [dirty] = dirtyObjects(1) as [DirtyObject];
  lane.queue(dirty);
  assertThrows(() => lane.end(dirty, "stored"), Error, "is queued cannot become stored");
  assertThrows(() => lane.retryLater([dirty]), Error, "is queued cannot become backing-off");
  lane.take([dirty]);
  lane.end(dirty, "stored");
  assertEquals(dirty.shares.size, 0);
});
