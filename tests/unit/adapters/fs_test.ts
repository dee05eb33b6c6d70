import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { deadline } from "@std/async";
import { basename, dirname, join } from "@std/path";
import { type FileSystem, hostFileSystem } from "../../../adapters/_fs/file_system.ts";
import fs from "../../../adapters/fs.ts";
import { isHashedFileName } from "../../../src/keys/key_codec.ts";
import { ObjectKey } from "../../../src/keys/object_key.ts";
import { type AdapterError, concatParts, type L2Adapter } from "../../../src/adapter/contract.ts";
import { parseAdapterConfig } from "../../../src/adapter/config.ts";
import { ConfigError } from "../../../src/base/config_error.ts";
import { runChild } from "../../support/child.ts";
import {
  fileOf,
  filesIn,
  objectFilesIn,
  openFileStore,
  openFs,
  temporaryFilesIn,
  testObject,
} from "../../support/fs_adapter.ts";
import { systemError } from "../../support/faulty_files.ts";
import { testBytes, testKey, testKeys, testLayout } from "../../support/objects.ts";
import { sealedObject } from "../../support/sealed_objects.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

const call = { signal: new AbortController().signal };
const lookupCall = { ...call, prefix: false };
const longKey = testKey(1, { model: "m".repeat(256), cacheSalt: "s".repeat(128) });

async function store(adapter: L2Adapter, keys: readonly ObjectKey[]): Promise<string> {
  return String((await adapter.store(keys.map((key) => testObject(key)), call)).stored);
}

/** Loads objects and returns the outcome as bits; checks the bytes. */
async function load(adapter: L2Adapter, keys: readonly ObjectKey[]): Promise<string> {
  const rooms = keys.map((key) => ({ key, parts: [new Uint8Array(1000)], byteLength: 1000 }));
  const loaded = await adapter.load(rooms, call);
  for (const { key, parts } of loaded.gather(rooms)) {
    assertEquals(concatParts(parts), testBytes(key, 1000));
  }
  return String(loaded);
}

/** Resolves when all shard directories exist; they are created in the background. */
async function allShardsIn(path: string): Promise<void> {
  for (let count = 0; count < 256 + 1;) {
    count = (await Array.fromAsync(Deno.readDir(path))).length;
  }
}

/** Removes a directory tree in which directories are still being created. */
async function removeTree(path: string): Promise<void> {
  for (;;) {
    try {
      return await Deno.remove(path, { recursive: true });
    } catch (error) {
      if (!(error instanceof Error) || !error.message.includes("not empty")) throw error;
    }
  }
}

/** An adapter in a new directory, and the failures that it reports. */
async function openInTemp(config: Record<string, unknown> = {}): Promise<
  { adapter: L2Adapter; path: string; errors: AdapterError[] } & AsyncDisposable
> {
  const directory = await tempDirectory();
  const errors: AdapterError[] = [];
  const adapter = await openFs({ base_path: directory.path, ...config }, {
    onError: (error) => errors.push(error),
  });
  const dispose = async (): Promise<void> => {
    await adapter[Symbol.asyncDispose]();
    await directory[Symbol.asyncDispose]();
  };
  return { adapter, path: directory.path, errors, [Symbol.asyncDispose]: dispose };
}

Deno.test("an object is a file with its bytes, under its name, in the directory of its hash", async () => {
  await using opened = await openInTemp();
  const key = new ObjectKey({
    chunkHash: new Uint8Array(32).fill(0xab),
    model: "meta/llama 3",
    kvRank: 0x02010100,
    objectGroup: 10,
    cacheSalt: "tenant#1",
  });
  assertEquals(await store(opened.adapter, [key]), "1");
  const name = `ab/meta%2Fllama%203@0x02010100@a@${"ab".repeat(32)}@tenant%231.data`;
  assertEquals(await objectFilesIn(opened.path), [name]);
  assertEquals(await Deno.readFile(join(opened.path, name)), testBytes(key, 1000));
});

Deno.test("objects are distributed over 256 directories", async () => {
  await using opened = await openInTemp();
  const keys = Array.from({ length: 256 }, (_, i) => {
    return testKey(0).withChunkHash(new Uint8Array(32).fill(i));
  });
  await store(opened.adapter, keys);
  const names = (await objectFilesIn(opened.path)).map(dirname);
  const expected = keys.map(({ chunkHashHex }) => chunkHashHex.slice(0, 2));
  assertEquals(names, expected.sort());
  assertEquals(await load(opened.adapter, keys), "1".repeat(256));
});

