import { assert, assertEquals, assertGreater } from "@std/assert";
import { delay } from "@std/async";
import { type SeededRandom, seededRandom } from "../support/random.ts";
import { runs } from "../support/runs.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { printFigures } from "./lab/figures.ts";
import { servedObjects } from "./lab/served_objects.ts";
import { type Found, StoredSet } from "./lab/stored_set.ts";
import { assertReclaimed, temporaries } from "./lab/temporaries.ts";
import { WriterProcess } from "./lab/writer_process.ts";

// deno test -A tests/fault/sigkill_test.ts -- [--runs KILLS] [--seed S]

const { numRuns: KILLS, seed = Date.now() % 1_000_000 } = runs(300);
/** Writers at a time, in one directory. */
const WRITERS = 3;
const LONGEST_LIFE_MS = 40;
/** Number of kills after which the files of killed writers are removed. */
const KILLS_A_SWEEP = 100;
const STORED = { count: 24, payloadBytes: 2 ** 16, batch: 24 };
const set = new StoredSet(STORED.count, STORED.payloadBytes);

/**
 * Lets processes store the same objects into a directory concurrently, and kills each of them some
 * time after its start. None may fail before.
 *
 * @param options.meanwhile Called while they store.
 */
async function storeAndKill(
  basePath: string,
  random: SeededRandom,
  options: { writers?: number; inPlace?: boolean; meanwhile?: () => Promise<unknown> } = {},
): Promise<void> {
  const { writers = 1, inPlace = false, meanwhile } = options;
  await using running = new AsyncDisposableStack();
  const first = random.below(STORED.count);
  const what = { ...STORED, basePath, durability: "none", first, inPlace } as const;
  const starting = Array.from({ length: writers }, () => WriterProcess.start(what));
  const started = (await Promise.all(starting)).map((writer) => running.use(writer));
  await Promise.all(started.map((writer) => writer.go()));
  const killed = started.map(async (writer) => {
    await delay(random.below(LONGEST_LIFE_MS));
    await writer.kill();
  });
  await Promise.all([meanwhile?.(), ...killed]);
}

Deno.test(`${KILLS} writers killed at random moments leave no wrong object, seed ${seed}`, async () => {
  const random = seededRandom(seed);
  await using directory = await tempDirectory();
  const { path } = directory;
  const figures = { seed, kills: 0, inspectedFiles: 0, verifiedLoads: 0, wrong: 0, tempsLeft: 0 };
  const temps = new Set<string>();
  let unswept = 0;
  const check = async (): Promise<[read: Found, served: Found]> => {
    const read = await set.inspect(path);
    const served = await servedObjects(path, set);
    figures.inspectedFiles += read.whole.length;
    figures.verifiedLoads += served.whole.length;
    figures.wrong += read.torn.length + served.torn.length;
    return [read, served];
  };
  while (figures.kills < KILLS) {
    const writers = Math.min(WRITERS, KILLS - figures.kills);
    await storeAndKill(path, random, { writers, meanwhile: check });
    figures.kills += writers;
    for (const temp of await temporaries(path)) temps.add(temp);
    const [read, served] = await check();
    assertEquals(figures.wrong, 0, `after ${figures.kills} kills`);
    assertEquals(served, read, "objects that are whole are served");
    unswept += writers;
    if (unswept < KILLS_A_SWEEP && figures.kills < KILLS) continue;
    await assertReclaimed(path);
    unswept = 0;
  }
  // What the killed writers left does not stop one that lives.
  const what = { ...STORED, basePath: path, durability: "none", rounds: 1 } as const;
  await using last = await WriterProcess.start(what);
  await last.go();
  assert(await last.ended());
  assertEquals((await set.inspect(path)).whole.length, STORED.count);
  figures.tempsLeft = temps.size;
  // Otherwise no kill ever hit a write.
  assertGreater(figures.tempsLeft, 0, "no temporary file was left behind");
  printFigures("sigkill", figures);
});

Deno.test(`writers that write in place are seen to tear objects, seed ${seed}`, async () => {
  const random = seededRandom(seed);
  await using directory = await tempDirectory();
  let kills = 0;
  let torn = 0;
  for (; kills < 30 && torn === 0; kills++) {
    await storeAndKill(directory.path, random, { inPlace: true });
    torn += (await set.inspect(directory.path)).torn.length;
  }
  assert(torn > 0, "the kills tore nothing: this test could not see it");
  printFigures("sigkill control", { seed, kills, torn });
});
