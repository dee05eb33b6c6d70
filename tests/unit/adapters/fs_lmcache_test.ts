import { assert, assertEquals, assertRejects } from "@std/assert";
import { dirname, join } from "@std/path";
import { ObjectKey } from "../../../src/keys/object_key.ts";
import {
  type AdapterError,
  type AdapterObject,
  concatParts,
  ConfigError,
  type L2Adapter,
} from "../../../src/adapter/contract.ts";
import { objectFilesIn, openFs, temporaryFilesIn } from "../../support/fs_adapter.ts";
import { testBytes, testKeys } from "../../support/objects.ts";
import { runChild } from "../../support/child.ts";
import { waitUntil } from "../../support/wait_until.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

const call = { signal: new AbortController().signal };
const HASH = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
const PAYLOAD = Uint8Array.from({ length: 1000 }, (_, i) => i * 7);
/** `LMC1`, and the CRC-32 of the payload as zlib computes it, little-endian. */
const CHECKSUM = Uint8Array.fromHex("4c4d4331" + "ffd54a11");

/** Keys, and the paths of their objects in LMCache. */
const FILES: readonly (readonly [string, ObjectKey])[] = [
  [`llama@0x0000002a@0@${HASH}.data`, keyOf({ model: "llama", kvRank: 42 })],
  [
    `meta-llama-SEP-Llama-3.1@0x02010100@a@${HASH}.data`,
    keyOf({ model: "meta-llama/Llama-3.1", kvRank: 0x02010100, objectGroup: 10 }),
  ],
  [`m@0x00000000@0@${HASH}@tenant.data`, keyOf({ model: "m", cacheSalt: "tenant" })],
];

function keyOf(fields: Partial<ObjectKey> & { model: string }): ObjectKey {
  return new ObjectKey({ chunkHash: Uint8Array.fromHex(HASH), ...fields });
}

interface Opened extends AsyncDisposable {
  readonly adapter: L2Adapter;
  readonly path: string;
  readonly errors: AdapterError[];
}

async function open(config: Record<string, unknown> = {}): Promise<Opened> {
  const { path, [Symbol.asyncDispose]: remove } = await tempDirectory();
  const errors: AdapterError[] = [];
  const common = { "base_path": path, "file_layout": "lmcache", "accept_unsealed": true };
  const onError = (error: AdapterError) => void errors.push(error);
  const adapter = await openFs({ ...common, ...config }, { onError });
  const dispose = async (): Promise<void> => {
    await adapter[Symbol.asyncDispose]();
    await remove();
  };
  return { adapter, path, errors, [Symbol.asyncDispose]: dispose };
}

/** Loads objects and returns the outcome as bits; checks the payload. */
async function load(adapter: L2Adapter, keys: readonly ObjectKey[]): Promise<string> {
  const rooms: AdapterObject[] = keys.map((key) => {
    const parts = [new Uint8Array(300), new Uint8Array(700)];
    return { key, parts, byteLength: 1000 };
  });
  const loaded = await adapter.load(rooms, call);
  for (const { parts } of loaded.gather(rooms)) assertEquals(concatParts(parts), PAYLOAD);
  return String(loaded);
}

async function store(adapter: L2Adapter, keys: readonly ObjectKey[]): Promise<string> {
  const parts = [PAYLOAD.slice(0, 10), PAYLOAD.slice(10)];
  const objects = keys.map((key) => ({ key, parts, byteLength: 1000 }));
  const { stored, bytes } = await adapter.store(objects, call);
  assertEquals(bytes, 1000 * stored.popcount());
  return String(stored);
}

function unsealedOf(adapter: L2Adapter): unknown {
  return adapter.reportStatus?.()["unsealed"];
}

/** Status counters before anything is loaded. */
const NOTHING = {
  loadedUnchecked: 0,
  loadedWithChecksum: 0,
  damaged: 0,
  withoutChecksum: 0,
  ofOtherLength: 0,
};

function bytesOf(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  return concatParts(parts.map((part) => Uint8Array.from(part)));
}

const withChecksum = bytesOf(PAYLOAD, CHECKSUM);
/** // With direct I/O of LMCache, the checksum has a block of its own. */
const inBlocks = bytesOf(withChecksum, new Uint8Array(4088));

