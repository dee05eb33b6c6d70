import { assertEquals } from "@std/assert";
import type { LoadEstimate } from "../../../src/l2/load_speed.ts";
import { ChunkTable } from "../../../src/prefetch/chunk_table.ts";
import { cheapestPrefix } from "../../../src/prefetch/plan.ts";
import { testKeys, testLayout } from "../../support/objects.ts";

/** With its trailer, an object has 192 bytes. */
const LAYOUT = testLayout(128);
const OBJECT_BYTES = 192;
/** 1 ms, and 2 ms an object. */
const FAST = { latencyMs: 1, msPerByte: 2 / OBJECT_BYTES };
/** 5 ms, and 20 ms an object. */
const SLOW = { latencyMs: 5, msPerByte: 20 / OBJECT_BYTES };
const HUNG = { latencyMs: Infinity, msPerByte: 0 };

interface Case {
  readonly what: string;
  /** For each object: `.` resident, `f` in a fast adapter, `s` in a slow one, `h` in a hung one, or `-` absent. */
  readonly groups: readonly string[];
  readonly windows?: readonly (number | undefined)[];
  /** Milliseconds to compute each chunk, and what is behind them. */
  readonly compute: readonly number[];
  readonly best: readonly [length: number, loadMs: number];
  readonly longest: readonly [length: number, loadMs: number];
  readonly free: number;
}

const CASES: readonly Case[] = [
  {
    what: "all of it, if loads are fast",
    groups: ["ffff"],
    compute: [10, 10, 10, 10, 10],
    best: [4, 9],
    longest: [4, 9],
    free: 0,
  },
  {
    what: "nothing, if computing is faster",
    groups: ["ssss"],
    compute: [10, 10, 10, 10, 10],
    best: [0, 0],
    longest: [4, 85],
    free: 0,
  },
  {
    what: "nothing for a latency that costs more than one chunk saves",
    groups: ["s"],
    compute: [24, 10],
    best: [0, 0],
    longest: [1, 25],
    free: 0,
  },
  {
    what: "the longest of equally cheap ones",
    groups: ["s"],
    compute: [25, 10],
    best: [1, 25],
    longest: [1, 25],
    free: 0,
  },
  {
    what: "what is resident, whatever it would cost",
    groups: ["..ss"],
    compute: [1, 1, 1, 1, 1],
    best: [2, 0],
    longest: [4, 45],
    free: 2,
  },
  {
    what: "a slow chunk before many resident ones",
    groups: ["s..."],
    compute: [10, 10, 10, 10, 0],
    best: [4, 25],
    longest: [4, 25],
    free: 0,
  },
  {
    what: "the first chunks from a fast adapter, not the rest from a slow one",
    groups: ["ffss"],
    compute: [10, 10, 10, 10, 0],
    best: [2, 5],
    longest: [4, 45],
    free: 0,
  },
  {
    what: "fast loads for free while slow ones take their time",
    groups: ["fsfs"],
    compute: [30, 30, 30, 30, 0],
    best: [4, 45],
    longest: [4, 45],
    free: 0,
  },
  {
    what: "later chunks, where computing is slower, with the earlier ones",
    groups: ["ssss"],
    compute: [1, 1, 50, 60, 0],
    best: [4, 85],
    longest: [4, 85],
    free: 0,
  },
  {
    what: "nothing from an adapter that hangs",
    groups: ["fhff"],
    compute: [10, 10, 10, 10, 1000],
    best: [1, 3],
    longest: [4, Infinity],
    free: 0,
  },
  {
    what: "nothing behind a gap",
    groups: ["ff-f"],
    compute: [10, 10, 10, 10, 10],
    best: [2, 5],
    longest: [2, 5],
    free: 0,
  },
  {
    what: "both groups of a chunk",
    groups: ["ff", "ss"],
    compute: [30, 10, 0],
    best: [1, 25],
    longest: [2, 45],
    free: 0,
  },
  {
    what: "of a window only the last chunks of the length",
    groups: ["....", "-sss"],
    windows: [undefined, 1],
    compute: [10, 10, 10, 10, 0],
    best: [4, 25],
    longest: [4, 25],
    free: 0,
  },
  {
    what: "a resident window that ends early",
    groups: ["ffff", ".sss"],
    windows: [undefined, 1],
    compute: [10, 5, 5, 5, 0],
    best: [1, 3],
    longest: [4, 25],
    free: 0,
  },
  {
    what: "nothing of an empty chain",
    groups: [""],
    compute: [10],
    best: [0, 0],
    longest: [0, 0],
    free: 0,
  },
];

for (const { what, groups, windows = [], compute, best, longest, free } of CASES) {
  Deno.test(`cheapestPrefix() takes ${what}`, () => {
    const rows = groups.map((objects, g) => {
      const windowChunks = windows[g];
      const keys = testKeys(objects.length, 100 * g);
      return { keys, layout: LAYOUT, ...(windowChunks === undefined ? {} : { windowChunks }) };
    });
    const table = new ChunkTable(rows);
    const at = (slot: number): string => groups[slot % groups.length]?.[table.chunkOf(slot)] ?? "-";
    const sources: Record<string, LoadEstimate> = { f: FAST, s: SLOW, h: HUNG };
    const computeMs = compute.map((_, chunk) => compute.slice(chunk).reduce((a, b) => a + b, 0));
    for (let slot = 0; slot < table.size; slot++) assertEquals(table.bytes(slot), OBJECT_BYTES);
    const choice = cheapestPrefix(table, (slot) => at(slot) !== "-", {
      sourceOf: (slot) => sources[at(slot)],
      computeMs,
    });
    const rounded = ({ length, loadMs }: typeof choice.best): [number, number] => {
      return [length, Math.round(loadMs * 1e6) / 1e6];
    };
    assertEquals([rounded(choice.best), rounded(choice.longest), choice.free], [
      [...best],
      [...longest],
      free,
    ]);
  });
}
