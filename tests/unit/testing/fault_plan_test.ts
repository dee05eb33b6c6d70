import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import type { FaultRule } from "../../../src/testing/mod.ts";
import { FAULT_KINDS, FaultSchedule } from "../../../src/testing/faults/fault_plan.ts";

/** Which of the first `count` calls of `load` a rule befalls. */
function befallen(rule: FaultRule, count: number, seed = 0): number[] {
  const schedule = new FaultSchedule({ faults: [rule], seed });
  return Array.from({ length: count }, (_, call) => call)
    .filter(() => schedule.next("load").rules.length > 0);
}

Deno.test("a fault without rate and calls affects every call", () => {
  assertEquals(befallen({ kind: "error" }, 4), [0, 1, 2, 3]);
});

Deno.test("a fault affects the given calls", () => {
  assertEquals(befallen({ kind: "error", calls: [1, 3] }, 6), [1, 3]);
  assertEquals(befallen({ kind: "error", calls: [1], rate: 1 }, 3), [0, 1, 2]);
  assertEquals(befallen({ kind: "error", calls: [] }, 3), []);
});

Deno.test("a rate is the share of affected calls, chosen by the seed", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: -(2 ** 31), max: 2 ** 31 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (seed, rate) => {
        const calls = befallen({ kind: "error", rate }, 2000, seed);
        assertEquals(befallen({ kind: "error", rate }, 2000, seed), calls);
        assert(Math.abs(calls.length / 2000 - rate) < 0.07, `${calls.length} of 2000 at ${rate}`);
      },
    ),
    { seed: 1, numRuns: 50 },
  );
  const halves = [1, 2].map((seed) => befallen({ kind: "error", rate: 0.5 }, 100, seed));
  assertNotEquals(halves[0], halves[1]);
});

Deno.test("operations are counted, and faults drawn, independently", () => {
  const faults: FaultRule[] = [
    { kind: "error", operations: ["store"], calls: [0] },
    { kind: "corrupt", calls: [1] },
  ];
  const schedule = new FaultSchedule({ faults });
  const kinds = (operation: "store" | "load" | "lookup" | "delete") =>
    schedule.next(operation).rules.map(({ kind }) => kind);
  assertEquals([kinds("load"), kinds("store"), kinds("lookup")], [[], ["error"], []]);
  assertEquals([kinds("load"), kinds("store"), kinds("lookup")], [["corrupt"], ["corrupt"], []]);

  const two = new FaultSchedule({
    faults: [{ kind: "error", rate: 0.5 }, { kind: "delay", rate: 0.5 }],
  });
  const pairs = new Set(Array.from({ length: 64 }, () => {
    return two.next("load").rules.map(({ kind }) => kind).join();
  }));
  assertEquals([...pairs].sort(), ["", "delay", "error", "error,delay"]);
});

Deno.test("picks are determined by the call and cover the whole range", () => {
  const picks = (): number[] => {
    const schedule = new FaultSchedule({ faults: [] });
    return Array.from({ length: 200 }, () => schedule.next("load").pick(8));
  };
  assertEquals(picks(), picks());
  assertEquals([...new Set(picks())].sort(), [0, 1, 2, 3, 4, 5, 6, 7]);
});

Deno.test("an invalid plan is rejected", () => {
  const wrong: [FaultRule, string][] = [
    [{ kind: "error", rate: 1.1 }, "rate must be from 0 to 1: received 1.1"],
    [{ kind: "error", rate: NaN }, "rate must be from 0 to 1: received NaN"],
    [{ kind: "error", calls: [-1] }, "calls must be integers of at least 0: received -1"],
    [{ kind: "error", calls: [0.5] }, "calls must be integers of at least 0: received 0.5"],
    [{ kind: "delay", delayMs: -1 }, "delayMs must be at least 0: received -1"],
    [
      { kind: "short", operations: ["lookup"] },
      "operations of short must be among store, load: received lookup",
    ],
    [
      { kind: "wrong-key", operations: ["load", "store"] },
      "operations of wrong-key must be among load: received store",
    ],
    [
      { kind: "fire" as "error" },
      `kind must be one of ${FAULT_KINDS.join(", ")}: received fire`,
    ],
  ];
  for (const [rule, message] of wrong) {
    assertThrows(() => new FaultSchedule({ faults: [rule] }), RangeError, message);
  }
});
