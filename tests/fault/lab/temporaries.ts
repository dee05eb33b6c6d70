import { assertEquals } from "@std/assert";
import { delay } from "@std/async";
import { basename, join } from "@std/path";
import { filesIn, openFs } from "../../support/fs_adapter.ts";

/** Longer than any writer takes to create its lock. */
const HOURS_MS = 2 * 3_600_000;
/** Maximum number of checks of the directory, 10 ms apart, until a cleanup must have ended. */
const LOOKS = 1_000;

/** Paths of the temporary files in a directory of the fs adapter. */
export async function temporaries(basePath: string): Promise<string[]> {
  return await leftovers(basePath, ".tmp");
}

/**
 * Asserts that an adapter that is opened when enough time has passed removes the temporary files and
 * locks of killed writers. No writer may be alive.
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

/** Files created by tagged writers, without shared files. */
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
