import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { join } from "@std/path";
import {
  decodeHeader,
  encodeFooter,
  encodeHeader,
  FOOTER_BYTES,
  isFooterOf,
  RUN_BYTES,
} from "../../../adapters/_file_pool/slot_format.ts";
import {
  decodeIndex,
  encodeIndex,
  maxIndexBytes,
} from "../../../adapters/_file_pool/index_file.ts";
import { PoolGeometry } from "../../../adapters/_file_pool/pool_geometry.ts";
import { MAX_MODEL_BYTES, MAX_SALT_BYTES } from "../../../src/keys/object_key.ts";
import type { AdapterError } from "../../../src/adapter/contract.ts";
import { crc32 } from "../../../src/base/checksum.ts";
import { testObject } from "../../support/fs_adapter.ts";
import { testKey, testKeys } from "../../support/objects.ts";
import { tempDirectory } from "../../support/temp_directory.ts";
import {
  call,
  held,
  load,
  openPool,
  remove,
  statusOf,
  store,
  tempPool,
} from "./file_pool_tools.ts";

/** Bytes in front of an object in its slot, and between two slots. */
const PAGE = 4096;
const STRIDE = 3 * PAGE;
const oneFile = { "slot_bytes": 4096, files: 1 };
const keys = testKeys(6);

async function exists(path: string): Promise<boolean> {
  return await Deno.lstat(path).then(() => true, () => false);
}

/** Overwrites bytes of a file in place. */
async function patch(path: string, offset: number, bytes: Uint8Array): Promise<void> {
  using file = await Deno.open(path, { write: true });
  await file.seek(offset, Deno.SeekMode.Start);
  await file.write(bytes);
}

async function flipByte(path: string, offset: number): Promise<void> {
  const bytes = await Deno.readFile(path);
  await patch(path, offset, Uint8Array.of((bytes[offset] ?? 0) ^ 0x40));
}

/** The directory of a pool with one file after a clean stop. */
async function leftBehind(count: number): ReturnType<typeof tempDirectory> {
  const directory = await tempDirectory();
  await using adapter = await openPool(directory.path, { params: oneFile });
  for (const key of keys.slice(0, count)) await store(adapter, [key]);
  return directory;
}

Deno.test("file_pool: a clean stop keeps objects and their order", async () => {
  await using pool = await tempPool({ slots: 4 });
  assertEquals(statusOf(pool.adapter).recoveredFrom, "new");
  for (const key of keys.slice(0, 4)) await store(pool.adapter, [key]);
  await load(pool.adapter, keys.slice(0, 1));
  await pool.restart();
  assertEquals(statusOf(pool.adapter).recoveredFrom, "index");
  assertEquals(statusOf(pool.adapter).usedSlots, 4);
  await store(pool.adapter, keys.slice(4, 5));
  assertEquals(await load(pool.adapter, keys), "101110");
});

Deno.test("file_pool: an index is used once, so that it cannot be outdated", async () => {
  await using pool = await tempPool();
  await store(pool.adapter, keys.slice(0, 2));
  await pool.restart();
  assert(!(await exists(join(pool.path, "pool.index"))));
  await remove(pool.adapter, keys.slice(0, 1));
  await store(pool.adapter, keys.slice(2, 3));
  await pool.crash();
  assertEquals(statusOf(pool.adapter).recoveredFrom, "slots");
  assertEquals(await held(pool.adapter, keys), "011000");
  assertEquals(await load(pool.adapter, keys), "011000");
});

Deno.test("file_pool: objects and the order of their stores survive a crash", async () => {
  await using pool = await tempPool({ slots: 4 });
  for (const key of [3, 1, 0, 2].map((n) => testKey(n))) await store(pool.adapter, [key]);
  await pool.crash();
  assertEquals(statusOf(pool.adapter).recoveredFrom, "slots");
  assertEquals(await held(pool.adapter, keys), "111100");
  await store(pool.adapter, keys.slice(4, 6));
  assertEquals(await load(pool.adapter, keys), "101011");
});

Deno.test("file_pool: after a crash the newest object of a key counts, and no older one reappears", async () => {
  await using pool = await tempPool();
  const [key] = [testKey(0)];
  await store(pool.adapter, [key], 500);
  await store(pool.adapter, [key], 700);
  await pool.crash();
  assertEquals(await load(pool.adapter, [key], 700), "1");
  assertEquals(await load(pool.adapter, [key], 500), "0");
  await store(pool.adapter, [key], 900);
  await remove(pool.adapter, [key]);
  await pool.crash();
  assertEquals(await held(pool.adapter, [key]), "0");
  assertEquals(pool.errors, []);
});