for (
  const [what, bytes, checksum, status] of [
    ["raw", PAYLOAD, "none", [1, 0]],
    ["with a checksum", withChecksum, "none", [0, 1]],
    ["with a checksum", withChecksum, "crc32", [0, 1]],
    ["with a checksum in a block", inBlocks, "none", [0, 1]],
    ["with a checksum in a block", inBlocks, "crc32", [0, 1]],
  ] as const
) {
  for (const isDirect of [false, true]) {
    const how = isDirect ? ", past the page cache" : "";
    Deno.test(`a file of LMCache ${what} is read with checksum ${checksum}${how}`, async () => {
      await using opened = await open({ checksum, use_odirect: isDirect });
      const { adapter, path, errors } = opened;
      for (const [name, key] of FILES) {
        await Deno.writeFile(join(path, name), bytes);
        const found = await adapter.lookupAndLock([key], { ...call, prefix: true });
        assertEquals(String(found), "1");
        adapter.unlock?.([key]);
        assertEquals(await load(adapter, [key]), "1", name);
      }
      const [loadedUnchecked, loadedWithChecksum] = status.map((n) => 3 * n);
      assertEquals(unsealedOf(adapter), { ...NOTHING, loadedUnchecked, loadedWithChecksum });
      assertEquals(errors.filter(({ operation }) => operation !== "open"), []);
    });
  }
}

for (const [checksum, bytes] of [["none", PAYLOAD], ["crc32", withChecksum]] as const) {
  Deno.test(`with checksum ${checksum}, written files equal LMCache's byte by byte`, async () => {
    await using opened = await open({ checksum });
    const { adapter, path } = opened;
    assertEquals(await store(adapter, FILES.map(([, key]) => key)), "111");
    assertEquals(await objectFilesIn(path), FILES.map(([name]) => name).sort());
    for (const [name] of FILES) assertEquals(await Deno.readFile(join(path, name)), bytes);
    assertEquals(await load(adapter, FILES.map(([, key]) => key)), "111");
    const listed = await Array.fromAsync(adapter.list?.(call) ?? []);
    assertEquals(listed.map(({ key }) => key.id).sort(), FILES.map(([, key]) => key.id).sort());
    assertEquals(new Set(listed.map(({ byteLength }) => byteLength)), new Set([1000]));
    const usage = await adapter.usage?.(call);
    assertEquals([usage?.objectCount, usage?.usedBytes], [3, 3000]);
    const removed = await adapter.delete?.(FILES.map(([, key]) => key), call);
    assertEquals([String(removed?.deleted), removed?.bytes], ["111", 3000]);
    assertEquals([await objectFilesIn(path), await temporaryFilesIn(path)], [[], []]);
  });
}

Deno.test("with shard_dirs, objects lie two levels deep, as in LMCache's nixl_native", async () => {
  await using opened = await open({ shard_dirs: true });
  const [[name, key]] = FILES as [readonly [string, ObjectKey]];
  assertEquals(await store(opened.adapter, [key]), "1");
  assertEquals(await objectFilesIn(opened.path), [`0f/1e/${name}`]);
  assertEquals(await load(opened.adapter, [key]), "1");
  assertEquals((await Array.fromAsync(opened.adapter.list?.(call) ?? [])).length, 1);
});

for (
  const [what, damage] of [
    ["a byte of the payload", (bytes: Uint8Array) => bytes.with(500, 1)],
    ["a byte of the checksum", (bytes: Uint8Array) => bytes.with(1004, ~(bytes[1004] ?? 0))],
  ] as const
) {
  for (const checksum of ["none", "crc32"]) {
    for (const whole of [withChecksum, inBlocks]) {
      const name = `${whole.length} bytes, checksum ${checksum}`;
      Deno.test(`${what} is damaged: a reported miss, and the file is removed (${name})`, async () => {
        await using opened = await open({ checksum });
        const { adapter, path, errors } = opened;
        const [[name, key], [other, good]] = FILES as [(typeof FILES)[0], (typeof FILES)[0]];
        await Deno.writeFile(join(path, name), Uint8Array.from(damage(whole)));
        await Deno.writeFile(join(path, other), whole);
        // As before every load, the objects are locked.
        await adapter.lookupAndLock([key, good], { ...call, prefix: false });
        assertEquals(await load(adapter, [key, good]), "01");
        adapter.unlock?.([key, good]);
        assertEquals(await objectFilesIn(path), [other]);
        assertEquals([errors.length, errors[0]?.operation], [1, "load"]);
        const counted = { ...NOTHING, loadedWithChecksum: 1, damaged: 1 };
        assertEquals(unsealedOf(adapter), counted);
        assertEquals(await store(adapter, [key]), "1");
        assertEquals(await load(adapter, [key]), "1");
      });
    }
  }
}

