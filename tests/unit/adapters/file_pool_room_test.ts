import { assert, assertEquals, assertGreaterOrEqual } from "@std/assert";
import { deadline } from "@std/async";
import { join } from "@std/path";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { inNewNamespace } from "../../fault/namespace.ts";
import { runChild } from "../../support/child.ts";
import { filesIn } from "../../support/fs_adapter.ts";
import { testKey, testKeys } from "../../support/objects.ts";
import { tempDirectory } from "../../support/temp_directory.ts";
import { call, load, openPool, statusOf, store, tempPool } from "./file_pool_tools.ts";

const program = new URL("./file_pool_try.ts", import.meta.url);

/** Bytes on disk of the slot files in a directory. */
async function diskBytes(path: string): Promise<number> {
  let bytes = 0;
  for await (const { name } of Deno.readDir(path)) {
    if (name.startsWith("slots-")) {
      bytes += ((await Deno.stat(`${path}/${name}`)).blocks ?? 0) * 512;
    }
  }
  return bytes;
}

Deno.test("file_pool: all slots take their space from the start, and never more", async () => {
  await using pool = await tempPool({ slots: 50, params: { "slot_bytes": 8192, files: 3 } });
  const bytes = await diskBytes(pool.path);
  assertGreaterOrEqual(bytes, 50 * 8192);
  await store(pool.adapter, testKeys(60), 8192);
  assertEquals(await diskBytes(pool.path), bytes);
  assertEquals((await pool.adapter.usage?.(call))?.capacityBytes, 50 * 8192);
});

Deno.test("file_pool: slots are distributed over the files, at most one file per slot", async () => {
  for (const [slots, files, names] of [[7, 3, 3], [2, 4, 2], [1, 1, 1]] as const) {
    await using pool = await tempPool({ slots, params: { "slot_bytes": 4096, files } });
    const entries = await Array.fromAsync(Deno.readDir(pool.path));
    assertEquals(entries.filter(({ name }) => name.startsWith("slots-")).length, names);
    assertEquals(await store(pool.adapter, testKeys(slots), 4096), "1".repeat(slots));
    assertEquals(await load(pool.adapter, testKeys(slots), 4096), "1".repeat(slots));
    await pool.crash();
    assertEquals(await load(pool.adapter, testKeys(slots), 4096), "1".repeat(slots));
  }
});

Deno.test("file_pool: without slot_bytes the first object decides permanently", async () => {
  await using pool = await tempPool({ params: {} });
  assertEquals(pool.adapter.capabilities.maxObjectBytes, undefined);
  assertEquals(await pool.adapter.usage?.(call), { usedBytes: 0, objectCount: 0 });
  const results = await Promise.all([
    store(pool.adapter, testKeys(2), 5000),
    store(pool.adapter, [testKey(2)], 9000),
  ]);
  assertEquals(results, ["11", "0"]);
  assert(pool.errors[0]?.message.includes("slot_bytes"), pool.errors[0]?.message);
  assertEquals(pool.errors[0]?.key?.id, testKey(2).id);
  assertEquals(pool.adapter.capabilities.maxObjectBytes, 8192);
  await pool.restart();
  assertEquals(pool.adapter.capabilities.maxObjectBytes, 8192);
  assertEquals(await load(pool.adapter, testKeys(2), 5000), "11");
});

Deno.test("file_pool: an object that fills its slot can be loaded, also after a crash", async () => {
  for (const bytes of [4064, 4065, 4096, 5000, 8160, 8192]) {
    await using pool = await tempPool({ params: { "slot_bytes": bytes, files: 1 } });
    assertEquals(await store(pool.adapter, testKeys(8), bytes), "1".repeat(8));
    assertEquals(await store(pool.adapter, [testKey(9)], bytes + 1), "0");
    await pool.crash();
    assertEquals(await load(pool.adapter, testKeys(8), bytes), "1".repeat(8));
  }
});

Deno.test("file_pool: a disk without room for the pool is an error with the bytes needed", async (t) => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const shell = await inNewNamespace(
    `mount -t tmpfs -o size=1m,mode=700 tmpfs "${path}" && exec "$@"`,
  );
  if (shell === undefined) {
    await t.step("no file systems can be mounted here: not run", () => {});
    return;
  }
  const run = (params: unknown) => {
    return runChild(program, { args: [path, "300", JSON.stringify(params)], shell });
  };
  const [atStart, atStore] = [await run({ "slot_bytes": 4096 }), await run({})] as Record<
    string,
    unknown
  >[];
  const refusal = String(atStart?.refusal);
  for (const part of ["ConfigError", "3686400 bytes", "No space left"]) {
    assert(refusal.includes(part), refusal);
  }
  assertEquals(atStart?.modes, { ".": "700", "pool.lock": "600" });
  assertEquals([atStore?.stored, atStore?.loaded], ["000", "000"]);
  const errors = atStore?.errors as { code: string; message: string; hasKey: boolean }[];
  assertEquals(errors.map(({ code, hasKey }) => [code, hasKey]), Array(3).fill(["ENOSPC", true]));
  assert(errors[0]?.message.includes("The pool needs 3686400 bytes"), errors[0]?.message);
  assertEquals(atStore?.modes, { ".": "700", "pool.lock": "600" });
});

