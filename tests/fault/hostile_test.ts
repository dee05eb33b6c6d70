import { assert, assertEquals, assertGreater, assertRejects } from "@std/assert";
import { dirname, join } from "@std/path";
import * as fc from "../support/fast_check.ts";
import { type FileLayout, ObjectPaths } from "../../adapters/_fs/object_paths.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import { type AdapterError, ConfigError, type L2Adapter } from "../../src/adapter/contract.ts";
import { anyObjectKey } from "../support/any_key.ts";
import { runChild } from "../support/child.ts";
import { FaultyFiles } from "../support/faulty_files.ts";
import {
  fileOf,
  filesIn,
  openFileStore,
  openFs,
  temporaryFilesIn,
  testObject,
} from "../support/fs_adapter.ts";
import { testBytes, testKey, testKeys } from "../support/objects.ts";
import { runs } from "../support/runs.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { printFigures } from "./lab/figures.ts";
import { notRun } from "./lab/not_run.ts";
import { inNewNamespace } from "./namespace.ts";

// deno test -A tests/fault/hostile_test.ts -- [--runs KEYS] [--seed S]

const { numRuns: KEYS, seed = Date.now() % 1_000_000 } = runs(20_000);
const call = { signal: new AbortController().signal };
const lookupCall = { ...call, prefix: false };
const encoder = new TextEncoder();
const LAYOUTS: readonly { layout: FileLayout; shards: number }[] = [
  { layout: "kvtier", shards: 1 },
  { layout: "kvtier", shards: 0 },
  { layout: "lmcache", shards: 2 },
  { layout: "lmcache", shards: 0 },
];

const HASH = "ab".repeat(32);
/** Names of foreign files in the directory. */
const anyName = fc.oneof(
  fc.string({ unit: "binary", maxLength: 80 }),
  fc.constantFrom("..", ".", "", "...", ".data", "@@@@.data", `h-${HASH}.data`, `h-${HASH}.DATA`),
  fc.tuple(
    fc.constantFrom("m", "..", "a%2Fb", "-SEP-", "%", "%zz", "%00", "%ff", "\ufeffm", "m\n", ""),
    fc.constantFrom("0x00000000", "0xffffffff", "0x1", "00000000", "0x0000000A"),
    fc.constantFrom("0", "00", "ffffffff", "100000000", "-1", "A"),
    fc.constantFrom(HASH, HASH.toUpperCase(), HASH.slice(1), `${HASH}0`),
    fc.constantFrom("", "@", "@s", "@..", "@%2f", "@a@b"),
  ).map(([model, rank, group, hash, salt]) => `${model}@${rank}@${group}@${hash}${salt}.data`),
  // Slightly modified names of objects.
  fc.tuple(anyObjectKey, fc.nat(300), fc.string({ unit: "binary", maxLength: 2 })).map(
    ([key, at, text]) => {
      const name = new ObjectPaths({ basePath: "", layout: "kvtier", shards: 0 }).nameOf(key);
      return name.slice(0, at) + text + name.slice(at + text.length);
    },
  ),
).map((name) => name.replaceAll(/[/\0]/g, "")).filter((name) => encoder.encode(name).length <= 255);

/** Describes what is wrong with the path of a key; `undefined` if it is valid. */
function faultOf(pathOf: (key: ObjectKey) => string, key: ObjectKey): string | undefined {
  const path = pathOf(key);
  const names = path.slice("/base/".length).split("/");
  if (!path.startsWith("/base/")) return "outside";
  if (names.some((name) => name === "" || name === "." || name === "..")) return "outside";
  if (path.includes("\0")) return "NUL";
  if (names.some((name) => encoder.encode(name).length > 255)) return "too long";
  if (names.length > 3) return "too deep";
  return undefined;
}

const wrong = { keys: 0, names: 0 };

