import { assert, assertEquals } from "@std/assert";
import { dirname, join } from "@std/path";
import type { ObjectLayout } from "../../src/keys/kv_layout.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import type { AdapterStatus } from "../../src/l2/adapter_status.ts";
import { TRAILER_BYTES } from "../../src/adapter/object_trailer.ts";
import { adapterStatus, countHits, openFsCache, putObjects } from "../support/fs_cache.ts";
import { fileOf } from "../support/fs_adapter.ts";
import { testKey, testKeys, testLayout } from "../support/objects.ts";
import { tempDirectory } from "../support/temp_directory.ts";

const PAYLOAD_BYTES = 4096;
const layout = testLayout(PAYLOAD_BYTES);
const FILE_BYTES = PAYLOAD_BYTES + TRAILER_BYTES;
const longKey = testKey(1, { model: "m".repeat(256), cacheSalt: "s".repeat(128) });

/** A directory with these objects. */
async function filled(keys: readonly ObjectKey[]): Promise<{ path: string } & AsyncDisposable> {
  const directory = await tempDirectory();
  await using cache = await openFsCache(directory.path);
  await putObjects(cache, keys, layout);
  return directory;
}

/** Hits of a new cache on a directory, as after a restart, and the status of its adapter. */
async function restart(
  path: string,
  keys: readonly ObjectKey[],
  wanted: ObjectLayout = layout,
): Promise<{ hits: number; status: AdapterStatus }> {
  await using cache = await openFsCache(path);
  return { hits: await countHits(cache, keys, wanted), status: adapterStatus(cache) };
}

async function flipBit(path: string, bit: number): Promise<void> {
  const bytes = await Deno.readFile(path);
  bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ 1 << (bit & 7);
  await Deno.writeFile(path, bytes);
}

/** Ways to damage the file of `testKey(1)`, and whether a load must count damage or a miss. */
const DAMAGES: readonly [string, "damaged" | "missed", (path: string) => Promise<void>][] = [
  ["the first bit of the payload flipped", "damaged", (path) => flipBit(path, 0)],
  [
    "the last bit of the payload flipped",
    "damaged",
    (path) => flipBit(path, PAYLOAD_BYTES * 8 - 1),
  ],
  ["the first bit of the trailer flipped", "damaged", (path) => flipBit(path, PAYLOAD_BYTES * 8)],
  ["the last bit of the file flipped", "damaged", (path) => flipBit(path, FILE_BYTES * 8 - 1)],
  ["a page of zeros", "damaged", async (path) => {
    await Deno.writeFile(path, (await Deno.readFile(path)).fill(0, 512, 1024));
  }],
  ["nothing but zeros, as after a power cut", "damaged", async (path) => {
    await Deno.writeFile(path, new Uint8Array(FILE_BYTES));
  }],
  ["its second half zeros", "damaged", async (path) => {
    await Deno.writeFile(path, (await Deno.readFile(path)).fill(0, FILE_BYTES / 2));
  }],
  ["other bytes of the right length", "damaged", async (path) => {
    await Deno.writeFile(path, crypto.getRandomValues(new Uint8Array(FILE_BYTES)));
  }],
  ["the last byte missing", "missed", (path) => Deno.truncate(path, FILE_BYTES - 1)],
  ["the trailer missing", "missed", (path) => Deno.truncate(path, PAYLOAD_BYTES)],
  ["one byte left", "missed", (path) => Deno.truncate(path, 1)],
  ["no bytes", "missed", (path) => Deno.truncate(path, 0)],
  ["a byte more", "missed", (path) => Deno.writeFile(path, new Uint8Array(1), { append: true })],
  ["the trailer twice", "missed", async (path) => {
    const trailer = (await Deno.readFile(path)).slice(PAYLOAD_BYTES);
    await Deno.writeFile(path, trailer, { append: true });
  }],
  ["another key's bytes", "damaged", async (path) => {
    await Deno.copyFile(join(path, "..", "..", OTHER_FILE), path);
  }],
];
const [firstKey, damagedKey, otherKey] = [testKey(0), testKey(1), testKey(2)];
const OTHER_FILE = fileOf("", otherKey);