Deno.test("a file without the required checksum is a miss, and stays", async () => {
  await using opened = await open({ checksum: "crc32" });
  const { adapter, path, errors } = opened;
  const [[name, key]] = FILES as [(typeof FILES)[0]];
  const foreign = bytesOf(PAYLOAD, new TextEncoder().encode("LMC2"), CHECKSUM.slice(4));
  const padded = bytesOf(PAYLOAD, new Uint8Array(3096));
  const others = [foreign, bytesOf(foreign, new Uint8Array(4088))];
  for (const bytes of [PAYLOAD, padded, ...others]) {
    await Deno.writeFile(join(path, name), bytes);
    assertEquals(await load(adapter, [key]), "0");
    assertEquals(await objectFilesIn(path), [name]);
  }
  assertEquals(unsealedOf(adapter), { ...NOTHING, withoutChecksum: 2, ofOtherLength: 2 });
  assertEquals(errors, []);
});

Deno.test("a file of another length is a counted miss, and stays", async () => {
  for (const checksum of ["none", "crc32"]) {
    await using opened = await open({ checksum });
    const { adapter, path, errors } = opened;
    const [[name, key]] = FILES as [(typeof FILES)[0]];
    const lengths = [0, 1, 999, 1001, 1004, 1007, 1009, 4095, 4097, 5095, 5097, 8192];
    for (const length of lengths) {
      const bytes = new Uint8Array(length);
      bytes.set(inBlocks.slice(0, length));
      await Deno.writeFile(join(path, name), bytes);
      assertEquals(await load(adapter, [key]), "0", `${length} bytes`);
      assertEquals(await objectFilesIn(path), [name]);
    }
    assertEquals(unsealedOf(adapter), { ...NOTHING, ofOtherLength: lengths.length });
    assertEquals(errors, []);
  }
});

/** Object sizes, and the sizes of LMCache's padded files. */
const PADDED = [[1, 4096], [1000, 4096], [4096, 4096], [4097, 8192], [12_287, 12_288]] as const;

for (const isDirect of [false, true]) {
  const how = isDirect ? ", past the page cache" : "";
  Deno.test(`a file padded by LMCache can be read${how}`, async () => {
    await using opened = await open({ use_odirect: isDirect });
    const { adapter, path } = opened;
    for (const [size, fileSize] of PADDED) {
      const [[name, key]] = FILES as [(typeof FILES)[0]];
      const bytes = testBytes(key, size);
      const garbage = new Uint8Array(fileSize).fill(0xee);
      garbage.set(bytes);
      await Deno.writeFile(join(path, name), garbage);
      const found = await adapter.lookupAndLock([key], { ...call, prefix: true });
      assertEquals(String(found), "1");
      const parts = [new Uint8Array(size)];
      assertEquals(String(await adapter.load([{ key, parts, byteLength: size }], call)), "1");
      assertEquals(parts[0], bytes, `${size} bytes`);
    }
    assertEquals(unsealedOf(adapter), { ...NOTHING, loadedUnchecked: PADDED.length });
  });

  for (const checksum of ["none", "crc32"]) {
    Deno.test(`pad_files writes whole blocks, with checksum ${checksum}${how}`, async () => {
      await using opened = await open({ use_odirect: isDirect, checksum, pad_files: true });
      const { adapter, path } = opened;
      const [[name, key]] = FILES as [(typeof FILES)[0]];
      for (const [size, fileSize] of PADDED) {
        const bytes = testBytes(key, size);
        const { stored, bytes: written } = await adapter.store([
          { key, parts: [bytes], byteLength: size },
        ], call);
        assertEquals([String(stored), written], ["1", size]);
        const file = await Deno.readFile(join(path, name));
        const isLonger = checksum === "crc32" && fileSize < size + 8;
        assertEquals(file.length, fileSize + (isLonger ? 4096 : 0), `${size} bytes`);
        assertEquals(file.slice(0, size), bytes);
        const parts = [new Uint8Array(size)];
        assertEquals(String(await adapter.load([{ key, parts, byteLength: size }], call)), "1");
        assertEquals(parts[0], bytes);
      }
    });
  }
}

Deno.test("an object with a name that LMCache cannot spell is stored under a digest", async () => {
  await using opened = await open();
  const { adapter, path } = opened;
  const keys = [
    keyOf({ model: "a-SEP-b" }),
    keyOf({ model: "a/b" }),
    keyOf({ model: "é".repeat(120) }),
  ];
  assertEquals(await store(adapter, keys), "111");
  const names = await objectFilesIn(path);
  assertEquals(names.filter((name) => name.startsWith("h-")).length, 2);
  assertEquals(await load(adapter, keys), "111");
});

