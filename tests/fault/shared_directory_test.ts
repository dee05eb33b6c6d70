import { assertEquals, assertGreater, assertGreaterOrEqual } from "@std/assert";
import { hostFileSystem } from "../../adapters/_fs/file_system.ts";
import { openFs } from "../support/fs_adapter.ts";
import { testKey, testKeys, testLayout } from "../support/objects.ts";
import { runs } from "../support/runs.ts";
import { sealedObject } from "../support/sealed_objects.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { accountOf, allocationIn, recount } from "./lab/accounts.ts";
import { openFileStore } from "./lab/open_file_store.ts";
import { printFigures } from "./lab/figures.ts";
import { LabProgram } from "./lab/program.ts";
import type { ShareOptions, ShareReport } from "./lab/share_options.ts";
import { assertReclaimed } from "./lab/temporaries.ts";

// deno test -A tests/fault/shared_directory_test.ts -- [--runs OPERATIONS] [--seed S]

const { numRuns: OPERATIONS, seed = Date.now() % 1_000_000 } = runs(8_000);
const PROCESSES = 8;
const KEYS = 300;
/** Half of the objects fit, so that evictions continue. */
const CAPACITY = 2.5 * 2 ** 20;
const program = new URL("./share_directory.ts", import.meta.url);

/** Runs processes on one directory at the same time and adds up their results. */
async function share(options: Omit<ShareOptions, "seed" | "capacityGb" | "keyCount">) {
  await using processes = new AsyncDisposableStack();
  const started = await Promise.all(Array.from({ length: PROCESSES }, async (_, i) => {
    const all = { capacityGb: CAPACITY / 2 ** 30, keyCount: KEYS, seed: seed + i, ...options };
    return processes.use(await LabProgram.start(program, all));
  }));
  const reports = await Promise.all(started.map((child) => child.stop())) as ShareReport[];
  const sum = (field: Exclude<keyof ShareReport, "failures">) =>
    reports.reduce((total, report) => total + report[field], 0);
  return {
    operations: sum("operations"),
    stores: sum("stores"),
    refused: sum("refused"),
    loads: sum("loads"),
    misses: sum("misses"),
    wrong: sum("wrong"),
    deletes: sum("deletes"),
    evicted: sum("evicted"),
    failures: reports.flatMap(({ failures }) => failures),
  };
}

Deno.test(`${PROCESSES} processes share a directory, seed ${seed}`, async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const { failures, ...figures } = await share({
    basePath: path,
    operations: Math.ceil(OPERATIONS / PROCESSES),
  });
  assertEquals([...new Set(failures)], [], "failures that are no refusals");
  assertEquals(figures.wrong, 0);
  assertGreater(figures.loads, 0);
  assertGreater(figures.evicted, 0, "nothing was evicted");
  const left = allocationIn(path);
  assertEquals([left.temporaries, left.locks], [0, 0], "temporary files and locks");
  const account = await accountOf(path);
  assertEquals(account?.leases, {}, "what was taken in advance is given back");
  assertGreaterOrEqual(account?.used ?? 0, left.bytes, "the account says no less than the truth");
  const { used } = await recount(path, { max_capacity_gb: CAPACITY / 2 ** 30 }) ?? {};
  assertEquals(used, allocationIn(path).bytes, "the account after a recount");
  await assertReclaimed(path);
  printFigures("shared directory", {
    seed,
    processes: PROCESSES,
    ...figures,
    failures: failures.length,
    accountBytes: account?.used ?? 0,
    diskBytes: left.bytes,
  });
});

Deno.test(`writers that share a temporary name are seen to fail, seed ${seed}`, async () => {
  await using directory = await tempDirectory();
  const { failures, wrong, stores } = await share({
    basePath: directory.path,
    operations: 2_000,
    hasOneTemporaryName: true,
  });
  assertGreater(failures.length, 0, "no store failed: this test could not see it");
  assertGreater(wrong, 0, "no wrong object was loaded: this test could not see it");
  printFigures("shared directory control", { seed, stores, failures: failures.length, wrong });
});

Deno.test("an object evicted while it is replaced is accounted for once", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const config = { "base_path": path, "max_capacity_gb": CAPACITY / 2 ** 30 };
  await using other = await openFs(config);
  const { signal } = new AbortController();
  const object = sealedObject(testKey(0), testLayout(2 ** 16));
  let isRemoving = false;
  await using store = await openFileStore(path, CAPACITY, {
    ...hostFileSystem,
    async rename(from, to) {
      if (isRemoving) await other.delete?.([object.key], { signal });
      await hostFileSystem.rename(from, to);
    },
  });
  // Both know the account, and what is taken in advance hides nothing.
  await store.store([object], { signal });
  isRemoving = true;
  for (let i = 0; i < 10; i++) await store.store([object], { signal });
  await store[Symbol.asyncDispose]();
  const { bytes } = allocationIn(path);
  assertGreater(bytes, 0);
  assertGreaterOrEqual((await accountOf(path))?.used ?? 0, bytes);
});

Deno.test("replacing objects evicts no others", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  await using store = await openFileStore(path, CAPACITY, hostFileSystem);
  const { signal } = new AbortController();
  const objects = testKeys(16).map((key) => sealedObject(key, testLayout(2 ** 16)));
  await store.store(objects, { signal });
  for (let i = 0; i < 200; i++) await store.store(objects.slice(-1), { signal });
  const found = await store.lookupAndLock(objects.map(({ key }) => key), { prefix: false, signal });
  assertEquals(found.popcount(), objects.length);
});

Deno.test("a writer whose first stores run concurrently creates one lock", async () => {
  await using directory = await tempDirectory();
  const { signal } = new AbortController();
  const locked: string[] = [];
  await using store = await openFileStore(directory.path, CAPACITY, {
    ...hostFileSystem,
    async lock(path, options) {
      if (/[0-9a-f]{16}\.lock$/.test(path)) locked.push(path);
      // Others look whether it is there meanwhile.
      await hostFileSystem.lstat(directory.path);
      return await hostFileSystem.lock(path, options);
    },
  });
  const objects = testKeys(8).map((key) => sealedObject(key, testLayout(1024)));
  const results = await Promise.all(objects.map((object) => store.store([object], { signal })));
  assertEquals(results.map(({ stored }) => stored.popcount()), objects.map(() => 1));
  assertEquals(locked.length, 1);
  assertEquals(allocationIn(directory.path).locks, 1);
});
