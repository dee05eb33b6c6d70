import { assert, assertEquals, assertGreater, assertLessOrEqual } from "@std/assert";
import { dirname, join } from "@std/path";
import type { DiskSpaceStatus } from "../../../adapters/_fs/disk_space_options.ts";
import type { FileStore } from "../../../adapters/_fs/file_store.ts";
import { type FileSystem, hostFileSystem } from "../../../adapters/_fs/file_system.ts";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import { diskBytesIn, fileOf, openFileStore, testObject } from "../../support/fs_adapter.ts";
import { testKeys } from "../../support/objects.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

const DISK_BYTES = 4096;
const OBJECTS = 400;
const bounds = {
  capacityBytes: OBJECTS * DISK_BYTES,
  watermark: { high: 1, low: 0.9 },
};
const call = { signal: new AbortController().signal };

/** Fills a directory; the first objects are the oldest. */
async function fill(basePath: string, keys: readonly ObjectKey[]): Promise<void> {
  const now = Date.now();
  for (const [i, key] of keys.entries()) {
    const path = fileOf(basePath, key);
    await Deno.mkdir(dirname(path), { recursive: true });
    await Deno.writeFile(path, new Uint8Array(1000));
    const time = new Date(now - 1000 * (keys.length - i));
    await Deno.utime(path, time, time);
  }
}

/** Files of which only the first `count` can be inspected until `open` is called. */
function gated(count: number): { files: FileSystem; open: () => void } {
  const gate = Promise.withResolvers<void>();
  const seen = new Set<string>();
  const files: FileSystem = {
    ...hostFileSystem,
    async lstat(path) {
      if (path.endsWith(".data") && !seen.has(path)) {
        if (seen.size >= count) await gate.promise;
        seen.add(path);
      }
      return await hostFileSystem.lstat(path);
    },
  };
  return { files, open: () => gate.resolve() };
}

async function put(store: FileStore, n: number): Promise<number> {
  const objects = testKeys(1, n).map((key) => testObject(key));
  return (await store.store(objects, call)).stored.popcount();
}

for (const isKnown of [true, false]) {
  const what = isKnown ? "a full directory" : "a full directory without an account";
  Deno.test(`stores into ${what} do not wait for a walk through it`, async () => {
    await using directory = await tempDirectory();
    const { path } = directory;
    const keys = testKeys(OBJECTS);
    await fill(path, keys);
    if (isKnown) {
      await Deno.mkdir(join(path, "tmp"), { mode: 0o700 });
      await using counted = await openFileStore(path, { bounds, shards: 1 });
      while ((counted.reportStatus()["space"] as DiskSpaceStatus).usedBytes === undefined) {
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    }
    // Enough files to know which are old.
    const { files, open } = gated(OBJECTS / 4);
    await using store = await openFileStore(path, { bounds, shards: 1, files });
    for (let n = 0; n < 5; n++) assertEquals(await put(store, 10_000 + n), 1);
    assertLessOrEqual(await diskBytesIn(path), OBJECTS * DISK_BYTES);
    const isThere = await Promise.all(
      keys.map((key) => hostFileSystem.exists(fileOf(path, key))),
    );
    assertGreater(isThere.filter((is) => !is).length, 4);
    assert(isThere.slice(OBJECTS / 4).every((is) => is), "what left is old");
    open();
    // The remaining files are known then.
    for (let n = 0; n < 5; n++) assertEquals(await put(store, 20_000 + n), 1);
    await store[Symbol.asyncDispose]();
    await using last = await openFileStore(path, { bounds, shards: 1 });
    const { usedBytes } = last.reportStatus()["space"] as DiskSpaceStatus;
    assert(usedBytes === undefined || usedBytes <= OBJECTS * DISK_BYTES);
    assertLessOrEqual(await diskBytesIn(path), OBJECTS * DISK_BYTES);
  });
}