for (const { layout, shards } of LAYOUTS) {
  Deno.test(`any key has a unique path inside the directory, ${layout} with ${shards} levels`, () => {
    const paths = new ObjectPaths({ basePath: "/base", layout, shards });
    const owners = new Map<string, string>();
    fc.assert(
      fc.property(anyObjectKey, (key) => {
        const path = paths.pathOf(key);
        const owner = owners.get(path);
        const named = paths.objectNamed(paths.directoryOf(key), paths.nameOf(key));
        const isRead = named === "key-in-file" ||
          (named !== "no-key" && named?.key.id === key.id);
        const isFine = faultOf((key) => paths.pathOf(key), key) === undefined && isRead &&
          (owner === undefined || owner === key.id);
        if (!isFine) wrong.keys++;
        assert(isFine, path);
        if (owners.size < 100_000) owners.set(path, key.id);
      }),
      { numRuns: Math.ceil(KEYS / 8), seed },
    );
  });

  Deno.test(`any file name belongs to at most one object, ${layout} with ${shards} levels`, () => {
    const paths = new ObjectPaths({ basePath: "/base", layout, shards });
    fc.assert(
      fc.property(anyName, (name) => {
        const directory = shards === 0 ? "/base" : shards === 1 ? "/base/ab" : "/base/ab/ab";
        const named = paths.objectNamed(directory, name);
        if (named === null || typeof named === "string") return;
        const isFine = paths.pathOf(named.key) === `${directory}/${name}`;
        if (!isFine) wrong.names++;
        assert(isFine, name);
      }),
      { numRuns: Math.ceil(KEYS / 8), seed },
    );
  });
}

Deno.test("control: unescaped names are seen to leave the directory and to collide", () => {
  const naive = (key: ObjectKey) => `/base/${key.model}@${key.kvRank}.data`;
  const faults = new Set<string | undefined>();
  const owners = new Map<string, string>();
  fc.assert(
    fc.property(anyObjectKey, (key) => {
      faults.add(faultOf(naive, key));
      if ((owners.get(naive(key)) ?? key.id) !== key.id) faults.add("collides");
      owners.set(naive(key), key.id);
    }),
    { numRuns: 2000, seed },
  );
  assert(faults.has("outside") && faults.has("collides"), [...faults].join());
});

async function store(adapter: L2Adapter, keys: readonly ObjectKey[]): Promise<string> {
  return String((await adapter.store(keys.map((key) => testObject(key)), call)).stored);
}

async function load(adapter: L2Adapter, keys: readonly ObjectKey[]): Promise<string> {
  const rooms = keys.map((key) => ({ key, parts: [new Uint8Array(1000)], byteLength: 1000 }));
  const loaded = await adapter.load(rooms, call);
  for (const { key, parts } of loaded.gather(rooms)) assertEquals(parts[0], testBytes(key, 1000));
  return String(loaded);
}

let staged = 0;

/** Things that can take the place of a file. */
const THINGS: Record<string, (path: string, outside: string) => Promise<void>> = {
  "a link to an object": async (path, outside) => {
    await Deno.writeFile(`${outside}/object`, testBytes(testKey(1), 1000));
    await Deno.symlink(`${outside}/object`, path);
  },
  "a link to a directory": (path, outside) => Deno.symlink(outside, path),
  "a link to itself": (path) => Deno.symlink(path, path),
  "a link to nothing": (path) => Deno.symlink("/nothing/there", path),
  "a link to a device": (path) => Deno.symlink("/dev/zero", path),
  "a FIFO": (path) => run("mkfifo", path),
  "a socket": async (path, outside) => {
    // The path of a socket must be short when it is created, but may be renamed.
    using _ = Deno.listen({ transport: "unix", path: `${outside}/s` });
    await Deno.rename(`${outside}/s`, path);
  },
  "a directory": (path) => Deno.mkdir(path),
  "a directory with a file": async (path) => {
    await Deno.mkdir(path);
    await Deno.writeTextFile(`${path}/file`, "foreign");
  },
  "a device": (path) => run("mknod", path, "c", "1", "5"),
  "an empty file": (path) => Deno.writeFile(path, new Uint8Array()),
  "a file without permissions": async (path) => {
    await Deno.writeFile(path, new Uint8Array(10), { mode: 0o000 });
  },
  "a huge sparse file": async (path) => {
    using file = await Deno.open(path, { write: true, createNew: true });
    await file.truncate(2 ** 40);
  },
};

async function run(command: string, ...args: string[]): Promise<void> {
  const { success } = await new Deno.Command(command, { args, stderr: "null" }).output();
  if (!success) throw new Deno.errors.NotSupported(`${command} does not work here`);
}

