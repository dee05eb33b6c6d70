// Opens a directory full of objects, loads one of them at once, and waits until all are counted;
// says how long that took, and what memory. Runs with --v8-flags=--expose-gc.
import { delay } from "@std/async";
import { verifyObject } from "../../src/adapter/object_trailer.ts";
import { openFs } from "../support/fs_adapter.ts";
import { testKey, testLayout } from "../support/objects.ts";
import { emptyObject } from "../support/sealed_objects.ts";
import { say } from "./lab/program.ts";
import type { RecoveryOptions, RecoveryReport } from "./lab/recovery_options.ts";

interface Status {
  readonly space: { readonly usedBytes?: number; readonly isCounting: boolean };
  readonly reclaimedTemporaryFiles: number;
}

const { basePath, wanted, payloadBytes } = JSON.parse(Deno.args[0] ?? "") as RecoveryOptions;
const collect = (globalThis as unknown as { gc: () => void }).gc;
const layout = testLayout(payloadBytes);
const { key, parts, byteLength } = emptyObject(testKey(wanted), layout);
const { signal } = new AbortController();
const failures: string[] = [];
const onError = (error: Error) => void failures.push(error.message);
await say("ready");
collect();
const before = Deno.memoryUsage();
const start = performance.now();
const adapter = await openFs({ base_path: basePath, max_capacity_gb: 1000 }, { onError });
const status = () => adapter.reportStatus?.() as unknown as Status;
const loaded = await adapter.load([{ key, parts, byteLength }], { signal });
const firstHitMs = performance.now() - start;
const isCountingAtHit = status().space.usedBytes === undefined;
const isHit = loaded.test(0) && verifyObject(key, layout, parts) === null;
while (status().space.usedBytes === undefined || status().space.isCounting) await delay(5);
const countedMs = performance.now() - start;
collect();
const after = Deno.memoryUsage();
const report: RecoveryReport = {
  isHit,
  firstHitMs,
  isCountingAtHit,
  countedMs,
  usedBytes: status().space.usedBytes ?? NaN,
  reclaimed: status().reclaimedTemporaryFiles,
  heapBytes: after.heapUsed - before.heapUsed,
  rssBytes: after.rss - before.rss,
  failures,
};
await adapter[Symbol.asyncDispose]();
await say(report);