Deno.test("an object whose name would be too long is stored under a digest", async () => {
  await using opened = await openInTemp();
  assertEquals(await store(opened.adapter, [longKey]), "1");
  const [file = ""] = await objectFilesIn(opened.path);
  assert(isHashedFileName(basename(file)));
  assertEquals(await load(opened.adapter, [longKey]), "1");
  assertEquals(String(await opened.adapter.lookupAndLock([longKey], lookupCall)), "1");
});

for (const umask of ["000", "022", "077"]) {
  Deno.test(`only the owner can read objects, under umask ${umask}`, async () => {
    await using directory = await tempDirectory();
    const modes = await runChild(new URL("./store_and_stat.ts", import.meta.url), {
      args: [join(directory.path, "parent", "base")],
      shell: ["sh", "-c", `umask ${umask} && exec "$@"`, "sh"],
    });
    const directories = { "": "700", "tmp": "700", "tmp/deep": "700", "prefix": "700" };
    const files = { "lock": "600", "ledger": "600", "object": "600" };
    assertEquals(modes, { ...directories, ...files });
  });
}

for (const umask of ["000", "022", "077"]) {
  for (const layout of [{}, { file_layout: "lmcache", accept_unsealed: true, shard_dirs: true }]) {
    const name = "file_layout" in layout ? "LMCache's layout" : "the usual layout";
    Deno.test(`with allow_shared_group the group can use objects, under umask ${umask}, ${name}`, async () => {
      await using directory = await tempDirectory();
      const base = join(directory.path, "base");
      await Deno.mkdir(base);
      await Deno.chmod(base, 0o2770);
      const modes = await runChild(new URL("./store_and_stat.ts", import.meta.url), {
        args: [base, JSON.stringify({ allow_shared_group: true, ...layout })],
        shell: ["sh", "-c", `umask ${umask} && exec "$@"`, "sh"],
      }) as Record<string, string>;
      const expected = Object.keys(modes).map((path) => {
        const isFile = ["object", "lock", "ledger"].includes(path);
        return [path, isFile ? "660" : "2770"];
      });
      assertEquals(modes, Object.fromEntries(expected));
      assert(["object", "lock", "ledger", "tmp", "tmp/deep"].every((path) => path in modes));
    });
  }
}

Deno.test("a store waits until the maker of a directory has shared it with the group", async () => {
  await using directory = await tempDirectory();
  const object = testObject(testKey(1));
  const shard = dirname(fileOf(directory.path, object.key));
  await Deno.mkdir(shard);
  await Deno.chmod(shard, 0o2750);
  let looks = 0;
  // Another user owns the directory: root, which runs tests, would be refused nothing.
  const files: FileSystem = {
    ...hostFileSystem,
    async lstat(path) {
      if (path === shard && ++looks === 3) await Deno.chmod(shard, 0o2770);
      return await hostFileSystem.lstat(path);
    },
    chmod: (path, mode) =>
      path === shard ? Promise.reject(systemError("EACCES")) : hostFileSystem.chmod(path, mode),
    async create(path, mode) {
      const isWritable = ((await Deno.lstat(dirname(path))).mode ?? 0) & 0o020;
      if (!isWritable && dirname(path) === shard) throw systemError("EACCES");
      return await hostFileSystem.create(path, mode);
    },
  };
  await using adapter = await openFileStore(directory.path, {
    files,
    shards: 1,
    isGroupShared: true,
  });
  assertEquals(String((await adapter.store([object], call)).stored), "1");
});

Deno.test("objects with hashed names are listed by the keys in their files", async () => {
  await using opened = await openInTemp();
  const layout = testLayout(5000);
  const long = [1, 2, 3].map((n) => testKey(n, { model: "m".repeat(250), cacheSalt: `${n}` }));
  const keys = [...long, longKey, testKey(9)];
  const objects = keys.map((key) => sealedObject(key, layout));
  await opened.adapter.store(objects, call);
  const listed = await Array.fromAsync(opened.adapter.list?.(call) ?? []);
  const byId = (a: [string, number], b: [string, number]) => a[0] < b[0] ? -1 : 1;
  assertEquals(
    listed.map(({ key, byteLength }): [string, number] => [key.id, byteLength]).sort(byId),
    objects.map(({ key, byteLength }): [string, number] => [key.id, byteLength]).sort(byId),
  );
  const ofModel = { ...call, model: "m".repeat(250) };
  assertEquals((await Array.fromAsync(opened.adapter.list?.(ofModel) ?? [])).length, 3);
  // A file without the key that belongs to the digest in its name is not listed.
  const paths = long.map((key) => fileOf(opened.path, key));
  await Deno.writeFile(paths[0] ?? "", new Uint8Array(5000));
  await Deno.copyFile(fileOf(opened.path, longKey), paths[1] ?? "");
  await Deno.truncate(paths[2] ?? "", 100);
  assertEquals((await Array.fromAsync(opened.adapter.list?.(call) ?? [])).length, 2);
  assertEquals(opened.errors, []);
});