Deno.test("file_pool: of two complete slots with one key the newer counts, the older is cleared", async () => {
  await using directory = await leftBehind(1);
  const slots = join(directory.path, "slots-0.pool");
  const older = (await Deno.readFile(slots)).subarray(0, STRIDE);
  {
    await using adapter = await openPool(directory.path, { params: oneFile });
    await store(adapter, [testKey(0)], 700);
  }
  // The process was killed before it cleared the older object.
  await patch(slots, 0, older);
  await Deno.remove(join(directory.path, "pool.index"));
  await using adapter = await openPool(directory.path, { params: oneFile });
  assertEquals(statusOf(adapter).usedSlots, 1);
  assertEquals(await load(adapter, [testKey(0)], 700), "1");
  assertEquals((await Deno.readFile(slots)).subarray(0, PAGE), new Uint8Array(PAGE));
});

for (
  const [what, offsets] of [
    ["header", [0, 4, 6, 8, 16, 24, 32, 40, 48, 60, 100]],
    ["footer", [0, 4, 8, 16, 24, 28].map((at) => PAGE + 1000 + at)],
  ] satisfies [string, number[]][]
) {
  Deno.test(`file_pool: a slot whose ${what} is torn is free after a crash, whichever byte`, async () => {
    await using directory = await leftBehind(3);
    await Deno.remove(join(directory.path, "pool.index"));
    const slots = join(directory.path, "slots-0.pool");
    for (const offset of offsets) {
      await flipByte(slots, STRIDE + offset);
      {
        await using adapter = await openPool(directory.path, { params: oneFile });
        assertEquals(statusOf(adapter).recoveredFrom, "slots");
        assertEquals(await held(adapter, keys), "101000", `byte ${offset}`);
        assertEquals(await load(adapter, keys), "101000");
      }
      await Deno.remove(join(directory.path, "pool.index"));
      await flipByte(slots, STRIDE + offset);
    }
    await using adapter = await openPool(directory.path, { params: oneFile });
    assertEquals(await load(adapter, keys), "111000");
  });
}

Deno.test("file_pool: a store interrupted anywhere leaves a free slot", async () => {
  await using directory = await leftBehind(1);
  const slots = join(directory.path, "slots-0.pool");
  const before = (await Deno.readFile(slots)).slice(0, STRIDE);
  {
    await using adapter = await openPool(directory.path, { slots: 8, params: oneFile });
    await remove(adapter, [testKey(0)]);
    await store(adapter, [testKey(1)]);
  }
  const after = (await Deno.readFile(slots)).slice(0, STRIDE);
  const end = PAGE + 1000 + 32;
  for (
    const cut of [0, 1, 9, 60, 100, PAGE - 1, PAGE, PAGE + 1, PAGE + 999, end - 32, end - 1, end]
  ) {
    const torn = before.slice();
    torn.set(after.subarray(0, cut));
    await patch(slots, 0, torn);
    await Deno.remove(join(directory.path, "pool.index"));
    await using adapter = await openPool(directory.path, { params: oneFile });
    const bits = await load(adapter, keys.slice(0, 2));
    // Both headers begin with the same bytes.
    const isUnchanged = torn.every((byte, i) => byte === before[i]);
    assertEquals(bits, isUnchanged ? "10" : cut === end ? "01" : "00", `cut at ${cut}`);
  }
});

Deno.test("file_pool: a slot copied elsewhere is free", async () => {
  await using directory = await leftBehind(1);
  const slots = join(directory.path, "slots-0.pool");
  await patch(slots, 2 * STRIDE, (await Deno.readFile(slots)).subarray(0, STRIDE));
  await patch(slots, 0, new Uint8Array(STRIDE));
  await Deno.remove(join(directory.path, "pool.index"));
  await using adapter = await openPool(directory.path, { params: oneFile });
  assertEquals(statusOf(adapter).usedSlots, 0);
});

Deno.test("file_pool: a damaged, truncated or foreign index is not used", async () => {
  await using directory = await leftBehind(3);
  const index = join(directory.path, "pool.index");
  const good = await Deno.readFile(index);
  const bad = [
    new Uint8Array(),
    good.subarray(0, 30),
    good.subarray(0, -1),
    new Uint8Array([...good, 0]),
    ...Array.from({ length: 40 }, (_, i) => {
      const at = Math.floor(i * good.byteLength / 40);
      return good.with(at, (good[at] ?? 0) ^ 1);
    }),
  ];
  for (const bytes of bad) {
    await Deno.writeFile(index, bytes);
    await using adapter = await openPool(directory.path, { params: oneFile });
    assertEquals(statusOf(adapter).recoveredFrom, "slots");
    assertEquals(await load(adapter, keys), "111000");
  }
  await using other = await tempDirectory();
  {
    const params = { ...oneFile, "slot_bytes": 5000 };
    await using adapter = await openPool(other.path, { params });
    await store(adapter, [testKey(5)]);
  }
  await Deno.copyFile(join(other.path, "pool.index"), index);
  await using adapter = await openPool(directory.path, { params: oneFile });
  assertEquals(statusOf(adapter).recoveredFrom, "slots");
  assertEquals(await load(adapter, keys), "111000");
});

