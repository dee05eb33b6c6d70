import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { DirectSwitch } from "../../../adapters/_shared/direct_switch.ts";
import { DirectIo } from "../../../adapters/_file_pool/direct_io.ts";
import { poolFileSystem } from "../../../adapters/_file_pool/pool_file.ts";
import { PoolGeometry } from "../../../adapters/_file_pool/pool_geometry.ts";
import { layOutFiles, SlotFiles } from "../../../adapters/_file_pool/slot_files.ts";
import { inNewNamespace } from "../../fault/namespace.ts";
import { runChild } from "../../support/child.ts";
import { testObject } from "../../support/fs_adapter.ts";
import { testBytes, testKey, testKeys } from "../../support/objects.ts";
import { tempDirectory } from "../../support/temp_directory.ts";
import { call, load, remove, statusOf, store, tempPool } from "./file_pool_tools.ts";

const program = new URL("./file_pool_try.ts", import.meta.url);

Deno.test("file_pool: objects of any size are read and written with direct I/O", async () => {
  const largest = 9 * 2 ** 20 + 17;
  const params = { "use_direct_io": true, "slot_bytes": largest, files: 1 };
  await using pool = await tempPool({ slots: 2, params });
  const { directIo } = statusOf(pool.adapter) as { directIo: Record<string, unknown> };
  if (directIo.path !== "O_DIRECT") {
    assertEquals(pool.errors.length, 1);
    assertMatch(String(directIo.reason), /EINVAL|EOPNOTSUPP|no O_DIRECT/);
    return;
  }
  const keys = testKeys(1);
  for (const bytes of [1, 4095, 4096, 4097, 2 ** 22 - 1, 2 ** 22, 2 ** 22 + 1, largest]) {
    assertEquals(await store(pool.adapter, keys, bytes), "1");
    assertEquals(await load(pool.adapter, keys, bytes), "1", `${bytes} bytes`);
  }
  await remove(pool.adapter, keys);
  assertEquals(await store(pool.adapter, testKeys(2), largest), "11");
  assertEquals(await load(pool.adapter, testKeys(2), largest), "11");
  assertEquals(pool.errors, []);
});

Deno.test("file_pool: objects written with direct I/O survive a crash, and are cleared", async () => {
  const params = { "use_direct_io": true, "slot_bytes": 2 ** 16, files: 1 };
  await using pool = await tempPool({ slots: 3, params });
  const keys = testKeys(4);
  await store(pool.adapter, keys.slice(0, 3), 40_000);
  await store(pool.adapter, keys.slice(3), 40_000);
  await pool.crash();
  assertEquals(statusOf(pool.adapter).recoveredFrom, "slots");
  assertEquals(await load(pool.adapter, keys, 40_000), "1101");
  await remove(pool.adapter, keys.slice(0, 1));
  await store(pool.adapter, keys.slice(1, 2), 50_000);
  await pool.crash();
  assertEquals(await load(pool.adapter, keys.slice(0, 1), 40_000), "0");
  assertEquals(await load(pool.adapter, keys.slice(1, 2), 50_000), "1");
  await pool.restart();
  assertEquals(await load(pool.adapter, keys.slice(1, 2), 50_000), "1");
});

/** Direct I/O that fails at the first use. */
class FailingIo extends DirectIo {
  readonly #code: string;

  constructor(code: string) {
    super();
    this.#code = code;
  }

  override write(): Promise<void> {
    return Promise.reject(Object.assign(new Error("failed"), { code: this.#code }));
  }

  override read(): Promise<boolean> {
    return Promise.reject(Object.assign(new Error("failed"), { code: this.#code }));
  }
}

for (const code of ["EINVAL", "EOPNOTSUPP", "EIO"]) {
  Deno.test(`file_pool: ${code} with direct I/O ${code === "EIO" ? "is a failure" : "switches to the page cache"}`, async () => {
    await using directory = await tempDirectory();
    const { path } = directory;
    const geometry = new PoolGeometry({ slots: 4, slotBytes: 5000, files: 2 });
    await using fileSystem = await poolFileSystem(path);
    await layOutFiles(fileSystem, path, geometry, call.signal);
    const refusals: unknown[] = [];
    const direct = new DirectSwitch<DirectIo>((error) => refusals.push(error));
    await direct.start(new FailingIo(code), () => Promise.resolve(undefined));
    using files = new SlotFiles({ files: fileSystem, directory: path, geometry, direct });
    const write = (slot: number): Promise<void> => {
      const key = testKey(slot);
      const header = { slot, slotBytes: 5000, sequence: 1, run: new Uint8Array(8), key };
      return files.write({ ...header, byteLength: 5000 }, testObject(key, 5000));
    };
    if (code === "EIO") {
      await assertRejects(() => write(0), Error, "failed");
      await assertRejects(() => files.read(0, [new Uint8Array(1)]), Error, "failed");
      assertEquals(refusals, []);
      return;
    }
    await Promise.all([0, 1, 2, 3].map(write));
    assertEquals(refusals.length, 1);
    for (const slot of [0, 1, 2, 3]) {
      const into = new Uint8Array(5000);
      assert(await files.read(slot, [into]));
      assertEquals(into, testBytes(testKey(slot), 5000));
      assertEquals((await files.inspect(slot))?.key.id, testKey(slot).id);
    }
  });
}

Deno.test("file_pool: the page cache is used if O_DIRECT is refused, and that is reported once", async (t) => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const shell = await inNewNamespace(`mount -t ramfs ramfs "${path}" && exec "$@"`);
  if (shell === undefined) {
    await t.step("no file systems can be mounted here: not run", () => {});
    return;
  }
  const params = JSON.stringify({ "use_direct_io": true, "slot_bytes": 4096 });
  const said = await runChild(program, { args: [path, "4", params], shell }) as {
    stored: string;
    loaded: string;
    errors: { operation: string; message: string }[];
    status: { directIo: { isRequested: boolean; path: string; reason: string } };
  };
  assertEquals([said.stored, said.loaded], ["111", "111"]);
  assertEquals(said.errors.map(({ operation }) => operation), ["open"]);
  assert(said.errors[0]?.message.includes("EINVAL"), said.errors[0]?.message);
  const { isRequested, path: way, reason } = said.status.directIo;
  assertEquals([isRequested, way], [true, "page cache"]);
  assert(reason.includes("EINVAL"), reason);
});
