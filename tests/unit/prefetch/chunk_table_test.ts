import { assertEquals, assertThrows } from "@std/assert";
import { type ChunkState, ChunkTable } from "../../../src/prefetch/chunk_table.ts";
import type { KeyGroup } from "../../../src/prefetch/key_group.ts";
import { testKeys, testLayout } from "../../support/objects.ts";

const LAYOUT = testLayout(1024);

function group(chunks: number, windowChunks?: number): KeyGroup {
  const keys = testKeys(chunks);
  return { keys, layout: LAYOUT, ...(windowChunks === undefined ? {} : { windowChunks }) };
}

/** One way to each state. */
const WAYS: Readonly<Record<ChunkState, readonly ChunkState[]>> = {
  wanted: [],
  resident: ["resident"],
  filling: ["filling"],
  shared: ["shared"],
  asked: ["asked"],
  found: ["asked", "found"],
  loading: ["asked", "found", "loading"],
  absent: ["absent"],
  blocked: ["blocked"],
};
const STATES = Object.keys(WAYS) as ChunkState[];
const OWN: readonly ChunkState[] = ["asked", "found", "loading"];

function tableIn(state: ChunkState, onSettled?: (slot: number) => void): ChunkTable {
  const table = new ChunkTable([group(1)], onSettled);
  for (const step of WAYS[state]) table.transition(0, step);
  return table;
}

Deno.test("ChunkTable.transition() throws unless the state can follow, and changes nothing", () => {
  const legal: Readonly<Record<ChunkState, string>> = {
    wanted: "resident filling shared asked absent blocked",
    resident: "wanted",
    filling: "wanted resident",
    shared: "wanted resident absent",
    asked: "wanted resident found absent",
    found: "wanted resident asked loading absent blocked",
    loading: "wanted resident asked found absent",
    absent: "resident",
    blocked: "resident",
  };
  for (const from of STATES) {
    for (const to of STATES) {
      const table = tableIn(from);
      if (legal[from].split(" ").includes(to)) {
        table.transition(0, to);
        assertEquals(table.state(0), to);
      } else {
        assertThrows(() => table.transition(0, to), Error, `cannot go from ${from} to ${to}`);
        assertEquals(table.state(0), from);
      }
    }
  }
});

Deno.test("ChunkTable tells once that a request is no longer to load an object", () => {
  for (const from of STATES) {
    for (const to of STATES) {
      const settled: string[] = [];
      const table: ChunkTable = tableIn(
        from,
        (slot) => settled.push(`${slot} ${table.state(slot)}`),
      );
      try {
        table.transition(0, to);
      } catch {
        continue;
      }
      const isTold = OWN.includes(from) && !OWN.includes(to);
      assertEquals(settled, isTold ? [`0 ${to}`] : [], `from ${from} to ${to}`);
    }
  }
});

Deno.test("ChunkTable.abandon() leaves what the request was to load, and nothing else", () => {
  const keys = group(STATES.length);
  const table = new ChunkTable([keys]);
  for (const [slot, state] of STATES.entries()) {
    for (const step of WAYS[state]) table.transition(slot, step);
  }
  const slots = [...STATES.keys()];
  assertEquals(table.abandon(slots).map((slot) => STATES[slot]), [...OWN]);
  assertEquals(
    slots.map((slot) => table.state(slot)),
    STATES.map((state) => OWN.includes(state) ? "wanted" : state),
  );
  assertEquals(
    slots.filter((slot) => !table.isPossible(slot)).map((slot) => STATES[slot]),
    ["absent", "blocked"],
  );
});

Deno.test("ChunkTable knows why an object is absent, for as long as it is", () => {
  const table = tableIn("asked");
  assertEquals(table.reason(0), undefined);
  table.miss(0, "damaged");
  assertEquals([table.state(0), table.reason(0)], ["absent", "damaged"]);
  table.transition(0, "resident");
  assertEquals(table.reason(0), undefined);
});

Deno.test("ChunkTable knows which attempt is loading an object", () => {
  const table = tableIn("found");
  table.load(0, 7);
  assertEquals([table.isLoading(0, 7), table.isLoading(0, 8)], [true, false]);
  table.transition(0, "found");
  assertEquals(table.isLoading(0, 7), false);
});

Deno.test("ChunkTable.whenQuiet() resolves when no object is filling or shared", async () => {
  const table = new ChunkTable([group(3)]);
  assertEquals(table.whenQuiet(), undefined);
  table.transition(0, "shared");
  table.transition(1, "filling");
  let isQuiet = false;
  const quiet = table.whenQuiet()?.then(() => isQuiet = true);
  table.transition(0, "wanted");
  table.transition(2, "asked");
  await Promise.resolve();
  assertEquals(isQuiet, false);
  table.transition(1, "resident");
  await quiet;
  assertEquals([isQuiet, table.whenQuiet()], [true, undefined]);
});

Deno.test("ChunkTable numbers objects by chunk, then by group, and only becomes shorter", () => {
  const [first, second] = [group(3), group(3, 2)];
  const table = new ChunkTable([first, second]);
  assertEquals([table.hasWindows, table.end, table.size], [true, 3, 6]);
  assertEquals([0, 1, 2, 5].map((slot) => table.chunkOf(slot)), [0, 0, 1, 2]);
  assertEquals([table.key(4), table.key(3)], [first.keys[2], second.keys[1]]);
  table.narrow(2);
  table.narrow(3);
  assertEquals([table.end, table.size], [2, 4]);
  assertEquals(new ChunkTable([first]).hasWindows, false);
});