Deno.test("file_pool: a pool whose geometry was lost is recovered from its slots", async () => {
  await using directory = await leftBehind(3);
  await Deno.writeTextFile(join(directory.path, "pool.geometry"), "nonsense");
  await using adapter = await openPool(directory.path, { params: oneFile });
  assertEquals(statusOf(adapter).recoveredFrom, "slots");
  assertEquals(await load(adapter, keys), "111000");
});

Deno.test("file_pool: a truncated or removed file only loses its own objects", async () => {
  for (const cut of [true, false]) {
    await using directory = await leftBehind(3);
    const slots = join(directory.path, "slots-0.pool");
    if (cut) await Deno.truncate(slots, STRIDE + 100);
    else await Deno.remove(slots);
    await using adapter = await openPool(directory.path, { params: oneFile });
    assertEquals(statusOf(adapter).recoveredFrom, "slots");
    assertEquals(await load(adapter, keys), cut ? "100000" : "000000");
    assertEquals((await Deno.stat(slots)).size, 8 * STRIDE);
    assertEquals(await store(adapter, keys), "111111");
  }
});

Deno.test("file_pool: an object in a truncated file is a miss once, and not claimed again", async () => {
  await using pool = await tempPool({ params: oneFile });
  await store(pool.adapter, keys.slice(0, 2));
  await Deno.truncate(join(pool.path, "slots-0.pool"), PAGE + 500);
  assertEquals(await load(pool.adapter, keys.slice(0, 1)), "0");
  assertEquals(await held(pool.adapter, keys.slice(0, 2)), "01");
  assertEquals([pool.errors[0]?.operation, pool.errors[0]?.key?.id], ["load", testKey(0).id]);
  assertEquals(await store(pool.adapter, keys.slice(0, 1)), "1");
  assertEquals(await load(pool.adapter, keys.slice(0, 1)), "1");
});

Deno.test("file_pool: closing waits for running calls, and the index contains their objects", async () => {
  await using directory = await tempDirectory();
  const params = { "slot_bytes": 2 ** 20 };
  const adapter = await openPool(directory.path, { params });
  const started = Promise.withResolvers<void>();
  const objects = keys.map((key) => {
    const { parts, byteLength } = testObject(key, 2 ** 20);
    const begin = () => {
      started.resolve();
      return parts;
    };
    return {
      key,
      byteLength,
      get parts() {
        return begin();
      },
    };
  });
  const storing = adapter.store(objects, call);
  await started.promise;
  await Promise.all([adapter[Symbol.asyncDispose](), adapter[Symbol.asyncDispose]()]);
  const stored = String((await storing).stored);
  assertGreater(Number(stored), 0);
  await using next = await openPool(directory.path, { params });
  assertEquals(statusOf(next).recoveredFrom, "index");
  assertEquals(await load(next, keys, 2 ** 20), stored);
});

Deno.test("file_pool: a reused sequence number after a crash completes no other store", () => {
  const header = {
    slot: 1,
    slotBytes: 4096,
    sequence: 7,
    run: new Uint8Array(RUN_BYTES).fill(1),
    key: testKey(1),
    byteLength: 1000,
  };
  const page = new Uint8Array(PAGE);
  const headerBytes = 48 + testKey(1).toBytes().byteLength + 4;
  encodeHeader(page, header);
  for (let at = 0; at < headerBytes; at++) {
    assertEquals(decodeHeader(page.with(at, (page[at] ?? 0) ^ 1)), undefined, `byte ${at}`);
  }
  const footer = new Uint8Array(FOOTER_BYTES);
  encodeFooter(footer, header, encodeHeader(page, header));
  const read = decodeHeader(page);
  assert(read !== undefined && isFooterOf(footer, read));
  assertEquals([read.key.id, read.sequence, read.byteLength], [testKey(1).id, 7, 1000]);
  encodeHeader(page, { ...header, run: new Uint8Array(RUN_BYTES).fill(2) });
  const again = decodeHeader(page);
  assert(again !== undefined && !isFooterOf(footer, again));
});

/** Peak memory of this process in bytes, if known. */
async function mostMemory(): Promise<number> {
  const status = await Deno.readTextFile("/proc/self/status").catch(() => "");
  return 1024 * Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0);
}

