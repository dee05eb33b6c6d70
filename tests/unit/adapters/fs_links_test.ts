import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { hostFileSystem } from "../../../adapters/_fs/file_system.ts";
import type { AdapterError } from "../../../src/l2/adapter.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import {
  fileOf,
  filesIn,
  objectFilesIn,
  openFileStore,
  openFs,
  testObject,
} from "../../support/fs_adapter.ts";
import { FaultyFiles } from "../../support/faulty_files.ts";
import { testKey, testKeys } from "../../support/objects.ts";
import { tempDirectory } from "../../support/temp_directory.ts";
import { waitUntil } from "../../support/wait_until.ts";

const call = { signal: new AbortController().signal };
const objects = testKeys(4).map((key) => testObject(key));

for (const name of ["usage.ledger", "eviction.lock"]) {
  Deno.test(`a link in the place of ${name} is reported and not followed`, async () => {
    await using directory = await tempDirectory();
    await using elsewhere = await tempDirectory();
    const errors: AdapterError[] = [];
    await Deno.mkdir(join(directory.path, "tmp"), { mode: 0o700 });
    const link = join(directory.path, "tmp", name);
    await Deno.symlink(join(elsewhere.path, "file"), link);
    {
      await using adapter = await openFs(
        { base_path: directory.path, max_capacity_gb: 20_000 / 2 ** 30 },
        { onError: (error) => errors.push(error) },
      );
      for (const object of objects) await adapter.store([object], call);
      for (const object of objects) await adapter.store([object], call);
    }
    assertEquals(await filesIn(elsewhere.path), []);
    assert((await Deno.lstat(link)).isSymlink);
    assertStringIncludes(errors.map(({ message }) => message).join("\n"), link);
  });
}

Deno.test("what a link in the place of a shard leads to is neither read nor removed", async () => {
  await using directory = await tempDirectory();
  await using elsewhere = await tempDirectory();
  const object = testObject(testKey(1));
  {
    await using adapter = await openFs({ base_path: elsewhere.path });
    await adapter.store([object], call);
  }
  const [shard = ""] = (await objectFilesIn(elsewhere.path))[0]?.split("/") ?? [];
  const link = join(directory.path, shard);
  await Deno.symlink(join(elsewhere.path, shard), link);
  const errors: AdapterError[] = [];
  await using adapter = await openFs({ base_path: directory.path }, {
    onError: (error) => errors.push(error),
  });
  assertStringIncludes(errors[0]?.message ?? "", link);
  for (const prefix of [true, false]) {
    assertEquals(String(await adapter.lookupAndLock([object.key], { ...call, prefix })), "0");
  }
  assertEquals(String(await adapter.load([object], call)), "0");
  assertEquals(String((await adapter.delete?.([object.key], call))?.deleted), "0");
  assertEquals(String((await adapter.store([object], call)).stored), "0");
  assertEquals((await objectFilesIn(elsewhere.path)).length, 1);
  // When it is gone, the next store makes a directory.
  await Deno.remove(link);
  assertEquals(String((await adapter.store([object], call)).stored), "1");
  assertEquals(String(await adapter.load([object], call)), "1");
  assert((await Deno.lstat(fileOf(directory.path, object.key))).isFile);
});

Deno.test("a ledger that is too large to be one is replaced", async () => {
  await using directory = await tempDirectory();
  const path = join(directory.path, "tmp", "usage.ledger");
  await Deno.mkdir(join(directory.path, "tmp"), { mode: 0o700 });
  await Deno.writeTextFile(path, "what is this");
  await Deno.truncate(path, 600 * 2 ** 20);
  let largest = 0;
  const files = {
    ...hostFileSystem,
    async lock(...args: Parameters<typeof hostFileSystem.lock>) {
      const file = await hostFileSystem.lock(...args);
      if (file === undefined) return file;
      const read = async (most: number) => {
        const bytes = await file.read(most);
        largest = Math.max(largest, bytes.byteLength);
        return bytes;
      };
      return {
        read,
        write: (bytes: Uint8Array<ArrayBuffer>) => file.write(bytes),
        [Symbol.dispose]: () => file[Symbol.dispose](),
      };
    },
  };
  await using store = await openFileStore(directory.path, { files });
  assertEquals(String((await store.store(objects, call)).stored), "1111");
  assert((await Deno.lstat(path)).size < 10_000);
  assert(largest < 10_000, `${largest} bytes were read`);
});

Deno.test("a close ends although stores hang, and says so", async () => {
  await using directory = await tempDirectory();
  const clock = new ManualClock();
  const errors: AdapterError[] = [];
  const hung = Promise.withResolvers<never>();
  let calls = 0;
  let hangs = false;
  const create = (path: string, mode: number) => {
    if (!hangs) return hostFileSystem.create(path, mode);
    calls++;
    return hung.promise;
  };
  const files = new FaultyFiles({ ...hostFileSystem, create });
  const store = await openFileStore(directory.path, {
    files: files.files,
    clock,
    onError: (error) => errors.push(error),
    countsOnStart: false,
  });
  hangs = true;
  const storing = store.store(objects, call);
  await waitUntil(() => calls >= objects.length);
  const closing = store[Symbol.asyncDispose]();
  // The close has begun to wait, and the time comes.
  await clock.advance(60_000);
  await closing;
  assertStringIncludes(
    errors.map(({ message }) => message).join(),
    "calls of the file system hang",
  );
  hung.reject(new Error("The file system is gone"));
  await storing;
  // What was left behind ends now.
  await waitUntil(() => files.locked.length === 0);
  await files.settled();
});
