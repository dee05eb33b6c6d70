import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { walk } from "@std/fs";
import { join } from "@std/path";
import { OffThreadFiles } from "../../../adapters/_fs/off_thread_files.ts";
import { hostFileSystem } from "../../../adapters/_fs/file_system.ts";
import type { AdapterError } from "../../../src/adapter/contract.ts";
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

/** What may have the name of a file; nothing may change in `elsewhere`. */
const inPlace: Readonly<Record<string, (path: string, elsewhere: string) => Promise<void>>> = {
  "a link to a file": async (path, elsewhere) => {
    await Deno.writeTextFile(join(elsewhere, "file"), "theirs");
    await Deno.symlink(join(elsewhere, "file"), path);
  },
  "a link to nothing": (path, elsewhere) => Deno.symlink(join(elsewhere, "none"), path),
  "a link to a directory": (path, elsewhere) => Deno.symlink(elsewhere, path),
  "an empty directory": (path) => Deno.mkdir(path),
  "a FIFO": async (path) => {
    await new Deno.Command("mkfifo", { args: [path] }).output();
  },
};
const bounds = { "max_capacity_gb": 20_000 / 2 ** 30 };

async function shapeOf(path: string): Promise<unknown[]> {
  const entries = await Array.fromAsync(walk(path, { includeDirs: false }));
  return await Promise.all(entries.map(async (entry) => [
    entry.name,
    await Deno.readTextFile(entry.path),
  ]));
}

for (const name of ["usage.ledger", "eviction.lock"]) {
  for (const [what, put] of Object.entries(inPlace)) {
    for (const isCareful of [false, true]) {
      const how = isCareful ? ", where calls may wait" : "";
      Deno.test(`${what} in place of ${name} is replaced, not followed${how}`, async () => {
        await using directory = await tempDirectory();
        await using elsewhere = await tempDirectory();
        const errors: AdapterError[] = [];
        const path = join(directory.path, "tmp", name);
        await Deno.mkdir(join(directory.path, "tmp"), { mode: 0o700 });
        await put(path, elsewhere.path);
        const before = await shapeOf(elsewhere.path);
        await using stack = new AsyncDisposableStack();
        const careful = stack.adopt(new OffThreadFiles(), (files) => files.close());
        {
          await using store = await openFileStore(directory.path, {
            ...(isCareful ? { files: careful.files } : {}),
            bounds: { capacityBytes: 20_000, watermark: { high: 0.8, low: 0.6 } },
            onError: (error) => errors.push(error),
          });
          for (const object of [...objects, ...objects]) {
            assertEquals(String((await store.store([object], call)).stored), "1");
          }
        }
        assertEquals(await shapeOf(elsewhere.path), before);
        assert((await Deno.lstat(path)).isFile);
        assertEquals(errors, []);
      });
    }
  }

  Deno.test(`a non-empty directory in place of ${name} stays, and is reported`, async () => {
    await using directory = await tempDirectory();
    const errors: AdapterError[] = [];
    const path = join(directory.path, "tmp", name);
    await Deno.mkdir(path, { recursive: true, mode: 0o700 });
    await Deno.writeTextFile(join(path, "file"), "theirs");
    {
      await using adapter = await openFs({ base_path: directory.path, ...bounds }, {
        onError: (error) => errors.push(error),
      });
      for (const object of [...objects, ...objects]) await adapter.store([object], call);
    }
    assertEquals(await Deno.readTextFile(join(path, "file")), "theirs");
    assertStringIncludes(errors.map(({ message }) => message).join("\n"), path);
  });
}

Deno.test("a link in place of usage.ledger is replaced although several writers find it", async () => {
  await using directory = await tempDirectory();
  await using elsewhere = await tempDirectory();
  const path = join(directory.path, "tmp", "usage.ledger");
  await Deno.mkdir(join(directory.path, "tmp"), { mode: 0o700 });
  await Deno.symlink(join(elsewhere.path, "none"), path);
  const errors: AdapterError[] = [];
  const onError = (error: AdapterError) => errors.push(error);
  await using stack = new AsyncDisposableStack();
  const stores = await Promise.all(
    objects.map(() => openFileStore(directory.path, { onError })),
  );
  for (const store of stores) stack.use(store);
  const stored = await Promise.all(
    stores.map(async (store, i) =>
      String((await store.store(objects.slice(i, i + 1), call)).stored)
    ),
  );
  assertEquals([stored, errors], [["1", "1", "1", "1"], []]);
  assertEquals(await filesIn(elsewhere.path), []);
});

Deno.test("the target of a link in place of a shard is neither read nor removed", async () => {
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
  // Once the link is gone, the next store creates a directory.
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

Deno.test("closing ends although stores hang, and reports that", async () => {
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
  // Closing has started to wait, and the time passes.
  await clock.advance(60_000);
  await closing;
  assertStringIncludes(
    errors.map(({ message }) => message).join(),
    "file system calls hang",
  );
  hung.reject(new Error("The file system is gone"));
  await storing;
  // Abandoned calls end now.
  await waitUntil(() => files.locked.length === 0);
  await files.settled();
});
