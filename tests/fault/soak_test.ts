import { assertEquals, assertGreater, assertLess } from "@std/assert";
import { runs } from "../support/runs.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { accountOf, allocationIn, recount } from "./lab/accounts.ts";
import { printFigures } from "./lab/figures.ts";
import { notRun } from "./lab/not_run.ts";
import { LabProgram } from "./lab/program.ts";
import type { Sample, SoakReport } from "./lab/soak_options.ts";

// KVTIER_SOAK_SECONDS=3600 deno test -A tests/fault/soak_test.ts -- [--runs SECONDS] [--seed S]

const usual = Number(Deno.env.get("KVTIER_SOAK_SECONDS") ?? 10);
const { numRuns: SECONDS, seed = Date.now() % 1_000_000 } = runs(usual);
/** Shorter runs show only the initial growth of the runtime. */
const LONG_SECONDS = 600;
const MOST_MIB_A_MINUTE = 0.5;
const CAPACITY_GB = 4 / 1024;
const program = new URL("./soak_directory.ts", import.meta.url);
const obstacle = Deno.build.os === "linux" ? undefined : "there is no /proc";

/** Linear fit of the last two thirds of the samples, with its uncertainty. */
function growth(samples: readonly Sample[]): { slope: number; interval: number } {
  const late = samples.slice(Math.floor(samples.length / 3));
  const mean = (numbers: readonly number[]) =>
    numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
  const [x, y] = [mean(late.map(({ minutes }) => minutes)), mean(late.map(({ rssMib }) => rssMib))];
  const sum = (term: (sample: Sample) => number) =>
    late.reduce((total, sample) => total + term(sample), 0);
  const spread = sum(({ minutes }) => (minutes - x) ** 2);
  const slope = sum(({ minutes, rssMib }) => (minutes - x) * (rssMib - y)) / spread;
  const residual = sum(({ minutes, rssMib }) => (rssMib - y - slope * (minutes - x)) ** 2);
  return { slope, interval: 1.96 * Math.sqrt(residual / (late.length - 2) / spread) };
}

async function soak(basePath: string, seconds: number, leaks: boolean): Promise<SoakReport> {
  await using child = await LabProgram.start(program, { basePath, seconds, seed, leaks });
  return await child.stop() as SoakReport;
}

Deno.test(`${SECONDS} s of work leak nothing, seed ${seed}`, async (t) => {
  if (obstacle !== undefined) return await notRun(t, obstacle);
  await using directory = await tempDirectory();
  const { path } = directory;
  const { samples, openFiles: [before, after], ...report } = await soak(path, SECONDS, false);
  assertEquals(report.wrong, 0);
  assertEquals(report.problems, []);
  for (const work of ["puts", "hits", "deleted", "evicted"] as const) {
    assertGreater(report[work], 0, work);
  }
  assertEquals(report.bytesHeld, 0, "bytes that the cache holds when it is empty");
  assertEquals(after, before, "open files");
  const left = allocationIn(path);
  assertEquals([left.temporaries, left.locks], [0, 0], "temporary files and locks");
  const { leases } = await accountOf(path) ?? {};
  assertEquals(leases, {});
  const account = await recount(path, { max_capacity_gb: CAPACITY_GB });
  assertEquals(account?.used, allocationIn(path).bytes);
  const { slope, interval } = growth(samples);
  if (SECONDS >= LONG_SECONDS) assertLess(slope - interval, MOST_MIB_A_MINUTE, "MiB a minute");
  const { rounds, puts, hits, deleted, evicted } = report;
  printFigures("soak", {
    seed,
    seconds: SECONDS,
    rounds,
    puts,
    hits,
    deleted,
    evicted,
    rssMibAtEnd: Math.round(samples.at(-1)?.rssMib ?? NaN),
    rssMibAMinute: Number(slope.toFixed(3)),
    interval95: Number(interval.toFixed(3)),
    openFilesBefore: before,
    openFilesAfter: after,
    temporariesLeft: left.temporaries,
    locksLeft: left.locks,
  });
});

Deno.test(`control: a leak is detected, seed ${seed}`, async (t) => {
  if (obstacle !== undefined) return await notRun(t, obstacle);
  await using directory = await tempDirectory();
  const { samples, openFiles: [before, after] } = await soak(directory.path, 3, true);
  assertGreater(after, before, "no file stayed open: this test could not see it");
  const { slope, interval } = growth(samples);
  assertGreater(slope - interval, MOST_MIB_A_MINUTE, "this test could not see the memory");
  printFigures("soak control", {
    openFilesBefore: before,
    openFilesAfter: after,
    rssMibAMinute: Number(slope.toFixed(3)),
    interval95: Number(interval.toFixed(3)),
  });
});
