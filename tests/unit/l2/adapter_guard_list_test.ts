import { assertEquals, assertStringIncludes } from "@std/assert";
import type { L2Adapter, ListedObject } from "../../../src/adapter/contract.ts";
import { testKey, testLayout } from "../../support/objects.ts";
import { RecordingAdapter } from "../../support/recording_adapter.ts";
import { answerWith, bound, guardOf, hang, keys, TIMEOUTS } from "./guarded.ts";

const listed = keys.map((key, i): ListedObject => ({ key, byteLength: 100 + i }));

/** An enumeration that yields objects, then does something, and records how it was left. */
function enumeration(
  objects: readonly ListedObject[],
  then: () => Promise<unknown> = () => Promise.resolve(),
): { list: NonNullable<L2Adapter["list"]>; signals: AbortSignal[]; left: () => number } {
  const signals: AbortSignal[] = [];
  let left = 0;
  return {
    signals,
    left: () => left,
    async *list({ signal }) {
      signals.push(signal);
      try {
        yield* objects;
        await then();
      } finally {
        left++;
      }
    },
  };
}

Deno.test("list enumerates what the adapter does, of one model if wanted", async () => {
  const adapter = new RecordingAdapter();
  const other = testKey(9, { model: "other/model" });
  adapter.seed([...keys, other], testLayout(256));
  const { guard, clock } = guardOf(bound(adapter));
  assertEquals([guard.canList, guard.canDelete], [true, true]);
  const ids = async (options?: { model: string }) =>
    (await Array.fromAsync(guard.list(options))).map(({ key }) => key.id);
  assertEquals(await ids(), [...keys, other].map(({ id }) => id));
  assertEquals(await ids({ model: "other/model" }), [other.id]);
  assertEquals([clock.pendingTimers, guard.callsInFlight], [0, 0]);
  assertEquals(guard.reportStatus().failedCalls, 0);
});

Deno.test("optional methods that an adapter lacks are not called", async () => {
  const { guard } = guardOf();
  assertEquals([guard.canList, guard.canDelete], [false, false]);
  assertEquals(await Array.fromAsync(guard.list()), []);
  assertEquals(await guard.usage(), undefined);
  const deletion = await guard.delete(keys);
  assertEquals([String(deletion.done), deletion.bytes, deletion.status], ["000", 0, "skipped"]);
  assertEquals(guard.reportStatus().skippedCalls, 0);
});

const wrongList = (value: unknown): NonNullable<L2Adapter["list"]> => () => value as never;
const FAILURES: readonly [string, NonNullable<L2Adapter["list"]>, string, number][] = [
  [
    "rejects in the middle",
    enumeration(listed, () => Promise.reject(new Error("gone"))).list,
    "gone",
    3,
  ],
  [
    "throws at once",
    () => {
      throw new Error("no list");
    },
    "no list",
    0,
  ],
  ["gives nothing to enumerate", wrongList(undefined), "", 0],
  ["gives a number", wrongList(3), "", 0],
  [
    "gives what is no object",
    enumeration([listed[0] as ListedObject, 3 as never]).list,
    "list() must",
    1,
  ],
  [
    "gives an object without a size",
    enumeration([{ key: keys[0] } as never]).list,
    "list() must",
    0,
  ],
];
for (const [what, list, reason, count] of FAILURES) {
  Deno.test(`an adapter whose list ${what} ends the enumeration, and is counted`, async () => {
    const { guard, clock } = guardOf({ list });
    assertEquals((await Array.fromAsync(guard.list())).length, count);
    const { failedCalls, lastError, isHealthy } = guard.reportStatus();
    assertEquals([failedCalls, isHealthy, clock.pendingTimers], [1, true, 0]);
    assertStringIncludes(lastError ?? "", "faulty: list failed");
    assertStringIncludes(lastError ?? "", reason);
  });
}

Deno.test("an adapter that hangs ends the enumeration at its deadline, and is told to stop", async () => {
  const { list, signals } = enumeration(listed, hang);
  const { guard, clock } = guardOf({ list });
  const all = Array.fromAsync(guard.list());
  await clock.advance(0);
  await clock.advance(TIMEOUTS.deleteMs);
  assertEquals((await all).length, 3);
  assertEquals([signals[0]?.aborted, clock.pendingTimers], [true, 0]);
  const { timeouts, failedCalls, hungCalls } = guard.reportStatus();
  assertEquals([timeouts, failedCalls, hungCalls], [1, 1, 1]);
});

Deno.test("the deadline is for each object, not for all of them", async () => {
  const { guard, clock } = guardOf({
    async *list() {
      for (const object of listed) {
        await new Promise<void>((resolve) => void clock.schedule(resolve, TIMEOUTS.deleteMs - 1));
        yield object;
      }
    },
  });
  const all = Array.fromAsync(guard.list());
  await clock.advance(10 * TIMEOUTS.deleteMs);
  assertEquals((await all).length, 3);
});

Deno.test("the adapter ends an enumeration that is left early or aborted", async () => {
  const early = enumeration(listed);
  const { guard } = guardOf({ list: early.list });
  for await (const _ of guard.list()) break;
  assertEquals([early.left(), early.signals[0]?.aborted], [1, true]);

  const stuck = enumeration(listed, hang);
  const other = guardOf({ list: stuck.list });
  const caller = new AbortController();
  const all = Array.fromAsync(other.guard.list({ signal: caller.signal }));
  await other.clock.advance(0);
  caller.abort();
  assertEquals((await all).length, 3);
  assertEquals(stuck.signals[0]?.aborted, true);
  assertEquals(other.guard.reportStatus().failedCalls, 0);
  assertEquals(await Array.fromAsync(other.guard.list({ signal: caller.signal })), []);
  assertEquals(stuck.signals.length, 1, "not asked again");
});

Deno.test("an enumeration that is aborted between two objects ends", async () => {
  const { list, left } = enumeration(listed);
  const { guard } = guardOf({ list });
  const caller = new AbortController();
  let count = 0;
  for await (const _ of guard.list({ signal: caller.signal })) {
    count++;
    caller.abort();
  }
  assertEquals([count, left()], [1, 1]);
});

Deno.test("an enumeration ends when the adapter is closed", async () => {
  const { list } = enumeration(listed);
  const { guard } = guardOf({ list });
  let count = 0;
  for await (const _ of guard.list()) {
    count++;
    await guard.close();
  }
  assertEquals(count, 1);
});

Deno.test("usage is returned if the adapter's answer is valid and in time", async () => {
  const right = { usedBytes: 5, objectCount: 2, capacityBytes: 10 };
  const { guard } = guardOf({ usage: answerWith({ ...right, more: "?" }) });
  assertEquals(await guard.usage(), right);
  for (
    const wrong of [undefined, null, 3, {}, { usedBytes: NaN, objectCount: 1 }, {
      usedBytes: 1,
      objectCount: -1,
    }, { ...right, capacityBytes: "much" }]
  ) {
    const { guard } = guardOf({ usage: answerWith(wrong) });
    assertEquals(await guard.usage(), undefined);
    assertEquals(guard.reportStatus().failedCalls, 1);
  }
  const hanging = guardOf({ usage: hang });
  const asking = hanging.guard.usage();
  await hanging.clock.advance(TIMEOUTS.lookupMs);
  assertEquals(await asking, undefined);
  const { timeouts, hungCalls } = hanging.guard.reportStatus();
  assertEquals([timeouts, hungCalls, hanging.clock.pendingTimers], [1, 1, 0]);
});
