import { assertEquals, assertObjectMatch, assertStringIncludes } from "@std/assert";
import { type ChildOptions, runChild } from "../support/child.ts";
import { openFsCache, putObjects } from "../support/fs_cache.ts";
import { filesIn } from "../support/fs_adapter.ts";
import { testKey, testLayout } from "../support/objects.ts";
import { type TempDirectory, tempDirectory } from "../support/temp_directory.ts";
import { inNewNamespace } from "./namespace.ts";

const program = new URL("./store_and_load.ts", import.meta.url);

/** A directory with the object of `testKey(0)`. */
async function filled(): Promise<TempDirectory> {
  const directory = await tempDirectory();
  await using cache = await openFsCache(directory.path);
  await putObjects(cache, [testKey(0)], testLayout(4096));
  return directory;
}

/** Runs the program on a directory to which it cannot write, and checks its output. */
async function checkUnwritable(path: string, reason: string, child: ChildOptions): Promise<void> {
  const before = await filesIn(path);
  const said = await runChild(program, { ...child, args: [path] });
  assertObjectMatch(said as Record<string, unknown>, {
    healthy: [true, true, false, false],
    hits: 1,
    misses: 0,
    status: { storedObjects: 0, failedStores: 4, loadedObjects: 1, isHealthy: false },
  });
  const { problems } = said as { problems: string[] };
  assertEquals(problems.length, 1);
  assertStringIncludes(problems[0] ?? "", "adapter 0 (fs): store");
  assertStringIncludes(problems[0] ?? "", reason);
  assertEquals(await filesIn(path), before);
}

Deno.test("a directory without --allow-write permission is read and reported", async () => {
  await using directory = await filled();
  await checkUnwritable(directory.path, "write access", {
    permissions: ["-A", `--deny-write=${directory.path}`],
  });
});

Deno.test("a directory on a read-only file system is read and reported", async (t) => {
  await using directory = await filled();
  const script = `mount --bind "$DIR" "$DIR" && mount -o remount,bind,ro "$DIR" && exec "$@"`;
  const shell = await inNewNamespace(script.replaceAll("$DIR", directory.path));
  if (shell === undefined) {
    await t.step("file systems cannot be mounted on this host: not run", () => {});
    return;
  }
  await checkUnwritable(directory.path, "EROFS", { shell });
});