for (const [what, outcome, damage] of DAMAGES) {
  Deno.test(`an object with ${what} is a counted miss until it is stored again`, async () => {
    const keys = [firstKey, damagedKey, otherKey];
    await using directory = await filled(keys);
    await damage(fileOf(directory.path, damagedKey));

    const { hits, status } = await restart(directory.path, keys);
    assertEquals(hits, 1);
    // An object of another length may belong to another reader and is not removed.
    const { layout: misfits = 0, ...faults } = status.damagedObjects;
    const damaged = Object.values(faults).reduce((sum, n) => sum + n, 0);
    assertEquals([damaged, misfits], outcome === "damaged" ? [1, 0] : [0, 1]);
    assertEquals(status.missedLoads, 1);
    assertEquals(status.isHealthy, true);

    await using cache = await openFsCache(directory.path);
    await putObjects(cache, [damagedKey], layout);
    assertEquals((await restart(directory.path, keys)).hits, 3);
  });
}

Deno.test("a damaged object is removed, so that lookups miss it", async () => {
  await using directory = await filled([damagedKey]);
  await flipBit(fileOf(directory.path, damagedKey), 100);
  assertEquals((await restart(directory.path, [damagedKey])).status.foundKeys, 1);
  assertEquals((await restart(directory.path, [damagedKey])).status.foundKeys, 0);
});

Deno.test("objects whose files are swapped are misses", async () => {
  const keys = testKeys(2);
  await using directory = await filled(keys);
  const [a = "", b = ""] = keys.map((key) => fileOf(directory.path, key));
  const bytes = await Deno.readFile(a);
  await Deno.rename(b, a);
  await Deno.writeFile(b, bytes);
  for (const key of keys) {
    const { hits, status } = await restart(directory.path, [key]);
    assertEquals([hits, status.damagedObjects], [0, { key: 1 }]);
  }
});

Deno.test("an object with a hashed name contains its key, and is verified like any other", async () => {
  const twin = testKey(2, { model: "m".repeat(256), cacheSalt: "s".repeat(128) });
  await using directory = await filled([longKey, twin]);
  assertEquals((await restart(directory.path, [longKey, twin])).hits, 2);
  await Deno.copyFile(fileOf(directory.path, twin), fileOf(directory.path, longKey));
  const { hits, status } = await restart(directory.path, [longKey]);
  assertEquals([hits, status.damagedObjects], [0, { key: 1 }]);
});

Deno.test("an object of another layout is a miss and is kept", async () => {
  await using directory = await filled([firstKey]);
  const other = { byteLength: PAYLOAD_BYTES, fingerprint: new Uint8Array(8).fill(77) };
  const { hits, status } = await restart(directory.path, [firstKey], other);
  assertEquals([hits, status.damagedObjects], [0, { layout: 1 }]);
  assertEquals((await restart(directory.path, [firstKey])).hits, 1);
  const larger = await restart(directory.path, [firstKey], testLayout(PAYLOAD_BYTES * 2));
  assertEquals([larger.hits, larger.status.missedLoads], [0, 1]);
  assertEquals((await restart(directory.path, [firstKey])).hits, 1);
});

Deno.test("foreign files in the directory are ignored", async () => {
  const keys = testKeys(3);
  await using directory = await filled(keys);
  const shard = dirname(fileOf(directory.path, firstKey));
  for (const name of ["garbage.data", "h-.data", `h-${"0".repeat(64)}.data`, "@@@.data", ".tmp"]) {
    for (const place of [directory.path, shard, join(directory.path, "tmp")]) {
      await Deno.writeFile(join(place, name), new Uint8Array(FILE_BYTES));
    }
  }
  // A file with an object's name in an older format: raw bytes without a trailer.
  const raw = fileOf(directory.path, testKey(3));
  await Deno.mkdir(dirname(raw), { recursive: true });
  await Deno.writeFile(raw, new Uint8Array(FILE_BYTES).fill(7));
  const { hits, status } = await restart(directory.path, [...keys, testKey(3)]);
  assertEquals([hits, status.damagedObjects], [3, { magic: 1 }]);
});

Deno.test("damage in the middle of a load does not reach the caller", async () => {
  const keys = testKeys(40);
  await using directory = await filled(keys);
  await using cache = await openFsCache(directory.path);
  for (let round = 0; round < 5; round++) {
    cache.clearL1();
    const matching = countHits(cache, keys, layout);
    const damaging = keys.slice(20).map((key) =>
      Deno.truncate(fileOf(directory.path, key), PAYLOAD_BYTES).catch(() => {})
    );
    await Promise.all(damaging);
    assert(await matching >= 20);
    cache.clearL1();
    await putObjects(cache, keys, layout);
  }
});