for (const name of ["pool.geometry", "pool.index"]) {
  Deno.test(`file_pool: a ${name} of 600 MiB is not read, and the objects stay`, async () => {
    await using directory = await leftBehind(3);
    const path = join(directory.path, name);
    await Deno.truncate(path, 600 * 2 ** 20);
    const before = await mostMemory();
    {
      await using adapter = await openPool(directory.path, { params: oneFile });
      assertEquals(statusOf(adapter).recoveredFrom, "slots");
      assertEquals(await load(adapter, keys.slice(0, 3)), "111");
      assertLess(await mostMemory() - before, 300 * 2 ** 20);
    }
    assertLess((await Deno.lstat(path)).size, 4096);
  });
}

for (
  const [what, content] of [
    ["no slots", '{"version":1,"slots":0,"slotBytes":4096,"files":1}'],
    ["half a slot", '{"version":1,"slots":0.5,"slotBytes":4096,"files":1}'],
    ["slots that no number counts", '{"version":1,"slots":1e300,"slotBytes":4096,"files":1}'],
    ["more bytes than there are", '{"version":1,"slots":8,"slotBytes":9e15,"files":1}'],
    ["no files", '{"version":1,"slots":8,"slotBytes":4096,"files":0}'],
    ["a list", "[1,8,4096,1]"],
    ["null", "null"],
    ["nothing", ""],
  ] as const
) {
  Deno.test(`file_pool: a geometry with ${what} is replaced, and the objects stay`, async () => {
    await using directory = await leftBehind(3);
    const checksum = crc32(new TextEncoder().encode(content)).toString(16);
    await Deno.writeTextFile(join(directory.path, "pool.geometry"), `${content}\n${checksum}\n`);
    await using adapter = await openPool(directory.path, { params: oneFile });
    assertEquals(statusOf(adapter).recoveredFrom, "slots");
    assertEquals(await load(adapter, keys.slice(0, 3)), "111");
  });
}

Deno.test("file_pool: an implausible sequence number is rejected", () => {
  const page = new Uint8Array(PAGE);
  const key = testKey(1);
  const run = new Uint8Array(RUN_BYTES);
  const header = { slot: 0, slotBytes: 4096, run, key, byteLength: 1000 };
  for (const [sequence, isKnown] of [[2 ** 40, true], [2 ** 53 - 1, false], [2 ** 60, false]]) {
    encodeHeader(page, { ...header, sequence: Number(sequence) });
    assertEquals(decodeHeader(page)?.sequence, isKnown ? Number(sequence) : undefined);
  }
  const geometry = new PoolGeometry({ slots: 4, slotBytes: 4096, files: 1 });
  const objects = [{ key, slot: 0, byteLength: 1000, sequence: 7 }];
  for (const [nextSequence, isKnown] of [[8, true], [7, false], [0, false], [2 ** 60, false]]) {
    const bytes = encodeIndex({ objects, nextSequence: Number(nextSequence) }, geometry);
    assertEquals(decodeIndex(bytes, geometry) !== undefined, isKnown);
  }
});

Deno.test("file_pool: an index may have as many bytes as the longest keys need", () => {
  const geometry = new PoolGeometry({ slots: 4, slotBytes: 4096, files: 1 });
  const key = testKey(1, {
    model: "m".repeat(MAX_MODEL_BYTES),
    cacheSalt: "\u{1f600}".repeat(MAX_SALT_BYTES / 4),
  });
  const bytes = encodeIndex({
    objects: [{ key, slot: 0, byteLength: 1, sequence: 1 }],
    nextSequence: 2,
  }, geometry);
  assertEquals(decodeIndex(bytes, geometry)?.objects.length, 1);
  assertEquals(maxIndexBytes(bytes, geometry), bytes.byteLength);
  assertEquals(maxIndexBytes(bytes.slice(0, 40), geometry), 0);
});

Deno.test("file_pool: links created while a pool is open are not followed", async () => {
  await using directory = await leftBehind(3);
  await using other = await tempDirectory();
  const victim = join(other.path, "victim");
  await Deno.writeTextFile(victim, "precious");
  const errors: AdapterError[] = [];
  const onError = (error: AdapterError) => void errors.push(error);
  {
    await using adapter = await openPool(directory.path, { params: oneFile }, { onError });
    for (const name of ["slots-0.pool", "pool.tmp", "pool.index"]) {
      await Deno.rename(join(directory.path, name), join(other.path, name)).catch(() => {});
      await Deno.symlink(victim, join(directory.path, name));
    }
    assertEquals(await store(adapter, keys.slice(3, 4)), "0");
    assertEquals(await load(adapter, keys.slice(0, 1)), "0");
  }
  assert(errors.some(({ operation }) => operation === "store"));
  assertEquals(await Deno.readTextFile(victim), "precious");
});
