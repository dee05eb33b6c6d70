import { assertEquals } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import { firstNeeded, type KeyGroup } from "../../../src/prefetch/key_group.ts";
import { ChunkTable } from "../../../src/prefetch/chunk_table.ts";
import { plan, usablePrefix } from "../../../src/prefetch/plan.ts";
import { testKeys, testLayout } from "../../support/objects.ts";
import { runs } from "../../support/runs.ts";

const LAYOUT = testLayout(1024);

function group(chunks: number, windowChunks?: number): KeyGroup {
  return {
    keys: testKeys(chunks),
    layout: LAYOUT,
    ...(windowChunks === undefined ? {} : { windowChunks }),
  };
}

Deno.test("firstNeeded() is 0 without a window, else the first chunk of the last window", () => {
  assertEquals(firstNeeded(group(8), 8), 0);
  assertEquals(firstNeeded(group(8, 3), 8), 5);
  assertEquals(firstNeeded(group(8, 3), 2), 0);
  assertEquals(firstNeeded(group(8, 3), 0), 0);
});

Deno.test("usablePrefix() ends at the first gap of any group without a window", () => {
  const groups = [group(6), group(6)];
  const gaps = new Set(["0:5", "1:3"]);
  assertEquals(usablePrefix(groups, 6, (r, chunk) => !gaps.has(`${r}:${chunk}`)), 3);
  assertEquals(usablePrefix(groups, 2, () => true), 2);
  assertEquals(usablePrefix(groups, 6, () => false), 0);
});

Deno.test("usablePrefix() goes beyond a gap that no window needs", () => {
  const has = (_: number, chunk: number): boolean => chunk !== 2;
  assertEquals(usablePrefix([group(6, 3)], 6, has), 6);
  assertEquals(usablePrefix([group(6, 4)], 6, has), 2);
  assertEquals(usablePrefix([group(6, 6)], 6, has), 2);
});

Deno.test("usablePrefix() is the longest prefix for which every group has what it needs", () => {
  const cases = fc.record({
    windows: fc.array(fc.option(fc.integer({ min: 1, max: 9 }), { nil: undefined }), {
      minLength: 1,
      maxLength: 3,
    }),
    chunks: fc.nat(8),
    gaps: fc.uniqueArray(fc.nat(26), { maxLength: 6 }),
  });
  fc.assert(
    fc.property(cases, ({ windows, chunks, gaps }) => {
      const groups = windows.map((windowChunks) => group(chunks, windowChunks));
      const has = (r: number, chunk: number): boolean => !gaps.includes(r * 9 + chunk);
      const isUsable = (length: number): boolean =>
        groups.every((each, r) => {
          for (let chunk = firstNeeded(each, length); chunk < length; chunk++) {
            if (!has(r, chunk)) return false;
          }
          return true;
        });
      let expected = chunks;
      while (!isUsable(expected)) expected--;
      assertEquals(usablePrefix(groups, chunks, has), expected);
    }),
    runs(2_000),
  );
});

Deno.test("plan() needs what is missing of the longest prefix that can be had", () => {
  const table = new ChunkTable([group(6), group(6, 2)]);
  table.transition(0, "resident");
  table.transition(9, "resident");
  // Slots 0, 2, 4, … are the first group; 1, 3, 5, … the second one, of which the last two count.
  assertEquals(plan(table, () => true), { length: 6, slots: [2, 4, 6, 8, 10, 11] });
  assertEquals(plan(table, (slot) => slot !== 8), { length: 4, slots: [2, 4, 5, 6, 7] });
  assertEquals(plan(table, (slot) => slot !== 11), { length: 5, slots: [2, 4, 6, 7, 8] });
  assertEquals(plan(table, () => false), { length: 0, slots: [] });
  table.narrow(3);
  assertEquals(plan(table, () => true), { length: 3, slots: [2, 3, 4, 5] });
});