Deno.test("no temporary file is left after stores, replacements and failures", async () => {
  await using opened = await openInTemp();
  const keys = testKeys(5);
  const blocked = testKey(99);
  await Deno.mkdir(join(fileOf(opened.path, blocked), "in the way"), { recursive: true });
  for (let i = 0; i < 3; i++) {
    assertEquals(await store(opened.adapter, [...keys, blocked]), "111110");
  }
  assertEquals(await temporaryFilesIn(opened.path), []);
  assertEquals(opened.errors.length, 3);
  assertEquals(opened.errors[0]?.key?.id, blocked.id);
  assertEquals(opened.errors[0]?.operation, "store");
});

Deno.test("a store whose buffers fail half-way leaves no temporary file", async () => {
  await using opened = await openInTemp();
  const gone = new Uint8Array(8);
  // An array that is no Uint8Array makes the second write fail.
  const parts = [testBytes(testKey(1), 5000), "text" as unknown as Uint8Array<ArrayBuffer>, gone];
  const object = {
    key: testKey(1),
    parts: parts.with(1, { byteLength: 1 } as never),
    byteLength: 1,
  };
  const { stored } = await opened.adapter.store([object], call);
  assertEquals(String(stored), "0");
  assertEquals(await objectFilesIn(opened.path), []);
  assertEquals(await temporaryFilesIn(opened.path), []);
  assertEquals(opened.errors.length, 1);
});

Deno.test("temporary files are where relative_tmp_dir says, and never listed", async () => {
  for (const name of ["a", "ab", "ab/c", "deep/er", "./x/../y"]) {
    await using opened = await openInTemp({ relative_tmp_dir: name });
    const keys = Array.from({ length: 32 }, (_, i) => {
      return testKey(0).withChunkHash(new Uint8Array(32).fill(0xa0 + i));
    });
    await store(opened.adapter, keys);
    assert((await Deno.stat(join(opened.path, name))).isDirectory);
    await Deno.writeTextFile(join(opened.path, name, "1-2-3.tmp"), "of a dead writer");
    assertEquals((await Array.fromAsync(opened.adapter.list?.(call) ?? [])).length, 32);
    const usage = { objectCount: 32, usedBytes: 32_000, capacityBytes: 10 * 2 ** 30 };
    assertEquals(await opened.adapter.usage?.(call), usage);
  }
});

for (const path of ["", " "]) {
  Deno.test(`base_path "${path}" is refused`, () => {
    assertThrows(() => parseAdapterConfig(fs, { base_path: path }), ConfigError, "base_path");
  });
}

Deno.test("a base_path that is a file is refused", async () => {
  await using directory = await tempDirectory();
  const file = join(directory.path, "file");
  await Deno.writeTextFile(file, "");
  const error = await assertRejects(() => openFs({ base_path: file }), ConfigError);
  assertEquals([error.key, error.received], ["base_path", file]);
});

Deno.test("a base_path that cannot be created now is no error: it may be available later", async () => {
  await using directory = await tempDirectory();
  const parent = join(directory.path, "disk");
  await Deno.writeTextFile(parent, "not mounted");
  const errors: AdapterError[] = [];
  const onError = (error: AdapterError) => void errors.push(error);
  await using adapter = await openFs({ base_path: join(parent, "base") }, { onError });
  assertEquals([errors[0]?.operation, errors[0]?.code], ["open", "ENOTDIR"]);
  assertEquals(await store(adapter, [testKey(1)]), "0");
  assertEquals(await load(adapter, [testKey(1)]), "0");
  await Deno.remove(parent);
  assertEquals(await store(adapter, [testKey(1)]), "1");
  assertEquals(await load(adapter, [testKey(1)]), "1");
});

