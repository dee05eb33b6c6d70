import { Buffer } from "node:buffer";
import { assert, assertEquals } from "@std/assert";
import { delay } from "@std/async";
import { concatParts } from "../../src/l2/adapter.ts";
import { childCommand } from "../support/child.ts";
import { countHits, openFsCache } from "../support/fs_cache.ts";
import { fileOf, filesIn } from "../support/fs_adapter.ts";
import { testKeys, testLayout } from "../support/objects.ts";
import { sealedObject } from "../support/sealed_objects.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { KILLED_OBJECT_BYTES, KILLED_OBJECTS } from "./killed_objects.ts";

const KILLS = 30;
/** Writers at a time, in one directory. */
const WRITERS = 2;
const LONGEST_LIFE_MS = 120;

const program = new URL("./store_forever.ts", import.meta.url);
const layout = testLayout(KILLED_OBJECT_BYTES);
const keys = testKeys(KILLED_OBJECTS);
const expected = keys.map((key) => concatParts(sealedObject(key, layout).parts));

/** Lets a child store into a directory, and kills it `lifeMs` after it began. */
async function storeAndKill(path: string, method: string, lifeMs: number): Promise<void> {
  const child = childCommand(program, { args: [path, method] }).spawn();
  const output = child.stdout.getReader();
  await output.read();
  await delay(lifeMs);
  child.kill("SIGKILL");
  const { signal } = await child.status;
  assertEquals(signal, "SIGKILL");
  await output.cancel();
}

/** How many of the objects have files, and how many of these are not exactly their object. */
async function inspect(path: string): Promise<{ present: number; torn: number }> {
  const counts = { present: 0, torn: 0 };
  for (const [i, key] of keys.entries()) {
    const bytes = await Deno.readFile(fileOf(path, key)).catch(() => null);
    if (bytes === null) continue;
    counts.present++;
    if (Buffer.compare(bytes, expected[i] ?? new Uint8Array()) !== 0) counts.torn++;
  }
  return counts;
}

/** Numbers from 0 to 1 that are a function of the seed (mulberry32). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = state + 0x6d2b79f5 | 0;
    let mixed = Math.imul(state ^ state >>> 15, 1 | state);
    mixed = mixed + Math.imul(mixed ^ mixed >>> 7, 61 | mixed) ^ mixed;
    return ((mixed ^ mixed >>> 14) >>> 0) / 2 ** 32;
  };
}

const seed = Number(Deno.env.get("KVTIER_TEST_SEED") ?? Math.floor(Math.random() * 2 ** 31));

Deno.test(`${KILLS} writers killed at random moments leave no wrong object, seed ${seed}`, async () => {
  const random = seeded(seed);
  await using directory = await tempDirectory();
  let left = 0;
  for (let killed = 0; killed < KILLS; killed += WRITERS) {
    await Promise.all(Array.from({ length: WRITERS }, () => {
      return storeAndKill(directory.path, "adapter", random() * LONGEST_LIFE_MS);
    }));
    const { present, torn } = await inspect(directory.path);
    assertEquals(torn, 0);
    await using cache = await openFsCache(directory.path);
    const hits = await countHits(cache, keys, layout);
    if (present === keys.length) assertEquals(hits, keys.length);
    left = (await filesIn(`${directory.path}/tmp`)).length;
  }
  const { present } = await inspect(directory.path);
  assertEquals(present, keys.length);
  // Otherwise no kill ever hit a write.
  assert(left > 0, "no temporary file was left behind");
});

Deno.test(`writers that write in place are seen to tear objects, seed ${seed}`, async () => {
  const random = seeded(seed);
  await using directory = await tempDirectory();
  let torn = 0;
  for (let killed = 0; killed < KILLS && torn === 0; killed++) {
    await storeAndKill(directory.path, "in-place", random() * LONGEST_LIFE_MS);
    torn += (await inspect(directory.path)).torn;
  }
  assert(torn > 0, "the kills tore nothing: this test could not see it");
});
