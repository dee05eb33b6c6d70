import { assert, assertEquals, assertMatch } from "@std/assert";
import { DirectFiles, type DirectFileSystem } from "../../../adapters/_fs/direct_files.ts";
import type { FileStore } from "../../../adapters/_fs/file_store.ts";
import type { FileStoreOptions } from "../../../adapters/_fs/store_context.ts";
import { type FileSystem, hostFileSystem } from "../../../adapters/_fs/file_system.ts";
import { ObjectPaths } from "../../../adapters/_fs/object_paths.ts";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import {
  type AdapterError,
  type AdapterObject,
  concatParts,
} from "../../../src/adapter/contract.ts";
import { FaultyFiles, systemError } from "../../support/faulty_files.ts";
import { openFileStore, openFs, temporaryFilesIn } from "../../support/fs_adapter.ts";
import { testBytes, testKey, testKeys } from "../../support/objects.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

const BLOCK = 4096;
const BUFFER = 4 * 2 ** 20;
const SIZES = [
  1,
  511,
  BLOCK - 1,
  BLOCK,
  BLOCK + 1,
  3 * BLOCK - 1,
  3 * BLOCK,
  100_001,
  BUFFER - 1,
  BUFFER,
  BUFFER + 1,
  2 * BUFFER + BLOCK,
  2 * BUFFER + 5,
];
const call = { signal: new AbortController().signal };

function objectOf(key: ObjectKey, byteLength: number, cut: number): AdapterObject {
  const bytes = testBytes(key, byteLength);
  return { key, parts: [bytes.slice(0, cut), bytes.slice(cut)], byteLength };
}

async function load(
  store: { load: FileStore["load"] },
  key: ObjectKey,
  byteLength: number,
  cut = 0,
): Promise<string> {
  const parts = [new Uint8Array(cut), new Uint8Array(byteLength - cut)];
  const loaded = String(await store.load([{ key, parts, byteLength }], call));
  if (loaded === "1") assertEquals(concatParts(parts), testBytes(key, byteLength));
  return loaded;
}

function pathOf(basePath: string, key: ObjectKey): string {
  return new ObjectPaths({ basePath, layout: "kvtier", shards: 0 }).pathOf(key);
}

/** Direct files whose calls can be made to fail. */
function faultyDirect(faulty: { current?: FaultyFiles }): (files: FileSystem) => DirectFileSystem {
  return (host) => {
    const direct = new DirectFiles(host);
    const files = new FaultyFiles(direct.files);
    faulty.current = files;
    return {
      files: files.files,
      probe: (path, mode) => direct.probe(path, mode),
      close: (signal) => direct.close(signal),
    };
  };
}

interface Opened extends AsyncDisposable {
  readonly store: FileStore;
  readonly path: string;
  readonly errors: AdapterError[];
}

async function open(options: Partial<FileStoreOptions> = {}): Promise<Opened> {
  const { path, [Symbol.asyncDispose]: remove } = await tempDirectory();
  const errors: AdapterError[] = [];
  const onError = (error: AdapterError) => void errors.push(error);
  const store = await openFileStore(path, { isDirect: true, onError, ...options });
  const dispose = async (): Promise<void> => {
    await store[Symbol.asyncDispose]();
    await remove();
  };
  return { store, path, errors, [Symbol.asyncDispose]: dispose };
}

Deno.test("files of all sizes are written with direct I/O, and look like any others", async () => {
  await using opened = await open();
  const { store, path, errors } = opened;
  assertEquals(store.reportStatus()["io"], "direct");
  for (const [i, size] of SIZES.entries()) {
    const key = testKey(i);
    const { stored } = await store.store([objectOf(key, size, Math.floor(size / 3))], call);
    assertEquals(String(stored), "1", `${size} bytes`);
    assertEquals(await Deno.readFile(pathOf(path, key)), testBytes(key, size));
  }
  assertEquals([await temporaryFilesIn(path), errors], [[], []]);
});

Deno.test("files of all sizes are read with direct I/O, and only at their length", async () => {
  for (const readAheadBytes of [0, 100, BLOCK + 1]) {
    await using opened = await open({ readAheadBytes });
    const { store, path, errors } = opened;
    for (const [i, size] of SIZES.entries()) {
      const key = testKey(i);
      await Deno.writeFile(pathOf(path, key), testBytes(key, size));
      for (const cut of [0, 1, size - 1]) {
        assertEquals(await load(store, key, size, cut), "1", `${size} bytes, cut at ${cut}`);
      }
      for (const wrong of [size - 1, size + 1, size + BLOCK, Math.max(0, size - BLOCK)]) {
        if (wrong > 0 && wrong !== size) assertEquals(await load(store, key, wrong), "0");
      }
    }
    assertEquals([store.reportStatus()["io"], errors], ["direct", []]);
  }
});

