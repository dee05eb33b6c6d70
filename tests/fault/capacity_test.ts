import {
  assertEquals,
  assertGreater,
  assertGreaterOrEqual,
  assertLess,
  assertLessOrEqual,
} from "@std/assert";
import { delay } from "@std/async";
import { statfsSync } from "node:fs";
import { join } from "@std/path";
import { hostFileSystem } from "../../adapters/_fs/file_system.ts";
import { type ScheduleOptions, systemClock } from "../../src/base/clock.ts";
import { openFs } from "../support/fs_adapter.ts";
import { testKeys } from "../support/objects.ts";
import { seededRandom } from "../support/random.ts";
import { runs } from "../support/runs.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { waitUntil } from "../support/wait_until.ts";
import { accountOf, allocationIn, recount } from "./lab/accounts.ts";
import { printFigures } from "./lab/figures.ts";
import type { FillOptions, FillReport } from "./lab/fill_options.ts";
import { mountObstacle, tmpfsMount } from "./lab/loop_mount.ts";
import { notRun } from "./lab/not_run.ts";
import { openFileStore } from "./lab/open_file_store.ts";
import { LabProgram } from "./lab/program.ts";

// deno test -A tests/fault/capacity_test.ts -- [--runs SECONDS_A_CASE] [--seed S]

const { numRuns: SECONDS, seed = Date.now() % 1_000_000 } = runs(2);
const CAPACITY = Math.floor(0.02 * 2 ** 30);
const WRITERS = 4;
const PAYLOAD_BYTES = 2 ** 16;
/** Together, the objects of the writers take four times the capacity. */
const COUNT = Math.ceil(4 * CAPACITY / PAYLOAD_BYTES / WRITERS);
/** Bytes of the ledger and other files that are not objects. */
const OTHER_BYTES = 2 ** 16;
const OVERSHOOT = 0.01;
const program = new URL("./fill_directory.ts", import.meta.url);
const obstacle = await mountObstacle("tmpfs");

const MINUTE_MS = 60_000;
/** Evicts as late and as little as possible. */
const LAST_MOMENT = { eviction: { trigger_watermark: 1, eviction_ratio: 0.05 } };

/** Samples the usage of a file system continuously. */
class UseOfDisk {
  /** Maximum usage seen. */
  most = 0;
  /** Takes a sample. */
  looks = 0;
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  /** Current usage in bytes. */
  now(): number {
    const { blocks, bfree, bsize } = statfsSync(this.#path);
    return (blocks - bfree) * bsize;
  }

  /** Samples as often as possible, for at least some time and until a condition holds. */
  async watch(ms: number, isSo: () => boolean = () => true): Promise<void> {
    for (const end = Date.now() + ms; Date.now() < end || !isSo();) {
      for (let i = 0; i < 20; i++) this.#look();
      // Yields, so that the writers get processor time.
      await delay(1);
    }
  }

  #look(): void {
    this.most = Math.max(this.most, this.now());
    this.looks++;
  }
}

/** Starts a writer that stores its own objects. */
async function startWriter(
  stack: AsyncDisposableStack,
  basePath: string,
  number: number,
  options: Partial<FillOptions> = {},
): Promise<LabProgram> {
  const all: FillOptions = {
    basePath,
    capacityGb: CAPACITY / 2 ** 30,
    payloadBytes: PAYLOAD_BYTES,
    count: COUNT,
    first: number * COUNT,
    batch: 16,
    ...options,
  };
  return stack.use(await LabProgram.start(program, all));
}

/** Objects that writers have stored so far. */
function storedBy(writers: readonly LabProgram[]): number {
  return writers.reduce((sum, { lastLine }) => sum + (lastLine as FillReport).stored, 0);
}

/** Stops writers and adds up their results. */
async function stopAll(writers: readonly LabProgram[]): Promise<FillReport> {
  const reports = await Promise.all(writers.map((writer) => writer.stop())) as FillReport[];
  const sum = (field: Exclude<keyof FillReport, "failures">) =>
    reports.reduce((total, report) => total + report[field], 0);
  const failures = reports.flatMap(({ failures }) => failures);
  return { stored: sum("stored"), refused: sum("refused"), deleted: sum("deleted"), failures };
}

/** Usage beyond the capacity, as a share of the capacity. */
function overshootOf({ most }: UseOfDisk): number {
  return Math.max(0, (most - OTHER_BYTES) / CAPACITY - 1);
}