Deno.test("a load reports no object that it has not loaded", async () => {
  await using opened = await open();
  const { adapter } = opened;
  const [missing, stored] = [keyOf({ model: "a/b" }), keyOf({ model: "a-SEP-b" })];
  assertEquals(await store(adapter, [stored]), "1");
  const told: number[] = [];
  const onLoaded = (index: number): void => void told.push(index);
  const rooms = [missing, stored].map((key) => ({
    key,
    parts: [new Uint8Array(1000)],
    byteLength: 1000,
  }));
  assertEquals(String(await adapter.load(rooms, { ...call, onLoaded })), "01");
  assertEquals(told.filter((index) => index !== 1), []);
});

for (const checksum of ["none", "crc32"]) {
  Deno.test(`an object under a digest is listed, forgotten and verified, with checksum ${checksum}`, async () => {
    await using opened = await open({ checksum });
    const { adapter, path, errors } = opened;
    const keys = [
      keyOf({ model: "m", cacheSalt: "語".repeat(100) }),
      keyOf({ model: "a-SEP-b", cacheSalt: "alice@example.com" }),
      keyOf({ model: "a/b" }),
    ];
    assertEquals(await store(adapter, keys), "111");
    const listed = await Array.fromAsync(adapter.list?.(call) ?? []);
    assertEquals(listed.map(({ key }) => key.id).sort(), keys.map(({ id }) => id).sort());
    assertEquals(listed.map(({ byteLength }) => byteLength), keys.map(() => PAYLOAD.byteLength));
    // Flips a bit of the first object.
    const [name = ""] = (await objectFilesIn(path)).filter((name) => name.startsWith("h-"));
    const bytes = await Deno.readFile(join(path, name));
    await Deno.writeFile(join(path, name), bytes.with(7, (bytes[7] as number) ^ 1));
    const loaded = await load(adapter, keys);
    assertEquals([...loaded].filter((bit) => bit === "1").length, 2);
    assertEquals(errors.length, 1);
    assertEquals((await objectFilesIn(path)).includes(name), false);
    const { deleted, bytes: freed } = await adapter.delete?.(keys, call) ?? {};
    assertEquals([deleted?.popcount(), freed], [2, 2 * PAYLOAD.byteLength]);
  });
}

Deno.test("an object of an earlier version under its digest is still found", async () => {
  await using opened = await open();
  const { adapter, path } = opened;
  const key = keyOf({ model: "a-SEP-b" });
  assertEquals(await store(adapter, [key]), "1");
  const [name = ""] = await objectFilesIn(path);
  await Deno.writeFile(join(path, name), PAYLOAD);
  assertEquals(await load(adapter, [key]), "1");
  let keyless = 0;
  const onKeyless = (): void => void keyless++;
  assertEquals(await Array.fromAsync(adapter.list?.({ ...call, onKeyless }) ?? []), []);
  assertEquals(keyless, 1, "a listing says that there is one more");
});

Deno.test("LMCache files with keys that cannot be represented are counted and evicted", async () => {
  await using opened = await open({ max_capacity_gb: 12 * 4096 / 2 ** 30 });
  const { adapter, path } = opened;
  const names = [
    "m@0x01000100@0@a72045a8639abe8f.data",
    `m@0x01000100@0@${HASH.slice(32)}.data`,
    `m@0x100000100@0@${HASH}.data`,
    `m\n@0x00000000@0@${HASH}.data`,
  ];
  for (const name of names) {
    await Deno.writeFile(join(path, name), PAYLOAD);
    await Deno.utime(join(path, name), 1, 1);
  }
  assertEquals((await adapter.usage?.(call))?.objectCount, names.length);
  assertEquals(await Array.fromAsync(adapter.list?.(call) ?? []), []);
  for (const key of testKeys(30)) assertEquals(await store(adapter, [key]), "1");
  // Files of other programs are known after a count, which runs in parallel to the stores.
  await waitUntil(async () => (await objectFilesIn(path)).length <= 12);
  const left = await objectFilesIn(path);
  assertEquals(left.filter((name) => names.includes(name)), []);
  assert(left.length > 0);
});