Deno.test("file_pool: a pool that could not be laid out is tried again after a while", async () => {
  await using directory = await tempDirectory();
  const path = `${directory.path}/pool`;
  const clock = new ManualClock();
  const failures: string[] = [];
  const onError = ({ operation, code }: { operation: string; code: string | undefined }) => {
    failures.push(`${operation} ${code}`);
  };
  const adapter = await openPool(path, { params: {} }, { clock, onError });
  // A directory with the name of a pool file.
  await Deno.mkdir(`${path}/slots-2.pool`);
  assertEquals(await store(adapter, testKeys(2)), "00");
  assertEquals(failures, ["store EISDIR", "store EISDIR"]);
  const names = (await Array.fromAsync(Deno.readDir(path))).map(({ name }) => name).sort();
  assertEquals(names, ["pool.lock", "slots-2.pool"]);
  await Deno.remove(`${path}/slots-2.pool`);
  await clock.advance(29_999);
  assertEquals(await store(adapter, testKeys(2)), "00");
  await clock.advance(1);
  assertEquals(await store(adapter, testKeys(2)), "11");
  assertEquals(await load(adapter, testKeys(2)), "11");
  assertEquals(statusOf(adapter).usedSlots, 2);
  await adapter[Symbol.asyncDispose]();
});

Deno.test("file_pool: adjacent, separate and unordered parts can be loaded", async () => {
  await using pool = await tempPool({ params: { "slot_bytes": 70_000 } });
  const buffer = crypto.getRandomValues(new Uint8Array(65_536));
  const other = crypto.getRandomValues(new Uint8Array(100));
  const views = [
    [buffer.subarray(0, 9000), buffer.subarray(9000, 20_000)],
    [buffer.subarray(9000, 20_000), buffer.subarray(0, 9000)],
    [buffer.subarray(0, 9000), other, buffer.subarray(9000, 9001)],
    [other, buffer.subarray(100, 200), buffer.subarray(200, 60_000)],
    [buffer.subarray(0, 0), other.subarray(0, 1), buffer.subarray(7, 7)],
    [buffer.subarray(0, 4096), buffer.subarray(4096, 8192), other],
    [],
  ];
  for (const [n, parts] of views.entries()) {
    const byteLength = parts.reduce((sum, part) => sum + part.byteLength, 0);
    const object = { key: testKey(n), parts, byteLength };
    assertEquals(String((await pool.adapter.store([object], call)).stored), "1", `case ${n}`);
    const whole = new Uint8Array(byteLength);
    const bounds = [0, 0, 1, 500, 501, 4096].filter((end) => end <= byteLength);
    const rooms = [...bounds, byteLength].map((end, i) => whole.subarray(bounds[i - 1] ?? 0, end));
    const room = { key: testKey(n), parts: rooms, byteLength };
    assertEquals(String(await pool.adapter.load([room], call)), "1", `case ${n}`);
    assertEquals(whole, new Uint8Array(parts.flatMap((part) => [...part])), `case ${n}`);
  }
  assertEquals(pool.errors, []);
});

Deno.test("file_pool: parts that fail half-way fail their key, and free the slot", async () => {
  await using pool = await tempPool({ slots: 2, params: { "slot_bytes": 2 ** 16 } });
  const text = "text" as unknown as Uint8Array<ArrayBuffer>;
  const parts = [new Uint8Array(10_000), Object.assign(Object(text), { byteLength: 5000 })];
  const object = { key: testKey(1), parts, byteLength: 15_000 };
  const { stored } = await pool.adapter.store([object], call);
  assertEquals([String(stored), pool.errors.length], ["0", 1]);
  assertEquals(pool.errors[0]?.key?.id, testKey(1).id);
  assertEquals(statusOf(pool.adapter).freeSlots, 2);
  assertEquals(await store(pool.adapter, testKeys(2)), "11");
});

Deno.test("file_pool: operations end when its file cannot be opened, and it can be closed", async () => {
  await using pool = await tempPool({ slots: 16, params: { "slot_bytes": 4096, files: 1 } });
  const { path } = pool;
  const keys = testKeys(12);
  await Deno.rename(join(path, "slots-0.pool"), join(path, "moved"));
  assertEquals(await deadline(store(pool.adapter, keys), 5_000), "0".repeat(12));
  await Deno.rename(join(path, "moved"), join(path, "slots-0.pool"));
  assertGreaterOrEqual(pool.errors.splice(0).length, 12);
  assertEquals(await store(pool.adapter, keys), "1".repeat(12));
  await pool.restart();
  assertEquals(await load(pool.adapter, keys), "1".repeat(12));
});

Deno.test("file_pool: files of a pool that was never finished are removed when another is", async () => {
  await using directory = await tempDirectory();
  for (const n of [0, 1, 2, 7]) {
    await Deno.writeFile(join(directory.path, `slots-${n}.pool`), new Uint8Array(10));
  }
  await Deno.writeFile(join(directory.path, "slots-x.pool"), new Uint8Array(10));
  const params = { "slot_bytes": 4096, files: 2 };
  await using _adapter = await openPool(directory.path, { slots: 4, params });
  const names = (await filesIn(directory.path)).filter((name) => name.startsWith("slots"));
  assertEquals(names, ["slots-0.pool", "slots-1.pool", "slots-x.pool"]);
});