/** Asserts that the ledger does not understate the usage, and that a recount corrects it. */
async function assertAccount(basePath: string): Promise<void> {
  const { bytes } = allocationIn(basePath);
  const { used = 0 } = await accountOf(basePath) ?? {};
  assertLessOrEqual(bytes, used, "the account says no less than the truth");
  const after = await recount(basePath, { max_capacity_gb: CAPACITY / 2 ** 30 });
  assertEquals(after?.used, allocationIn(basePath).bytes, "after a recount");
}

const kinds: Record<string, { options: Partial<FillOptions>; batch?: number }> = {
  "storing": { options: {} },
  "storing and evicting at the last moment": {
    options: LAST_MOMENT,
  },
  "storing and deleting": { options: { deletes: true } },
};

for (const [name, { options }] of Object.entries(kinds)) {
  Deno.test(`capacity: ${WRITERS} processes ${name} do not exceed it`, async (t) => {
    if (obstacle !== undefined) return await notRun(t, obstacle);
    // The disk cannot hold an overshoot: a store would fail.
    await using mount = await tmpfsMount(Math.floor(CAPACITY * (1 + OVERSHOOT)) + OTHER_BYTES);
    await using stack = new AsyncDisposableStack();
    const basePath = join(mount.path, "base");
    const idle = await startWriter(stack, basePath, WRITERS, { batches: 1 });
    const writers = await Promise.all(
      Array.from({ length: WRITERS }, (_, i) => startWriter(stack, basePath, i, options)),
    );
    const use = new UseOfDisk(mount.path);
    // Long enough for evictions to happen.
    await use.watch(1_000 * SECONDS, () => storedBy(writers) > 2 * CAPACITY / PAYLOAD_BYTES);
    const { failures, ...figures } = await stopAll([...writers, idle]);
    assertEquals([...new Set(failures)], []);
    assertLess(overshootOf(use), OVERSHOOT);
    assertGreater(use.most, 0.6 * CAPACITY, "the capacity is used");
    await assertAccount(basePath);
    printFigures(`capacity, ${name}`, {
      processes: WRITERS + 1,
      ...figures,
      looks: use.looks,
      maxBytes: use.most,
      capacityBytes: CAPACITY,
      overshoot: overshootOf(use),
    });
  });
}

Deno.test(`capacity: killed writers do not reduce it, seed ${seed}`, async (t) => {
  if (obstacle !== undefined) return await notRun(t, obstacle);
  await using mount = await tmpfsMount(Math.floor(CAPACITY * (1 + OVERSHOOT)) + OTHER_BYTES);
  const basePath = join(mount.path, "base");
  const random = seededRandom(seed);
  const use = new UseOfDisk(mount.path);
  await using stack = new AsyncDisposableStack();
  const steady = await startWriter(stack, basePath, 0, LAST_MOMENT);
  let kills = 0;
  for (const end = Date.now() + 2_000 * SECONDS; Date.now() < end; kills++) {
    const victim = await startWriter(stack, basePath, 1 + kills % (WRITERS - 1), {
      batch: 32,
      ...LAST_MOMENT,
    });
    await use.watch(random.below(300));
    await victim.kill();
  }
  const before = await stopAll([steady]);
  assertEquals([...new Set(before.failures)], []);
  assertLess(overshootOf(use), OVERSHOOT);
  const last = await startWriter(stack, basePath, 0, LAST_MOMENT);
  await use.watch(1_000, () => storedBy([last]) > COUNT / 4);
  const after = await stopAll([last]);
  assertEquals([...new Set(after.failures)], []);
  assertEquals(after.refused, 0);
  assertLess(overshootOf(use), OVERSHOOT);
  const { bytes, temporaries } = allocationIn(basePath);
  assertGreater(bytes, 0.6 * CAPACITY * 0.95, "the capacity is usable");
  await assertAccount(basePath);
  printFigures("capacity, killed writers", {
    seed,
    kills,
    stored: before.stored + after.stored,
    refused: before.refused + after.refused,
    temporaries,
    usedBytes: bytes,
    maxBytes: use.most,
    capacityBytes: CAPACITY,
    overshoot: overshootOf(use),
  });
});

