import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { join } from "@std/path";
import filePool from "../../../adapters/file_pool.ts";
import { parseAdapterConfig } from "../../../src/adapter/config.ts";
import { ConfigError } from "../../../src/base/config_error.ts";
import { testEnvironment } from "../../support/adapters.ts";
import { runChild } from "../../support/child.ts";
import { testKeys } from "../../support/objects.ts";
import { tempDirectory } from "../../support/temp_directory.ts";
import { call, load, openPool, statusOf, store, tempPool } from "./file_pool_tools.ts";

const program = new URL("./file_pool_try.ts", import.meta.url);
const params = { "file_path": "/nowhere", "slot_bytes": 4096 };

for (
  const [backend, needs] of [
    ["GDS", "cuFile"],
    ["GDS_MT", "cuFile"],
    ["HF3FS", "3FS"],
  ] as const
) {
  Deno.test(`file_pool: backend ${backend} is refused with what it would need`, () => {
    const given = { backend, "pool_size": 1, "backend_params": params };
    const values = parseAdapterConfig(filePool, given);
    const error = assertThrows(
      () => filePool.create(values, testEnvironment()),
      ConfigError,
      needs,
    );
    assertEquals([error.key, error.received], ["backend", backend]);
    assert(error.expected.startsWith("POSIX"));
  });
}

const wrong: [what: string, config: Record<string, unknown>, key: string][] = [
  ["no pool_size", { "backend_params": params }, "pool_size"],
  ["no backend_params", { "pool_size": 1 }, "backend_params"],
  ["no file_path", { "pool_size": 1, "backend_params": {} }, "backend_params.file_path"],
  ["pool_size 0", { "pool_size": 0, "backend_params": params }, "pool_size"],
  ["pool_size 1.5", { "pool_size": 1.5, "backend_params": params }, "pool_size"],
  [
    "backend io_uring",
    { backend: "io_uring", "pool_size": 1, "backend_params": params },
    "backend",
  ],
  ...[
    ["files", 0],
    ["files", 1.5],
    ["slot_bytes", 0],
    ["slot_bytes", "4096"],
    ["use_direct_io", "true"],
    ["file_path", " "],
    ["unknown", 1],
  ].map(([key, value]): [string, Record<string, unknown>, string] => [
    `${key} ${JSON.stringify(value)}`,
    { "pool_size": 1, "backend_params": { ...params, [String(key)]: value } },
    `backend_params.${key}`,
  ]),
];

for (const [what, config, key] of wrong) {
  Deno.test(`file_pool: ${what} is refused`, () => {
    const error = assertThrows(() => parseAdapterConfig(filePool, config), ConfigError);
    assertEquals(error.key, key);
  });
}

Deno.test("file_pool: slots larger than any object of device memory are refused", async () => {
  await using directory = await tempDirectory();
  const l1Memory = { type: "host", maxObjectBytes: 10_000, alignmentBytes: 256 } as const;
  const open = (bytes: number) => {
    return openPool(directory.path, { params: { "slot_bytes": bytes } }, { l1Memory });
  };
  const error = await assertRejects(() => open(14_097), ConfigError, "l1Memory");
  assertEquals([error.key, error.received], ["backend_params.slot_bytes", 14_097]);
  await using adapter = await open(14_096);
  assertEquals(adapter.capabilities.maxObjectBytes, 14_096);
});

Deno.test("file_pool: a second owner is refused, in this process and in another", async () => {
  await using pool = await tempPool();
  await store(pool.adapter, testKeys(2));
  const error = await assertRejects(() => openPool(pool.path), ConfigError, "in use by another");
  assertEquals([error.key, error.received], ["backend_params.file_path", pool.path]);
  const said = await runChild(program, { args: [pool.path] }) as { refusal: string };
  assert(said.refusal.includes("in use by another process"), said.refusal);
  assertEquals(await load(pool.adapter, testKeys(2)), "11");
  await pool.restart();
  assertEquals(await load(pool.adapter, testKeys(2)), "11");
});

Deno.test("file_pool: a file_path that is a file is refused", async () => {
  await using directory = await tempDirectory();
  const path = join(directory.path, "file");
  await Deno.writeTextFile(path, "");
  const error = await assertRejects(() => openPool(path), ConfigError);
  assertEquals(error.key, "backend_params.file_path");
});

const shapes = [
  { slots: 9 },
  { params: { "slot_bytes": 4097 } },
  { params: { "slot_bytes": 4096, files: 3 } },
];

Deno.test("file_pool: a non-empty pool of another shape is refused and not changed", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  {
    await using adapter = await openPool(path);
    await store(adapter, testKeys(3));
  }
  for (const isCrashed of [false, true]) {
    if (isCrashed) await Deno.remove(join(path, "pool.index"));
    for (const shape of shapes) {
      const error = await assertRejects(() => openPool(path, shape), ConfigError);
      assert(error.expected.includes("pool_size 8, slot_bytes 4096, files 4"), error.message);
      assert(error.expected.includes("another file_path"), error.message);
    }
    await using adapter = await openPool(path);
    assertEquals(statusOf(adapter).recoveredFrom, isCrashed ? "slots" : "index");
    assertEquals(await load(adapter, testKeys(3)), "111");
  }
});

Deno.test("file_pool: an empty pool of another shape is laid out anew", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  {
    await using _ = await openPool(path);
  }
  for (const shape of shapes) {
    await using adapter = await openPool(path, shape);
    assertEquals(statusOf(adapter).recoveredFrom, "new");
    assertEquals(await store(adapter, testKeys(3)), "111");
    await adapter.delete?.(testKeys(3), call);
  }
});

for (const umask of ["000", "022", "077"]) {
  Deno.test(`file_pool: only the owner can read objects, under umask ${umask}`, async () => {
    await using directory = await tempDirectory();
    const path = join(directory.path, "parent", "pool");
    const { modes } = await runChild(program, {
      args: [path],
      shell: ["sh", "-c", `umask ${umask} && exec "$@"`, "sh"],
    }) as { modes: Record<string, string> };
    const files = ["pool.geometry", "pool.index", "pool.lock", "slots-0.pool", "slots-1.pool"];
    assertEquals(modes, { ".": "700", ...Object.fromEntries(files.map((name) => [name, "600"])) });
  });
}

Deno.test("file_pool: a directory that others can write to is refused with the reason", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  for (const mode of [0o777, 0o770, 0o1777]) {
    await Deno.chmod(path, mode);
    const error = await assertRejects(() => openPool(path), ConfigError, "chmod go-w");
    assertEquals(error.key, "backend_params.file_path");
  }
  await Deno.chmod(path, 0o755);
  await using _adapter = await openPool(path);
});

for (const name of ["pool.lock", "pool.tmp", "pool.geometry", "pool.index", "slots-0.pool"]) {
  for (const kind of ["link", "FIFO", "directory"]) {
    Deno.test(`file_pool: a ${kind} in place of ${name} is refused and not touched`, async () => {
      await using directory = await tempDirectory();
      await using other = await tempDirectory();
      const victim = join(other.path, "victim");
      await Deno.writeTextFile(victim, "precious");
      const place = join(directory.path, name);
      if (kind === "link") await Deno.symlink(victim, place);
      else if (kind === "directory") await Deno.mkdir(place);
      else await new Deno.Command("mkfifo", { args: [place] }).output();
      const error = await assertRejects(() => openPool(directory.path), ConfigError, name);
      assertStringIncludes(error.message, "move away what lies in their place");
      assertEquals(await Deno.readTextFile(victim), "precious");
    });
  }
}
