// deno-lint-ignore-file no-console -- a program prints
/**
 * What the cache costs, beside the plainest loop over the same bytes in the same run:
 * `deno task bench [--rounds N] [--json]`. Medians of 7 rounds; the page cache is warm.
 */
import { parseArgs } from "node:util";
import { join } from "@std/path";
import { HostDevice, WebGpuDevice } from "../../mod.ts";
import { benchBlocking, benchL1, benchTransfers } from "./movement_bench.ts";
import { benchPath } from "./path_bench.ts";
import type { Row } from "./rows.ts";

const MIB = 2 ** 20;

const { values: options } = parseArgs({
  options: { rounds: { type: "string", default: "7" }, json: { type: "boolean" } },
});
const rounds = Number(options.rounds);
if (!(Number.isSafeInteger(rounds) && rounds > 0)) {
  console.error(`--rounds: expected a whole number above 0: received ${options.rounds}`);
  Deno.exit(2);
}

const directory = await Deno.makeTempDir({ prefix: "kvtier-bench-" });
const rows: Row[] = [];
try {
  for (const device of [await WebGpuDevice.request(), new HostDevice()]) {
    if (device === null) continue;
    rows.push(...await benchL1(device));
    if (device instanceof WebGpuDevice) rows.push(...await benchTransfers(device, rounds));
    rows.push(...await benchBlocking(device, join(directory, device.type), rounds));
    for (const objectBytes of [MIB / 4, MIB, 4 * MIB, 16 * MIB]) {
      rows.push(...await benchPath(device, objectBytes, directory, rounds));
    }
    device[Symbol.dispose]();
  }
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
