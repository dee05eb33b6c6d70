// Stores objects into a directory at full speed until it is stopped; prints their number.
import { openFs } from "../support/fs_adapter.ts";
import { testKeys } from "../support/objects.ts";
import type { FillOptions, FillReport } from "./lab/fill_options.ts";
import { say, stopSignal } from "./lab/program.ts";

const options = JSON.parse(Deno.args[0] ?? "") as FillOptions;
const { basePath, capacityGb, eviction, batch, batches = Infinity } = options;
const payload = new Uint8Array(options.payloadBytes);
const objects = testKeys(options.count, options.first).map((key) => ({
  key,
  parts: [payload],
  byteLength: payload.byteLength,
}));
const report: FillReport = { stored: 0, refused: 0, deleted: 0, failures: [] };
const onError = (error: Error) => void report.failures.push(error.message);
const config = { "base_path": basePath, "max_capacity_gb": capacityGb };
const adapter = await openFs(
  eviction === undefined ? config : { ...config, eviction: { ...eviction } },
  { onError },
);
const stop = stopSignal();
const { signal } = new AbortController();
await say(report);
let at = 0;
for (let n = 0; n < batches && !stop.aborted; n++) {
  const some = Array.from(
    { length: batch },
    (_, i) => objects[(at + i) % objects.length],
  ).filter((object) => object !== undefined);
  at += batch;
  const { stored } = await adapter.store(some, { signal });
  report.stored += stored.popcount();
  report.refused += some.length - stored.popcount();
  await say(report);
  if (!options.deletes || n % 4 > 0) continue;
  const keys = some.slice(0, batch / 2).map(({ key }) => key);
  report.deleted += (await adapter.delete?.(keys, { signal }))?.deleted.popcount() ?? 0;
}
if (!stop.aborted) await new Promise((resolve) => stop.addEventListener("abort", resolve));
await adapter[Symbol.asyncDispose]();
await say(report);
