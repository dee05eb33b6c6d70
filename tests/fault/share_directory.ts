// Performs random operations on a shared directory; prints the results.
import { dirname } from "@std/path";
import { hostFileSystem } from "../../adapters/_fs/file_system.ts";
import { ObjectPaths } from "../../adapters/_fs/object_paths.ts";
import { runLater } from "../../src/base/io/steps.ts";
import { publishFile } from "../../src/base/io/publish_file.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import { Bitmap, concatParts } from "../../src/adapter/contract.ts";
import type { GuardedObject } from "../../src/l2/adapter_guard.ts";
import { verifyObject } from "../../src/adapter/object_trailer.ts";
import { openFs } from "../support/fs_adapter.ts";
import { testKeys, testLayout } from "../support/objects.ts";
import { seededRandom } from "../support/random.ts";
import { emptyObject, sealedObject } from "../support/sealed_objects.ts";
import { say } from "./lab/program.ts";
import { payloadBytesOf, type ShareOptions, type ShareReport } from "./lab/share_options.ts";

const MOST_IN_A_BATCH = 8;
const options = JSON.parse(Deno.args[0] ?? "") as ShareOptions;
const { basePath, capacityGb, operations, keyCount } = options;
const random = seededRandom(options.seed);
const layouts = Array.from({ length: keyCount }, (_, n) => testLayout(payloadBytesOf(n)));
const keys = testKeys(keyCount);
const objects = keys.map((key, n) => sealedObject(key, layouts[n] ?? testLayout(0)));
const { signal } = new AbortController();
const report: ShareReport = {
  operations: 0,
  stores: 0,
  refused: 0,
  loads: 0,
  misses: 0,
  wrong: 0,
  deletes: 0,
  evicted: 0,
  failures: [],
};
const onError = (error: Error) => void report.failures.push(error.message);
const adapter = await openFs({ base_path: basePath, max_capacity_gb: capacityGb }, { onError });
const paths = new ObjectPaths({ basePath, layout: "kvtier", shards: 1 });

/** Publishes like the adapter, but with the same temporary name in all processes. */
async function storeUnderOneName({ key, parts }: GuardedObject): Promise<boolean> {
  const tmpPath = `${basePath}/tmp/one.tmp`;
  const finalPath = paths.pathOf(key);
  for (const path of [dirname(finalPath), dirname(tmpPath)]) {
    await Deno.mkdir(path, { recursive: true });
  }
  const files = {
    ...hostFileSystem,
    create: (path: string) =>
      Deno.open(path, { write: true, create: true, truncate: true }).then((file) => ({
        write: (bytes: Uint8Array) => file.write(bytes),
        flush: () => Promise.resolve(),
        syncData: () => file.syncData(),
        [Symbol.dispose]: () => file.close(),
      })),
  };
  try {
    const how = { mode: 0o600, durability: "none" } as const;
    await runLater(publishFile({ files, parts, tmpPath, finalPath, ...how }));
    return true;
  } catch (error) {
    report.failures.push(String(error));
    return false;
  }
}

async function store(batch: readonly GuardedObject[]): Promise<void> {
  if (options.hasOneTemporaryName) {
    const stored = await Promise.all(batch.map(storeUnderOneName));
    report.stores += stored.filter(Boolean).length;
    return;
  }
  const { stored } = await adapter.store(batch, { signal });
  report.stores += stored.popcount();
  report.refused += batch.length - stored.popcount();
}

async function load(numbers: readonly number[]): Promise<void> {
  const wanted = numbers.map((n) => objects[n] as GuardedObject);
  const rooms = wanted.map(({ key, layout }) => emptyObject(key, layout));
  const loaded = await adapter.load(rooms, { signal });
  for (const [i, { key, layout, parts }] of rooms.entries()) {
    if (!loaded.test(i)) {
      report.misses++;
      continue;
    }
    report.loads++;
    const bytes = concatParts(parts);
    const isRight = concatParts((wanted[i] as GuardedObject).parts).every((byte, at) =>
      byte === bytes[at]
    );
    if (verifyObject(key, layout, parts) !== null || !isRight) report.wrong++;
  }
}

async function lookUp(batch: readonly ObjectKey[]): Promise<void> {
  const found = await adapter.lookupAndLock(batch, { prefix: random.chance(0.3), signal });
  const locked = found.gather(batch);
  // This process does not evict it now, but others may: then it is a miss, not a failure.
  if (random.chance(0.5)) await load(locked.map((key) => keys.indexOf(key)));
  adapter.unlock?.(locked);
}

await say("ready");
await Deno.stdin.read(new Uint8Array(1));
while (report.operations < operations) {
  const first = random.below(keyCount);
  const count = 1 + random.below(MOST_IN_A_BATCH);
  const numbers = [...new Bitmap(keyCount, Math.min(keyCount, first + count)).indices()].slice(
    first,
  );
  report.operations += numbers.length;
  const dice = random.below(10);
  if (dice < 4) await store(numbers.map((n) => objects[n] as GuardedObject));
  else if (dice < 7) await load(numbers);
  else if (dice < 9) await lookUp(numbers.map((n) => keys[n] as ObjectKey));
  else {
    const removed = await adapter.delete?.(numbers.map((n) => keys[n] as ObjectKey), { signal });
    report.deletes += removed?.deleted.popcount() ?? 0;
  }
}
const { space } = adapter.reportStatus?.() as { space: { evictedObjects: number } };
report.evicted = space.evictedObjects;
await adapter[Symbol.asyncDispose]();
await say(report);
