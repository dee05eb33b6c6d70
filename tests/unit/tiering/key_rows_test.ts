import { assertEquals } from "@std/assert";
import * as fc from "fast-check";
import { firstNeeded, type KeyRow, usablePrefix } from "../../../src/tiering/key_rows.ts";
import { testKeys, testLayout } from "../../support/objects.ts";
import { runs } from "../../support/runs.ts";

const LAYOUT = testLayout(1024);

function row(chunks: number, windowChunks?: number): KeyRow {
  return {
    keys: testKeys(chunks),
    layout: LAYOUT,
    ...(windowChunks === undefined ? {} : { windowChunks }),
  };
}

Deno.test("firstNeeded() is 0 without a window, else the first chunk of the last window", () => {
  assertEquals(firstNeeded(row(8), 8), 0);
  assertEquals(firstNeeded(row(8, 3), 8), 5);
  assertEquals(firstNeeded(row(8, 3), 2), 0);
  assertEquals(firstNeeded(row(8, 3), 0), 0);
});

Deno.test("usablePrefix() ends at the first gap of any row without a window", () => {
  const rows = [row(6), row(6)];
  const gaps = new Set(["0:5", "1:3"]);
  assertEquals(usablePrefix(rows, 6, (r, chunk) => !gaps.has(`${r}:${chunk}`)), 3);
  assertEquals(usablePrefix(rows, 2, () => true), 2);
  assertEquals(usablePrefix(rows, 6, () => false), 0);
});

Deno.test("usablePrefix() goes beyond a gap that no window needs", () => {
  const has = (_: number, chunk: number): boolean => chunk !== 2;
  assertEquals(usablePrefix([row(6, 3)], 6, has), 6);
  assertEquals(usablePrefix([row(6, 4)], 6, has), 2);
  assertEquals(usablePrefix([row(6, 6)], 6, has), 2);
});

Deno.test("usablePrefix() is the longest prefix for which every row has what it needs", () => {
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
      const rows = windows.map((windowChunks) => row(chunks, windowChunks));
      const has = (r: number, chunk: number): boolean => !gaps.includes(r * 9 + chunk);
      const isUsable = (length: number): boolean =>
        rows.every((each, r) => {
          for (let chunk = firstNeeded(each, length); chunk < length; chunk++) {
            if (!has(r, chunk)) return false;
          }
          return true;
        });
      let expected = chunks;
      while (!isUsable(expected)) expected--;
      assertEquals(usablePrefix(rows, chunks, has), expected);
    }),
    runs(2_000),
  );
});
