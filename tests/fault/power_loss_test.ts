import { assertEquals, assertGreater } from "@std/assert";
import { delay } from "@std/async";
import { join } from "@std/path";
import { type SeededRandom, seededRandom } from "../support/random.ts";
import { runs } from "../support/runs.ts";
import { cutPower, type LastWrites } from "./lab/cut_power.ts";
import { printFigures } from "./lab/figures.ts";
import { type LoopFileSystem, loopMount, mountObstacle } from "./lab/loop_mount.ts";
import { notRun } from "./lab/not_run.ts";
import { servedObjects } from "./lab/served_objects.ts";
import { StoredSet } from "./lab/stored_set.ts";
import type { WriterOptions } from "./lab/writer_options.ts";
import { WriterProcess } from "./lab/writer_process.ts";

// deno test -A tests/fault/power_loss_test.ts -- [--runs CUTS_A_CELL] [--seed S]

const { numRuns: CUTS, seed = Date.now() % 1_000_000 } = runs(6);
/** Maximum time from the start of a writer to the power failure, in milliseconds. */
const LONGEST_LIFE_MS = 150;
const STORED = { count: 40, payloadBytes: 2 ** 16, batch: 4, acknowledges: true, mayFail: true };
const set = new StoredSet(STORED.count, STORED.payloadBytes);

interface Losses {
  /** Power cuts. */
  cuts: number;
  /** Objects acknowledged before the power failure. */
  acknowledged: number;
  /** Acknowledged objects that were missing afterwards. */
  lost: number;
  /** Torn files that a reader without verification would serve. */
  torn: number;
  /** Objects served by the cache. */
  verifiedLoads: number;
  /** Served objects with wrong bytes. */
  wrong: number;
}

/** Cuts the power while a process stores into a directory, and looks at what the next one finds. */
async function cutWhileStoring(
  type: LoopFileSystem,
  durability: WriterOptions["durability"],
  random: SeededRandom,
): Promise<Losses> {
  await using mount = await loopMount(type);
  const basePath = join(mount.path, "base");
  const sum: Losses = { cuts: 0, acknowledged: 0, lost: 0, torn: 0, verifiedLoads: 0, wrong: 0 };
  let kept: readonly number[] = [];
  while (sum.cuts < CUTS) {
    // Objects are new, or replace those that survived the last cut.
    if (random.chance(0.5)) {
      await Deno.remove(basePath, { recursive: true }).catch(() => {});
      kept = [];
    }
    // Every other time, so that few cuts see both.
    const last: LastWrites = sum.cuts % 2 === 0 ? "journal" : "nothing";
    const acknowledged = new Set(kept);
    {
      // One round makes new files, more replace them, which file systems take for another thing.
      const rounds = random.chance(0.5) ? { rounds: 1 } : {};
      await using writer = await WriterProcess.start({
        ...STORED,
        ...rounds,
        basePath,
        durability,
      });
      await writer.go();
      await writer.hasAcknowledged();
      await delay(random.below(LONGEST_LIFE_MS));
      cutPower(mount.path, last);
      await writer.kill();
      for (const n of writer.acknowledged) acknowledged.add(n);
    }
    await mount.remount();
    const { whole, torn } = await set.inspect(basePath);
    const served = await servedObjects(basePath, set);
    sum.cuts++;
    sum.acknowledged += acknowledged.size;
    sum.lost += [...acknowledged].filter((n) => !whole.includes(n)).length;
    sum.torn += torn.length;
    sum.verifiedLoads += served.whole.length;
    sum.wrong += served.torn.length;
    assertEquals(served, { whole, torn: [] }, `cut ${sum.cuts}, last ${last}`);
    kept = whole;
  }
  return sum;
}

for (const type of ["ext4", "xfs"] as const) {
  for (const durability of ["none", "file", "full"] as const) {
    Deno.test(`power cuts on ${type} cost what durability ${durability} allows, seed ${seed}`, async (t) => {
      const obstacle = await mountObstacle(type);
      if (obstacle !== undefined) return await notRun(t, obstacle);
      const losses = await cutWhileStoring(type, durability, seededRandom(seed));
      printFigures("power loss", { fs: type, durability, seed, ...losses });
      assertGreater(losses.acknowledged, 0);
      if (durability !== "none") {
        assertEquals(losses.torn, 0, "the data of a published file is there");
        assertGreater(losses.verifiedLoads, 0);
      }
      if (durability === "full") assertEquals(losses.lost, 0, "acknowledged objects are there");
    });
  }
  Deno.test(`a power cut on ${type} is seen to tear and lose unsynced files`, async (t) => {
    const obstacle = await mountObstacle(type);
    if (obstacle !== undefined) return await notRun(t, obstacle);
    await using mount = await loopMount(type);
    const basePath = join(mount.path, "base");
    const options = { ...STORED, basePath, durability: "none", rounds: 1 } as const;
    await using writer = await WriterProcess.start(options);
    await writer.go();
    await writer.ended();
    assertEquals(writer.acknowledged.size, STORED.count);
    cutPower(mount.path, "journal");
    await mount.remount();
    const { whole, torn } = await set.inspect(basePath);
    const served = await servedObjects(basePath, set);
    assertEquals(served, { whole, torn: [] });
    // A reader that does not verify would take these for objects.
    assertGreater(torn.length, 0, "the cut tore no file: this test could not see it");
    const lost = STORED.count - whole.length;
    assertGreater(lost, 0, "the cut lost no object: this test could not see it");
    printFigures("power loss control", { fs: type, lost, torn: torn.length });
  });
}
