import { assertEquals } from "@std/assert";
import { delay } from "@std/async";
import { basename, join } from "@std/path";
import { filesIn, openFs } from "../../support/fs_adapter.ts";

/** Longer than any writer may take to show that it lives. */
const HOURS_MS = 2 * 3_600_000;
/** Looks at the directory, 10 ms apart, before a sweep counts as one that never ends. */
const LOOKS = 1_000;

/** Paths of the temporary files of a directory that the fs adapter keeps objects in. */
export async function temporaries(basePath: string): Promise<string[]> {
  return await leftovers(basePath, ".tmp");
}

/**
 * Asserts that an adapter that is opened when enough time has passed removes what dead writers left
 * behind: temporary files and locks. No writer may live.
 */
export async function assertReclaimed(basePath: string): Promise<void> {
  const left = await temporaries(basePath);
  const locks = await leftovers(basePath, ".lock");
  const longAgo = new Date(Date.now() - HOURS_MS);
  for (const path of [...left, ...locks]) await Deno.utime(path, longAgo, longAgo);
  await using _adapter = await openFs({ base_path: basePath });
  const writers = new Set(locks);
  const isSwept = async () =>
    (await temporaries(basePath)).length === 0 &&
    (await leftovers(basePath, ".lock")).every((path) => !writers.has(path));
  for (let look = 0; look < LOOKS && !(await isSwept()); look++) await delay(10);
  assertEquals(await temporaries(basePath), []);
  assertEquals((await leftovers(basePath, ".lock")).filter((path) => writers.has(path)), []);
}

/** Files that writers with a tag of their own made; what all of them share has another name. */
async function leftovers(basePath: string, suffix: string): Promise<string[]> {
  const paths: string[] = [];
  for (const path of await filesIn(basePath)) {
    const name = basename(path);
    if (/^[0-9]+-[0-9a-f]{16}/.test(name) && name.endsWith(suffix)) {
      paths.push(join(basePath, path));
    }
  }
  return paths;
}