for (const [what, make] of Object.entries(THINGS)) {
  for (const isDirect of [false, true]) {
    const how = isDirect ? ", past the page cache" : "";
    Deno.test(`${what} in the place of an object affects only that object${how}`, async (t) => {
      await using directory = await tempDirectory();
      await using elsewhere = await tempDirectory();
      await using adapter = await openFs(
        { base_path: directory.path, use_odirect: isDirect, max_capacity_gb: 1 },
        { onError: () => {} },
      );
      const [key, other] = [testKey(1), testKey(2)];
      const path = fileOf(directory.path, key);
      await Deno.mkdir(dirname(path), { recursive: true, mode: 0o700 });
      try {
        await make(path, elsewhere.path);
      } catch (error) {
        if (!(error instanceof Deno.errors.NotSupported)) throw error;
        return await notRun(t, error.message);
      }
      const before = await filesIn(elsewhere.path);
      assertEquals(await store(adapter, [other]), "1");
      assertEquals(await load(adapter, [key, other]), "01");
      for (const prefix of [true, false]) {
        const found = await adapter.lookupAndLock([key, other], { ...call, prefix });
        adapter.unlock?.(found.gather([key, other]));
      }
      await Array.fromAsync(adapter.list?.(call) ?? []);
      const usage = await adapter.usage?.(call);
      assert((usage?.objectCount ?? 0) >= 1);
      const isDirectory = what.startsWith("a directory");
      const isStored = await store(adapter, [key, other]);
      assert(isStored === (isDirectory ? "01" : "11") || what === "a directory", isStored);
      assertEquals(await load(adapter, [key, other]), isStored);
      const { deleted } = await adapter.delete?.([key], call) ?? {};
      assertEquals(String(deleted), isStored.slice(0, 1));
      // The target of a link was not written, removed or touched.
      assertEquals(await filesIn(elsewhere.path), before);
      assertEquals(await temporaryFilesIn(directory.path), []);
      staged++;
    });
  }
}

for (
  const [what, place, shards] of [
    ["a shard directory", (key: ObjectKey) => key.chunkHashHex.slice(0, 2), 1],
    ["a shard directory of two levels", (key: ObjectKey) => key.chunkHashHex.slice(0, 2), 2],
    [
      "the second level of a shard directory",
      (key: ObjectKey) => `${key.chunkHashHex.slice(0, 2)}/${key.chunkHashHex.slice(2, 4)}`,
      2,
    ],
    ["the directory of locks", () => "tmp", 1],
    ["the parent of relative_tmp_dir", () => "writing", 1],
    ["relative_tmp_dir", () => "writing/now", 1],
  ] as const
) {
  Deno.test(`${what} that is a link is not followed by writes`, async () => {
    await using directory = await tempDirectory();
    await using elsewhere = await tempDirectory();
    const key = testKey(1);
    const link = join(directory.path, place(key));
    await Deno.mkdir(dirname(link), { recursive: true });
    await Deno.symlink(elsewhere.path, link);
    const errors: AdapterError[] = [];
    const faulty = new FaultyFiles();
    await using adapter = await openFileStore(directory.path, {
      files: faulty.files,
      shards,
      tmpPath: join(directory.path, "writing", "now"),
      onError: (error) => void errors.push(error),
    });
    assertEquals(await store(adapter, [key]), "0");
    await faulty.settled();
    assertEquals(
      (await Array.fromAsync(Deno.readDir(elsewhere.path))).map(({ name }) => name).filter(
        (name) => {
          return name.includes(".tmp") || name.includes(".data") || name === "now";
        },
      ),
      [],
    );
    assertGreater(errors.filter(({ operation }) => operation === "store").length, 0);
    await Deno.remove(link);
    assertEquals([await store(adapter, [key]), await load(adapter, [key])], ["1", "1"]);
    staged++;
  });
}

for (const what of ["a link to a file", "a link to nothing", "a FIFO", "a directory"]) {
  Deno.test(`${what} in the place of the ledger is replaced, and not followed by writes`, async () => {
    await using directory = await tempDirectory();
    await using elsewhere = await tempDirectory();
    const target = join(elsewhere.path, "precious");
    const path = join(directory.path, "tmp", "usage.ledger");
    await Deno.mkdir(dirname(path), { mode: 0o700 });
    if (what === "a FIFO") await run("mkfifo", path);
    else if (what === "a directory") await Deno.mkdir(path);
    else await Deno.symlink(target, path);
    if (what === "a link to a file") await Deno.writeTextFile(target, "precious");
    await using adapter = await openFs({ base_path: directory.path }, { onError: () => {} });
    assertEquals([await store(adapter, [testKey(1)]), await load(adapter, [testKey(1)])], [
      "1",
      "1",
    ]);
    if (what === "a link to a file") assertEquals(await Deno.readTextFile(target), "precious");
    else assertEquals(await Deno.readTextFile(target).catch(() => ""), "");
    assert((await Deno.lstat(path)).isFile);
    staged++;
  });
}

