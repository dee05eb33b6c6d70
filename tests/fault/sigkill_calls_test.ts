import { assert, assertEquals, assertGreater } from "@std/assert";
import { join } from "@std/path";
import { pooledMap } from "@std/async";
import { openFs } from "../support/fs_adapter.ts";
import { runs } from "../support/runs.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { printFigures } from "./lab/figures.ts";
import { notRun } from "./lab/not_run.ts";
import { servedObjects } from "./lab/served_objects.ts";
import { StoredSet } from "./lab/stored_set.ts";
import { canInject, watchWriter } from "./lab/system_call_killer.ts";
import { assertReclaimed, temporaries } from "./lab/temporaries.ts";
import type { WriterOptions } from "./lab/writer_options.ts";

// deno test -A tests/fault/sigkill_calls_test.ts -- [--runs TIMES_EACH]

const { numRuns: TIMES } = runs(1);
/** All calls that access files; a writer is killed at those that it makes. */
const FILE_CALLS = [
  ...["open", "openat", "creat", "close", "read", "pread64", "write", "pwrite64", "writev"],
  ...["rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "rmdir"],
  ...["mkdir", "mkdirat", "fsync", "fdatasync", "sync_file_range", "fallocate", "ftruncate"],
  ...["flock", "lstat", "stat", "fstat", "statx", "newfstatat", "utimensat", "chmod", "fchmod"],
  ...["getdents64", "statfs", "copy_file_range"],
];
/** Calls that only look. A kill at one is a kill at the next that does something. */
const HARMLESS = ["close", "read", "pread64", "lstat", "stat", "fstat", "newfstatat", "getdents64"];
/** Directories for objects are made in the background, as many as there is time for. */
const MOST_OF_A_KIND = 50;
/** Writers at a time. */
const WRITERS = 2;
const STORED = { count: 2, payloadBytes: 2 ** 14, batch: 2, rounds: 2, acknowledges: true };
const set = new StoredSet(STORED.count, STORED.payloadBytes);

interface Kills {
  /** Writers killed. */
  kills: number;
  /** Writers killed at a call on a file of the directory. */
  killsAtFiles: number;
  /** Objects found whole. */
  whole: number;
  /** Objects found torn. */
  torn: number;
  /** Temporary files of killed writers. */
  tempsLeft: number;
}

/**
 * Kills writers at each of their file calls: at the first of a kind, the second, and so on until
 * one survives.
 */
async function killEverywhere(writer: Omit<WriterOptions, "basePath">): Promise<Kills> {
  await using directory = await tempDirectory();
  const sum: Kills = { kills: 0, killsAtFiles: 0, whole: 0, torn: 0, tempsLeft: 0 };
  let trials = 0;
  const trial = async (systemCalls: readonly string[], killAt?: number) => {
    const basePath = join(directory.path, String(trials++));
    await Deno.mkdir(basePath);
    const tracePath = `${basePath}.trace`;
    const watched = await watchWriter({ ...writer, basePath }, {
      systemCalls,
      tracePath,
      ...(killAt === undefined ? {} : { killAt }),
    });
    sum.tempsLeft += (await temporaries(basePath)).length;
    const { whole, torn } = await set.inspect(basePath);
    const what = `${systemCalls} ${killAt ?? ""}: ${watched.killedAt ?? "survived"}`;
    if (!writer.inPlace) {
      assertEquals(torn, [], what);
      // What was stored when the process died is stored.
      assertEquals([...watched.acknowledged].filter((n) => !whole.includes(n)), [], what);
      assertEquals(await servedObjects(basePath, set), { whole, torn }, what);
      await using adapter = await openFs({ base_path: basePath });
      await adapter.store(set.objects, { signal: new AbortController().signal });
      assertEquals((await set.inspect(basePath)).whole.length, STORED.count, what);
    }
    sum.kills += Number(!watched.hasSurvived);
    sum.killsAtFiles += Number(watched.killedAt?.includes(basePath) ?? false);
    sum.whole += whole.length;
    sum.torn += torn.length;
    await assertReclaimed(basePath);
    await Deno.remove(basePath, { recursive: true });
    return watched;
  };
  const { calls } = await trial(FILE_CALLS);
  const made = FILE_CALLS.filter((name) => calls.some((call) => call.startsWith(`${name}(`)))
    .filter((name) => !HARMLESS.includes(name));
  const done = pooledMap(WRITERS, made, async (name) => {
    for (let n = 1; n <= MOST_OF_A_KIND && !(await trial([name], n)).hasSurvived; n++);
  });
  for await (const _ of done);
  return sum;
}

for (const durability of ["none", "full"] as const) {
  Deno.test(`a writer killed at any system call leaves no wrong object: ${durability}`, async (t) => {
    if (!await canInject()) return await notRun(t, "strace cannot trace processes");
    for (let time = 0; time < TIMES; time++) {
      const { torn, ...kills } = await killEverywhere({ ...STORED, durability });
      assertGreater(kills.killsAtFiles, 8);
      assertGreater(kills.tempsLeft, 0, "no temporary file was left behind");
      printFigures("sigkill at system calls", { durability, ...kills, wrong: torn });
    }
  });
}

Deno.test("a writer in place killed at any system call is seen to tear objects", async (t) => {
  if (!await canInject()) return await notRun(t, "strace cannot trace processes");
  const { kills, torn } = await killEverywhere({ ...STORED, durability: "none", inPlace: true });
  assert(torn > 0, "the kills tore nothing: this test could not see it");
  printFigures("sigkill at system calls control", { kills, torn });
});