Deno.test("capacity: control: a writer that ignores it is seen to exceed it", async (t) => {
  if (obstacle !== undefined) return await notRun(t, obstacle);
  await using mount = await tmpfsMount(2 * CAPACITY);
  await using stack = new AsyncDisposableStack();
  const basePath = join(mount.path, "base");
  const writers = [
    await startWriter(stack, basePath, 0),
    await startWriter(stack, basePath, 1, { capacityGb: 0, batches: 20, count: 2 * COUNT }),
  ];
  const use = new UseOfDisk(mount.path);
  await use.watch(1_000);
  await stopAll(writers);
  assertGreater(overshootOf(use), OVERSHOOT);
  printFigures("capacity control", { maxBytes: use.most, overshoot: overshootOf(use) });
});

Deno.test("capacity: objects used by one writer stay while another one stores", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const { signal } = new AbortController();
  let skipped = 0;
  const clock = {
    now: () => systemClock.now() + skipped,
    // Uses are written immediately; deadlines are unchanged.
    schedule: (callback: () => void, ms: number, options?: ScheduleOptions) =>
      systemClock.schedule(callback, options?.background && ms < MINUTE_MS ? 0 : ms, options),
  };
  const config = { "base_path": path, "max_capacity_gb": CAPACITY / 2 ** 30 };
  // They share only the directory and take turns, so that neither can be too slow for the other.
  await using user = await openFs(config, { clock });
  await using writer = await openFs(config);
  const parts = [new Uint8Array(PAYLOAD_BYTES)];
  const objects = testKeys(1000).map((key) => ({ key, parts, byteLength: PAYLOAD_BYTES }));
  const used = objects.splice(0, 20);
  await user.store(used, { signal });
  let uses = 0;
  let stored = 0;
  for (; objects.length > 0; uses++) {
    // A use is recorded once a minute.
    skipped += MINUTE_MS;
    for (const { key } of used) {
      const found = await user.lookupAndLock([key], { prefix: true, signal });
      assertEquals(found.popcount(), 1, `after ${uses} uses of ${stored} objects`);
      user.unlock?.([key]);
    }
    stored += (await writer.store(objects.splice(0, 8), { signal })).stored.popcount();
  }
  assertGreater(stored, 2 * CAPACITY / PAYLOAD_BYTES, "objects made room for others");
  printFigures("capacity, fair", { uses, stored, kept: used.length });
});

Deno.test("capacity: a count includes files being written", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const { signal } = new AbortController();
  const isLetGo = Promise.withResolvers<void>();
  const isWritten = Promise.withResolvers<void>();
  const objects = testKeys(6).map((key) => {
    return { key, parts: [new Uint8Array(PAYLOAD_BYTES)], byteLength: PAYLOAD_BYTES };
  });
  let written = 0;
  await using store = await openFileStore(path, CAPACITY, {
    ...hostFileSystem,
    async rename(from, to) {
      if (++written === objects.length) isWritten.resolve();
      await isLetGo.promise;
      await hostFileSystem.rename(from, to);
    },
  });
  // The second batch reserves space while the first one is being written.
  const stores = [objects.slice(0, 4), objects.slice(4)].map((some) =>
    store.store(some, { signal })
  );
  await isWritten.promise;
  await recount(path, { "max_capacity_gb": CAPACITY / 2 ** 30 });
  isLetGo.resolve();
  await Promise.all(stores);
  const { bytes } = allocationIn(path);
  assertEquals(bytes, objects.length * PAYLOAD_BYTES);
  assertLessOrEqual(bytes, (await accountOf(path))?.used ?? 0);
});

Deno.test("capacity: a reduced capacity is reached in the background", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const { signal } = new AbortController();
  const config = { "base_path": path, "max_capacity_gb": CAPACITY / 2 ** 30 };
  const parts = [new Uint8Array(PAYLOAD_BYTES)];
  const objects = testKeys(100).map((key) => ({ key, parts, byteLength: PAYLOAD_BYTES }));
  {
    await using writer = await openFs(config);
    assertEquals((await writer.store(objects, { signal })).stored.popcount(), objects.length);
  }
  const before = allocationIn(path).bytes;
  assertGreaterOrEqual(before, objects.length * PAYLOAD_BYTES);
  const smaller = Math.floor(before / 4);
  await using _adapter = await openFs({ ...config, "max_capacity_gb": smaller / 2 ** 30 });
  await waitUntil(() => allocationIn(path).bytes <= smaller);
  const after = allocationIn(path).bytes;
  assertGreater(after, 0);
  printFigures("capacity, smaller", { beforeBytes: before, afterBytes: after, smaller });
});