Deno.test("a base path that is a link is followed once", async () => {
  await using directory = await tempDirectory();
  const [a, b, link] = ["a", "b", "link"].map((name) => join(directory.path, name));
  assert(a !== undefined && b !== undefined && link !== undefined);
  await Deno.mkdir(a, { mode: 0o700 });
  await Deno.mkdir(b, { mode: 0o700 });
  await Deno.symlink(a, link);
  await using adapter = await openFs({ base_path: link });
  assertEquals(adapter.reportStatus?.()["basePath"], a);
  await Deno.remove(link);
  await Deno.symlink(b, link);
  assertEquals([await store(adapter, [testKey(1)]), await load(adapter, [testKey(1)])], ["1", "1"]);
  assertEquals(await filesIn(b), []);
  staged++;
});

Deno.test("a base path writable by others is rejected, unless allowed", async () => {
  for (const mode of [0o777, 0o770, 0o707, 0o720, 0o702, 0o1777, 0o2770]) {
    await using directory = await tempDirectory();
    await Deno.chmod(directory.path, mode);
    const config = { "base_path": directory.path };
    const error = await assertRejects(() => openFs(config), ConfigError);
    assertEquals(error.key, "base_path");
    assert(String(error.received).endsWith(mode.toString(8).padStart(4, "0")));
    await using adapter = await openFs({ ...config, allow_shared_group: true });
    assertEquals(await store(adapter, [testKey(1)]), "1");
    staged++;
  }
  for (const mode of [0o700, 0o755, 0o750, 0o711]) {
    await using directory = await tempDirectory();
    await Deno.chmod(directory.path, mode);
    await using _ = await openFs({ base_path: directory.path });
  }
});

Deno.test("a base path that vanishes causes misses and is created again", async () => {
  await using directory = await tempDirectory();
  const path = join(directory.path, "base");
  const codes = new Set<string | undefined>();
  const onError = (error: AdapterError) => void codes.add(error.code);
  await using adapter = await openFs({ base_path: path }, { onError });
  const keys = testKeys(40);
  for (let round = 0; round < 6; round++) {
    const work = [
      store(adapter, keys),
      load(adapter, keys),
      adapter.lookupAndLock(keys, lookupCall).then((found) => adapter.unlock?.(found.gather(keys))),
      adapter.delete?.(keys.slice(0, 5), call),
      Array.fromAsync(adapter.list?.(call) ?? []),
      adapter.usage?.(call),
    ];
    const moved = `${path}.${round}`;
    const move = Deno.rename(path, moved).catch(() => {});
    const results = await Promise.allSettled([...work, move]);
    for (const result of results) {
      if (result.status === "fulfilled") continue;
      assert(result.reason instanceof Deno.errors.NotFound, `${result.reason}`);
    }
    await adapter.delete?.(keys, call);
    assertEquals(await store(adapter, keys), "1".repeat(40));
    assertEquals(await load(adapter, keys), "1".repeat(40));
  }
  assertEquals(await temporaryFilesIn(path), []);
  staged++;
});

Deno.test("a directory that turns read-only is read, and written again when possible", async (t) => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const shell = await inNewNamespace(`exec "$@"`);
  if (shell === undefined) return await notRun(t, "no file systems can be mounted here");
  const said = await runChild(new URL("./turn_read_only.ts", import.meta.url), {
    args: [path],
    shell,
  });
  assertEquals(said, {
    before: { stored: "111", loaded: "111" },
    readOnly: { stored: "000", loaded: "111", found: "111", deleted: "000", listed: 3 },
    reasons: ["EROFS"],
    after: { stored: "111", loaded: "111", deleted: "111" },
    temporary: [],
  });
  staged++;
});

Deno.test("figures", () => {
  const figures = { keys: KEYS, seed, staged, wrongKeys: wrong.keys, wrongNames: wrong.names };
  printFigures("hostile", figures);
  assertEquals(wrong, { keys: 0, names: 0 });
});
