// Stores and loads an object in an fs adapter; prints what was loaded, and the status of its threads.
import { openFs } from "../../support/fs_adapter.ts";
import { sealedObject } from "../../support/sealed_objects.ts";
import { testKey, testLayout } from "../../support/objects.ts";
import { waitUntil } from "../../support/wait_until.ts";

const [basePath = ""] = Deno.args;
const call = { signal: new AbortController().signal };
await using adapter = await openFs({ base_path: basePath, io_workers: 1 });
const threads = () => adapter.reportStatus?.().threads as { phase: string };
await waitUntil(() => ["ready", "unavailable"].includes(threads().phase));
const object = sealedObject(testKey(1), testLayout(1_000));
const { stored } = await adapter.store([object], call);
const loaded = await adapter.load([object], call);
// deno-lint-ignore no-console -- the test reads it
console.log(JSON.stringify([String(stored), String(loaded), threads()]));