Deno.test("many concurrent objects use direct I/O with few buffers", async () => {
  await using opened = await open({ ioConcurrency: 4, durability: "full" });
  const keys = testKeys(40);
  const objects = keys.map((key, i) => objectOf(key, 5000 + i, 7));
  assertEquals(String((await opened.store.store(objects, call)).stored), "1".repeat(40));
  const bits = await Promise.all(keys.map((key, i) => load(opened.store, key, 5000 + i)));
  assertEquals(bits.join(""), "1".repeat(40));
});

Deno.test("a non-file in place of an object is a miss with direct I/O, too", async () => {
  await using opened = await open();
  const { store, path, errors } = opened;
  const target = `${path}/target`;
  await Deno.writeFile(target, testBytes(testKey(1), 5000));
  await Deno.symlink(target, pathOf(path, testKey(1)));
  await Deno.mkdir(pathOf(path, testKey(2)));
  await Deno.writeFile(pathOf(path, testKey(3)), new Uint8Array());
  for (const n of [1, 2, 3]) assertEquals(await load(store, testKey(n), 5000), "0");
  assertEquals([store.reportStatus()["io"], errors], ["direct", []]);
});

Deno.test("if the probe is refused, the page cache is used, and that is reported once", async () => {
  await using directory = await tempDirectory();
  const errors: AdapterError[] = [];
  // The directory of locks cannot be created, so the test file cannot either.
  await Deno.writeTextFile(`${directory.path}/tmp`, "in the way");
  await using store = await openFileStore(directory.path, {
    isDirect: true,
    countsOnStart: false,
    onError: (error) => void errors.push(error),
  });
  assertMatch(String(store.reportStatus()["io"]), /^buffered: O_DIRECT was refused: .+/);
  const opening = () => errors.filter(({ operation }) => operation === "open");
  assertEquals(opening().length, 1);
  assertMatch(opening()[0]?.message ?? "", /O_DIRECT is refused, so the page cache is used: .+/);
  await Deno.remove(`${directory.path}/tmp`);
  const { stored } = await store.store([objectOf(testKey(1), 5000, 3)], call);
  assertEquals([String(stored), await load(store, testKey(1), 5000)], ["1", "1"]);
  assertEquals(opening().length, 1);
});

Deno.test("the probe returns why a file system refuses", async () => {
  const files = new DirectFiles(hostFileSystem);
  const refusal = await files.probe("/proc/self/none.tmp", 0o600);
  await files.close();
  assert(refusal !== undefined && refusal !== "");
});

for (
  const [failing, code] of [
    ["create", "EINVAL"],
    ["file.write", "EINVAL"],
    ["file.flush", "EINVAL"],
    ["file.syncData", "EINVAL"],
    ["open", "EINVAL"],
    ["file.read", "EINVAL"],
    ["create", "EOPNOTSUPP"],
    ["file.read", "ENOTSUP"],
  ] as const
) {
  Deno.test(`when direct ${failing} fails with ${code}, the page cache is used, and nothing fails`, async () => {
    const faulty: { current?: FaultyFiles } = {};
    await using opened = await open({ directFiles: faultyDirect(faulty), durability: "file" });
    const { store, path, errors } = opened;
    const known = testKey(50);
    await Deno.writeFile(pathOf(path, known), testBytes(known, 5000));
    faulty.current?.arm(({ operation }) => operation === failing ? systemError(code) : undefined);
    const objects = testKeys(6).map((key) => objectOf(key, 5000, 3));
    const [{ stored }, loaded] = await Promise.all([
      store.store(objects, call),
      load(store, known, 5000),
    ]);
    assertEquals([String(stored), loaded], ["111111", "1"]);
    const again = await Promise.all(objects.map(({ key }) => load(store, key, 5000)));
    assertEquals(again.join(""), "111111");
    assertMatch(String(store.reportStatus()["io"]), new RegExp(`^buffered: .* refused: ${code}`));
    // The reason is reported once, however many calls were refused.
    assertEquals(errors.map(({ operation }) => operation), ["open"]);
    assertMatch(errors[0]?.message ?? "", new RegExp(code));
    assertEquals([await temporaryFilesIn(path), faulty.current?.open], [[], []]);
  });
}

Deno.test("other failures of direct I/O are reported, and it stays in use", async () => {
  const faulty: { current?: FaultyFiles } = {};
  await using opened = await open({ directFiles: faultyDirect(faulty) });
  const { store, errors } = opened;
  faulty.current?.arm(({ operation }) =>
    operation === "file.write" ? systemError("EIO") : undefined
  );
  const { stored } = await store.store([objectOf(testKey(1), 5000, 3)], call);
  assertEquals([String(stored), errors[0]?.code], ["0", "EIO"]);
  faulty.current?.disarm();
  assertEquals(String((await store.store([objectOf(testKey(1), 5000, 3)], call)).stored), "1");
  assertEquals(store.reportStatus()["io"], "direct");
});

Deno.test("the status shows how the adapter reads and writes", async () => {
  await using directory = await tempDirectory();
  await using direct = await openFs({ base_path: directory.path, use_odirect: true });
  assertEquals(direct.reportStatus?.()["io"], "direct");
  await using buffered = await openFs({ base_path: directory.path });
  assertEquals(buffered.reportStatus?.()["io"], "buffered");
});