Deno.test("only old temporary files of LMCache are counted and removed", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const [[name]] = FILES as [(typeof FILES)[0]];
  const temporary = name.replace(".data", ".tmp");
  const abandoned = [temporary, `${name}.tmp`, `tmp/${temporary}`, `tmp/${name}`];
  const others = ["x.tmp", "tmp/x.tmp", "notes.data.tmp"];
  const young = `young-${temporary}`;
  for (const file of [...abandoned, ...others, young]) {
    await Deno.mkdir(dirname(join(path, file)), { recursive: true });
    await Deno.writeFile(join(path, file), PAYLOAD);
    if (file !== young) await Deno.utime(join(path, file), 1, 1);
  }
  await using adapter = await openFs({
    base_path: path,
    file_layout: "lmcache",
    accept_unsealed: true,
    relative_tmp_dir: "tmp",
  });
  const status = () => adapter.reportStatus?.() as { space: { usedBytes?: number } };
  await waitUntil(() => status().space.usedBytes !== undefined);
  // Temporary files take space too.
  assertEquals(status().space.usedBytes, 4096);
  const left = await temporaryFilesIn(path);
  assertEquals(left, [...others, young].sort());
  assertEquals(await objectFilesIn(path), []);
});

for (
  const [mode, umask, object, shard] of [
    ["755", "022", "644", "755"],
    ["750", "022", "640", "750"],
    ["750", "077", "600", "700"],
    ["700", "000", "600", "700"],
  ] as const
) {
  const title = `what is stored in a directory of mode ${mode} can be read as that says`;
  Deno.test(`${title}, umask ${umask}`, async () => {
    await using directory = await tempDirectory();
    const base = join(directory.path, "base");
    await Deno.mkdir(base);
    await Deno.chmod(base, parseInt(mode, 8));
    const config = { "file_layout": "lmcache", "accept_unsealed": true, "shard_dirs": true };
    const modes = await runChild(new URL("./store_and_stat.ts", import.meta.url), {
      args: [base, JSON.stringify(config)],
      shell: ["sh", "-c", `umask ${umask} && exec "$@"`, "sh"],
    }) as Record<string, string>;
    const { object: file, prefix, tmp, ledger } = modes;
    assertEquals([file, prefix, tmp, ledger], [object, shard, "700", "600"]);
  });
}

Deno.test("a directory created for LMCache's files is private", async () => {
  await using directory = await tempDirectory();
  const base = join(directory.path, "base");
  const config = { "file_layout": "lmcache", "accept_unsealed": true };
  const modes = await runChild(new URL("./store_and_stat.ts", import.meta.url), {
    args: [base, JSON.stringify(config)],
    shell: ["sh", "-c", 'umask 022 && exec "$@"', "sh"],
  }) as Record<string, string>;
  assertEquals([modes[""], modes.object], ["700", "600"]);
});

Deno.test("other files of LMCache are neither counted nor removed", async () => {
  await using opened = await open();
  const { adapter, path } = opened;
  const [[name, key]] = FILES as [(typeof FILES)[0]];
  await store(adapter, [key]);
  const foreign = [`${name}.tmp`, `${name}~`, "tmp/x.tmp", "m@0x00000000@short.data"];
  for (const file of foreign) {
    await Deno.mkdir(dirname(join(path, file)), { recursive: true });
    await Deno.writeFile(join(path, file), PAYLOAD);
  }
  assertEquals((await adapter.usage?.(call))?.objectCount, 1);
  await adapter.delete?.([key], call);
  for (const file of foreign) assert((await Deno.stat(join(path, file))).isFile);
});

Deno.test("files without a trailer need accept_unsealed, files with one must not have it", async () => {
  await using directory = await tempDirectory();
  const base = { "base_path": directory.path };
  for (
    const config of [
      { ...base, file_layout: "lmcache" },
      { ...base, file_layout: "lmcache", accept_unsealed: false },
      { ...base, accept_unsealed: true },
      { ...base, file_layout: "kvtier", accept_unsealed: true },
    ]
  ) {
    const error = await assertRejects(() => openFs(config), ConfigError);
    assertEquals(error.key, "accept_unsealed");
  }
  await using opened = await open();
  assertEquals(opened.adapter.capabilities.unsealed, true);
  await using sealed = await openFs(base);
  assertEquals(sealed.capabilities.unsealed, undefined);
});

Deno.test("LMCache's layout has a capacity, too", async () => {
  const capacity = 20 * 4096 / 2 ** 30;
  await using opened = await open({ checksum: "crc32", max_capacity_gb: capacity });
  const { adapter, path } = opened;
  for (const key of testKeys(60)) assertEquals(await store(adapter, [key]), "1");
  assert((await objectFilesIn(path)).length <= 20);
});