for (
  const [what, make] of [
    ["a FIFO", async (path) => {
      const { success } = await new Deno.Command("mkfifo", { args: [path] }).output();
      assert(success);
    }],
    ["a link to a file of the right size", async (path) => {
      const target = `${dirname(dirname(path))}/target`;
      await Deno.writeFile(target, testBytes(testKey(1), 1000));
      await Deno.symlink(target, path);
    }],
    ["a link to nothing", (path) => Deno.symlink("/nothing/there", path)],
    ["a link to itself", (path) => Deno.symlink(path, path)],
    ["an empty file", (path) => Deno.writeFile(path, new Uint8Array())],
    ["a device", (path) => Deno.symlink("/dev/zero", path)],
  ] satisfies [string, (path: string) => Promise<void>][]
) {
  Deno.test(`${what} in place of an object is a miss, and is replaced by the next store`, async () => {
    await using opened = await openInTemp();
    const key = testKey(1);
    const path = fileOf(opened.path, key);
    await Deno.mkdir(dirname(path));
    await make(path);
    const check = async (): Promise<void> => {
      assertEquals(await load(opened.adapter, [key]), "0");
      const found = await opened.adapter.lookupAndLock([key], lookupCall);
      assertEquals(String(found), what === "an empty file" ? "1" : "0");
      assertEquals(await store(opened.adapter, [key]), "1");
      assertEquals(await load(opened.adapter, [key]), "1");
      assert((await Deno.lstat(path)).isFile);
      assertEquals(opened.errors, []);
    };
    await deadline(check(), 10_000).catch(async (error) => {
      // A reader that waits for the other end of the FIFO could not be stopped otherwise.
      const { isFifo } = await Deno.lstat(path);
      using _ = isFifo ? await Deno.open(path, { read: true, write: true }) : null;
      throw error;
    });
  });
}

Deno.test("a directory in place of an object is a miss, and affects only that object", async () => {
  await using opened = await openInTemp();
  const [key, other] = [testKey(1), testKey(2)];
  await Deno.mkdir(join(fileOf(opened.path, key), "full"), { recursive: true });
  assertEquals(await load(opened.adapter, [key]), "0");
  assertEquals(String(await opened.adapter.lookupAndLock([key], lookupCall)), "0");
  assertEquals(await store(opened.adapter, [key, other]), "01");
  assertEquals(await load(opened.adapter, [key, other]), "01");
  assertEquals(String((await opened.adapter.delete?.([key], call))?.deleted), "0");
});

Deno.test("a base directory removed at runtime is created again", async () => {
  await using opened = await openInTemp();
  const keys = testKeys(20);
  for (let i = 0; i < 3; i++) {
    assertEquals(await store(opened.adapter, keys), "1".repeat(20));
    await removeTree(opened.path);
    assertEquals(await load(opened.adapter, keys), "0".repeat(20));
    assertEquals(String(await opened.adapter.lookupAndLock(keys, lookupCall)), "0".repeat(20));
    assertEquals(String((await opened.adapter.delete?.(keys, call))?.deleted), "0".repeat(20));
    assertEquals(await Array.fromAsync(opened.adapter.list?.(call) ?? []), []);
    const usage = { usedBytes: 0, objectCount: 0, capacityBytes: 10 * 2 ** 30 };
    assertEquals(await opened.adapter.usage?.(call), usage);
  }
  assertEquals(await store(opened.adapter, keys), "1".repeat(20));
  assertEquals(await load(opened.adapter, keys), "1".repeat(20));
  assertEquals(opened.errors, []);
});

Deno.test("a base directory replaced by a file fails stores, and recovers", async () => {
  await using opened = await openInTemp();
  assertEquals(await store(opened.adapter, [testKey(1)]), "1");
  await allShardsIn(opened.path);
  await Deno.rename(opened.path, `${opened.path}.moved`);
  await Deno.writeTextFile(opened.path, "in the way");
  assertEquals(await store(opened.adapter, [testKey(2)]), "0");
  assertEquals(await load(opened.adapter, [testKey(1)]), "0");
  await Deno.remove(opened.path);
  await Deno.rename(`${opened.path}.moved`, opened.path);
  assertEquals(await store(opened.adapter, [testKey(2)]), "1");
  assertEquals(await load(opened.adapter, [testKey(1), testKey(2)]), "11");
});

Deno.test("foreign files in the directory are neither listed, counted nor removed", async () => {
  await using opened = await openInTemp();
  const keys = testKeys(3);
  await store(opened.adapter, [...keys, longKey]);
  const [first] = keys;
  assert(first !== undefined);
  const own = fileOf(opened.path, first);
  const foreign = [
    join(opened.path, "README.md"),
    join(opened.path, basename(own)),
    join(opened.path, "tmp", basename(own)),
    join(dirname(own), "notes.data"),
    join(dirname(own), "notes.txt"),
    join(dirname(own), `${basename(own)}.bak`),
    join(dirname(own), basename(own).toUpperCase()),
    // The name of an object, in a directory where it is not looked up.
    join(dirname(fileOf(opened.path, testKey(50))), basename(own)),
  ];
  for (const path of foreign) {
    await Deno.mkdir(dirname(path), { recursive: true });
    await Deno.writeTextFile(path, "foreign");
  }
  await Deno.symlink(own, join(dirname(own), basename(fileOf(opened.path, testKey(51)))));
  const listed = await Array.fromAsync(opened.adapter.list?.(call) ?? []);
  assertEquals(listed.map(({ key }) => key.id).sort(), keys.map(({ id }) => id).sort());
  assertEquals(new Set(listed.map(({ byteLength }) => byteLength)), new Set([1000]));
  const usage = { usedBytes: 4000, objectCount: 4, capacityBytes: 10 * 2 ** 30 };
  assertEquals(await opened.adapter.usage?.(call), usage);
  await opened.adapter.delete?.(keys, call);
  for (const path of foreign) assertEquals(await Deno.readTextFile(path), "foreign");
});

