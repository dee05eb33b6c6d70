// deno-lint-ignore-file no-console -- a program prints
/**
 * What the cache costs, beside the plainest loop over the same bytes in the same run:
 * `deno task bench [--rounds N] [--objects N] [--megabytes N] [--only LIST] [--json]`. Medians of 7
 * rounds; the page cache is warm. Calls whose cost should not depend on what lies in L1 or in a
 * directory are timed with 1,000, 10,000 and 100,000 objects there, or up to `--objects`. A timer
 * shows how long the event loop is blocked while 1 GB is stored and loaded, or `--megabytes`, which
 * also limits the 96 MiB that go through L1 and a directory.
 * `--only` leaves out all but some parts: l1, transfers, copies, event-loop, path, flat, full.
 */
import { parseArgs } from "node:util";
import { HostDevice, WebGpuDevice } from "../../mod.ts";
import { benchCopies } from "./copy_bench.ts";
import { benchFlat } from "./flat_bench.ts";
import { benchFullDirectory } from "./full_directory_bench.ts";
import { benchEventLoop } from "./event_loop_bench.ts";
import { benchL1, benchTransfers } from "./movement_bench.ts";
import { benchMetrics } from "./metrics_bench.ts";
import { benchPath } from "./path_bench.ts";
import type { Row } from "./rows.ts";

const MIB = 2 ** 20;
/** Options of fs with which the event loop is measured. */
const EVENT_LOOP_OPTIONS = { "": {}, "io_workers 0": { "io_workers": 0 } };
const PARTS = ["l1", "transfers", "copies", "event-loop", "path", "flat", "full", "metrics"];

const { values: options } = parseArgs({
  options: {
    rounds: { type: "string", default: "7" },
    objects: { type: "string", default: "100000" },
    megabytes: { type: "string", default: "1000" },
    only: { type: "string" },
    json: { type: "boolean" },
  },
});
const rounds = wholeNumber("rounds", options.rounds);
const mostObjects = wholeNumber("objects", options.objects);

const bytes = 1e6 * wholeNumber("megabytes", options.megabytes);
const parts = partsOf(options.only);

const directory = await Deno.makeTempDir({ prefix: "kvtier-bench-" });
const rows: Row[] = [];
try {
  for (const device of [await WebGpuDevice.request(), new HostDevice()]) {
    if (device === null) continue;
    if (parts.has("l1")) rows.push(...await benchL1(device));
    if (device instanceof WebGpuDevice) {
      if (parts.has("transfers")) rows.push(...await benchTransfers(device, rounds));
      if (parts.has("copies")) rows.push(...await benchCopies(device, rounds));
    }
    if (parts.has("event-loop")) {
      rows.push(...await benchEventLoop(device, directory, bytes, EVENT_LOOP_OPTIONS));
    }
    for (const objectBytes of parts.has("path") ? [MIB / 4, MIB, 4 * MIB, 16 * MIB] : []) {
      rows.push(...await benchPath(device, objectBytes, directory, rounds, bytes));
    }
    device[Symbol.dispose]();
  }
  const counts = [1_000, 10_000, 100_000].filter((count) => count <= mostObjects);
  if (parts.has("flat")) rows.push(...await benchFlat(counts));
  if (parts.has("metrics")) rows.push(...await benchMetrics());
  if (parts.has("full")) rows.push(...await benchFullDirectory(counts, directory));
} finally {
  await Deno.remove(directory, { recursive: true });
}
if (options.json) {
  console.log(JSON.stringify({ rows }));
} else {
  console.table(rows.map(({ medianMs, gbps, ofLimit, objectBytes, ...row }) => ({
    ...row,
    MiB: objectBytes / MIB,
    ms: medianMs.toPrecision(3),
    "GB/s": gbps?.toFixed(2) ?? "",
    "of plain loop": ofLimit === undefined ? "" : `${(100 * ofLimit).toFixed(0)} %`,
  })));
}

function wholeNumber(name: string, text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value > 0) return value;
  console.error(`--${name}: expected a whole number above 0: received ${text}`);
  Deno.exit(2);
}

function partsOf(list: string | undefined): ReadonlySet<string> {
  const names = new Set(list?.split(",") ?? PARTS);
  const unknown = [...names].filter((name) => !PARTS.includes(name));
  if (unknown.length === 0) return names;
  console.error(`--only: expected some of ${PARTS.join(", ")}: received ${unknown.join(", ")}`);
  Deno.exit(2);
}
