import { assertEquals } from "@std/assert";
import type { AdapterGuard } from "../../../src/l2/adapter_guard.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { AdapterSet } from "../../../src/l2/adapter_set.ts";
import { mapAdapter } from "../../support/adapters.ts";
import { guardAll } from "../../support/recording_adapter.ts";

function setUp(): { set: AdapterSet; guards: AdapterGuard[] } {
  const guards = guardAll([mapAdapter(), mapAdapter(), mapAdapter()], new ManualClock());
  const set = new AdapterSet();
  for (const guard of guards) set.add(guard);
  return { set, guards };
}

function idsOf(guards: readonly AdapterGuard[]): number[] {
  return guards.map(({ id }) => id);
}

Deno.test("AdapterSet keeps adapters in the order in which they came", () => {
  const { set, guards } = setUp();
  assertEquals(idsOf(set.all), [0, 1, 2]);
  set.remove(guards[0] as AdapterGuard);
  set.add(guards[0] as AdapterGuard);
  assertEquals(idsOf(set.all), [1, 2, 0]);
});

Deno.test("AdapterSet finds an adapter by its id, until it is removed", () => {
  const { set, guards } = setUp();
  assertEquals(set.get(1) === guards[1], true);
  set.remove(guards[1] as AdapterGuard);
  assertEquals([set.get(1), set.get(7)], [undefined, undefined]);
});

Deno.test("AdapterSet keeps only new objects from an adapter that retires", () => {
  const { set, guards } = setUp();
  set.retire(guards[0] as AdapterGuard);
  assertEquals(idsOf(set.storing), [1, 2]);
  assertEquals(idsOf(set.serving), [0, 1, 2]);
  assertEquals(idsOf(set.all), [0, 1, 2]);
});

Deno.test("AdapterSet forgets that an adapter retired when it is removed", () => {
  const { set, guards } = setUp();
  set.retire(guards[0] as AdapterGuard);
  set.remove(guards[0] as AdapterGuard);
  set.add(guards[0] as AdapterGuard);
  assertEquals(idsOf(set.storing), [1, 2, 0]);
});

Deno.test("AdapterSet follows the life cycle of its adapters", async () => {
  const { set, guards } = setUp();
  guards[0]?.migrate();
  guards[1]?.drain();
  assertEquals(idsOf(set.storing), [2]);
  assertEquals(idsOf(set.serving), [0, 2]);
  await guards[2]?.close();
  assertEquals([set.storing, idsOf(set.serving)], [[], [0]]);
});

Deno.test("AdapterSet tells its listeners of every change, afterwards", () => {
  const { set, guards } = setUp();
  const heard: number[][] = [];
  const before = set.all;
  set.onChange((changed) => heard.push(idsOf(changed.all)));
  set.remove(guards[1] as AdapterGuard);
  set.add(guards[1] as AdapterGuard);
  assertEquals(heard, [[0, 2], [0, 2, 1]]);
  assertEquals(idsOf(before), [0, 1, 2], "what was handed out does not change");
});