Deno.test("delete frees the bytes of the files that it removes, whatever their length", async () => {
  await using opened = await openInTemp();
  const keys = testKeys(3);
  await store(opened.adapter, keys);
  await Deno.truncate(fileOf(opened.path, testKey(1)), 7);
  const result = await opened.adapter.delete?.([...keys, testKey(9)], call);
  assertEquals([String(result?.deleted), result?.bytes], ["1110", 2007]);
  assertEquals([await objectFilesIn(opened.path), opened.errors], [[], []]);
});

Deno.test("delete leaves a non-file in place of an object", async () => {
  await using opened = await openInTemp();
  const [linked, directory] = [testKey(1), testKey(2)];
  const target = join(opened.path, "target");
  await Deno.writeTextFile(target, "foreign");
  await Deno.mkdir(dirname(fileOf(opened.path, linked)));
  await Deno.symlink(target, fileOf(opened.path, linked));
  await Deno.mkdir(fileOf(opened.path, directory), { recursive: true });
  const result = await opened.adapter.delete?.([linked, directory], call);
  assertEquals([String(result?.deleted), result?.bytes], ["00", 0]);
  assert((await Deno.lstat(fileOf(opened.path, linked))).isSymlink);
  assert((await Deno.lstat(fileOf(opened.path, directory))).isDirectory);
  assertEquals(opened.errors, []);
});

Deno.test("delete stops when its signal aborts", async () => {
  await using opened = await openInTemp();
  await store(opened.adapter, testKeys(3));
  const result = await opened.adapter.delete?.(testKeys(3), { signal: AbortSignal.abort() });
  assertEquals([String(result?.deleted), result?.bytes], ["000", 0]);
  assertEquals(await load(opened.adapter, testKeys(3)), "111");
});

Deno.test("list and usage stop when their signal aborts", async () => {
  await using opened = await openInTemp();
  await store(opened.adapter, testKeys(3));
  const signal = AbortSignal.abort();
  assertEquals(await Array.fromAsync(opened.adapter.list?.({ signal }) ?? []), []);
  await assertRejects(async () => await opened.adapter.usage?.({ signal }), DOMException);
});

Deno.test("two adapters on one directory write the same objects without failures", async () => {
  await using directory = await tempDirectory();
  await using stack = new AsyncDisposableStack();
  const adapters = await Promise.all(
    Array.from({ length: 4 }, async () => stack.use(await openFs({ base_path: directory.path }))),
  );
  const keys = testKeys(8);
  for (let round = 0; round < 5; round++) {
    const work = adapters.map((adapter) => store(adapter, keys));
    const reads = adapters.map((adapter) => load(adapter, keys));
    assertEquals(new Set(await Promise.all(work)), new Set(["11111111"]));
    await Promise.all(reads);
  }
  assertEquals((await objectFilesIn(directory.path)).length, 8);
  await stack.disposeAsync();
  const others = ["tmp/eviction.lock", "tmp/usage.ledger"];
  const left = (await filesIn(directory.path)).filter((path) => !path.endsWith(".data"));
  assertEquals(left, others);
});

Deno.test("the status shows the settings in use, and the fill level of the directory", async () => {
  await using opened = await openInTemp({ durability: "file", max_capacity_gb: 1 });
  await store(opened.adapter, testKeys(3));
  await opened.adapter[Symbol.asyncDispose]();
  assertEquals(opened.adapter.reportStatus?.(), {
    basePath: opened.path,
    durability: "file",
    io: "buffered",
    threads: "off: io_workers is 0",
    space: {
      usedBytes: 3 * 4096,
      capacityBytes: 2 ** 30,
      isShared: true,
      isCounting: false,
      evictedObjects: 0,
      evictedBytes: 0,
      refusedObjects: 0,
      pausedBy: undefined,
      models: [],
    },
    reclaimedTemporaryFiles: 0,
    problems: [],
  });
});
