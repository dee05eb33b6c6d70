import { assert, assertEquals, assertGreater, assertLessOrEqual } from "@std/assert";
import { deadline, delay } from "@std/async";
import { dirname, join } from "@std/path";
import type { DiskBounds, DiskSpaceStatus } from "../../../adapters/_fs/disk_space_options.ts";
import type { FileStore } from "../../../adapters/_fs/file_store.ts";
import { type FileSystem, hostFileSystem } from "../../../adapters/_fs/file_system.ts";
import { ObjectPaths } from "../../../adapters/_fs/object_paths.ts";
import { UsageLedger } from "../../../adapters/_fs/usage_ledger.ts";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import type { AdapterError } from "../../../src/adapter/contract.ts";
import { systemClock } from "../../../src/base/clock.ts";
import { systemRandom } from "../../../src/base/random.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { FaultyFiles, systemError } from "../../support/faulty_files.ts";
import {
  diskBytesIn,
  objectFilesIn,
  openFileStore,
  temporaryFilesIn,
  testObject,
} from "../../support/fs_adapter.ts";
import { testKey, testKeys, testLayout } from "../../support/objects.ts";
import { sealedObject } from "../../support/sealed_objects.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

const DISK_BYTES = 4096;
const EVICTS = { high: 0.8, low: 0.6 };
const call = { signal: new AbortController().signal };
const DEAD = "77-0123456789abcdef";

/** A store with space for `objects` files, and its helpers. */
interface Opened extends AsyncDisposable {
  readonly store: FileStore;
  readonly path: string;
  readonly faulty: FaultyFiles;
  readonly clock: ManualClock;
  readonly errors: AdapterError[];
}

function bounds(objects: number, watermark: DiskBounds["watermark"] | null = EVICTS): DiskBounds {
  return { capacityBytes: objects * DISK_BYTES, ...(watermark === null ? {} : { watermark }) };
}

async function open(
  bounds: DiskBounds,
  { path, files = {}, waits = false }: {
    path?: string;
    files?: Partial<FileSystem>;
    /** Whether other holders lock files at the same time, so that the store has to wait. */
    waits?: boolean;
  } = {},
): Promise<Opened> {
  const directory = path === undefined ? await tempDirectory() : undefined;
  const basePath = path ?? directory?.path ?? "";
  const faulty = new FaultyFiles({ ...hostFileSystem, ...files });
  const clock = new ManualClock();
  const errors: AdapterError[] = [];
  const store = await openFileStore(basePath, {
    files: faulty.files,
    clock: waits ? systemClock : clock,
    bounds,
    onError: (error) => errors.push(error),
  });
  await faulty.settled();
  const dispose = async (): Promise<void> => {
    await store[Symbol.asyncDispose]();
    await directory?.[Symbol.asyncDispose]();
    assertEquals([faulty.open, faulty.locked, clock.pendingTimers], [[], [], 0]);
  };
  return { store, path: basePath, faulty, clock, errors, [Symbol.asyncDispose]: dispose };
}

function pathOf(basePath: string, key: ObjectKey): string {
  return new ObjectPaths({ basePath, layout: "kvtier", shards: 0 }).pathOf(key);
}

async function put(store: FileStore, keys: readonly ObjectKey[], bytes = 1000): Promise<string> {
  return String((await store.store(keys.map((key) => testObject(key, bytes)), call)).stored);
}

/** Looks up objects in vain, then stores them, as a cache does: they replace nothing. */
async function putMissed(store: FileStore, keys: readonly ObjectKey[]): Promise<void> {
  const found = await store.lookupAndLock(keys, { ...call, prefix: true });
  assertEquals([found.popcount(), await put(store, keys)], [0, "1".repeat(keys.length)]);
}

/** Which objects exist, as bits. */
function present(basePath: string, keys: readonly ObjectKey[]): string {
  return keys.map((key) => {
    try {
      return Deno.lstatSync(pathOf(basePath, key)).isFile ? "1" : "0";
    } catch {
      return "0";
    }
  }).join("");
}

/** Writes the file of an object last used `minutes` ago. */
async function putFile(basePath: string, key: ObjectKey, minutesAgo: number): Promise<void> {
  const path = pathOf(basePath, key);
  await Deno.mkdir(dirname(path), { recursive: true });
  await Deno.writeFile(path, testObject(key).parts[0] ?? new Uint8Array());
  const time = new Date(Date.now() - 60_000 * minutesAgo);
  await Deno.utime(path, time, time);
}

function spaceOf(store: FileStore): DiskSpaceStatus {
  return store.reportStatus()["space"] as DiskSpaceStatus;
}

function ledgerOf(basePath: string): UsageLedger {
  return new UsageLedger({
    files: new FaultyFiles().files,
    path: join(basePath, "tmp", "usage.ledger"),
    mode: 0o600,
    clock: systemClock,
    random: systemRandom,
  });
}

async function usedIn(basePath: string): Promise<number> {
  return (await ledgerOf(basePath).update((state) => state))?.used ?? -1;
}

Deno.test("with noop, objects that fit are stored, and others refused without failure", async () => {
  await using opened = await open({ capacityBytes: 10 * DISK_BYTES + 100 });
  const { store, path, errors } = opened;
  const stored = await put(store, testKeys(15));
  assertEquals([...stored].filter((bit) => bit === "1").length, 10);
  assertEquals([(await objectFilesIn(path)).length, errors], [10, []]);
  assertEquals(await put(store, testKeys(3, 50)), "000");
  assertEquals(spaceOf(store).refusedObjects, 8);
  assertEquals(await temporaryFilesIn(path), []);
  const { deleted } = await store.delete(testKeys(15), call);
  assertEquals(deleted.popcount(), 10);
  assertEquals(await put(store, testKeys(3, 50)), "111");
});

Deno.test("the capacity is never exceeded by concurrent stores", async () => {
  for (const watermark of [EVICTS, { high: 1, low: 0 }, { high: 0.1, low: 0.05 }, null]) {
    await using opened = await open(bounds(20, watermark));
    const { store, path } = opened;
    let most = 0;
    const all = Array.from({ length: 10 }, (_, i) => put(store, testKeys(10, 10 * i)));
    const watched = Promise.all(all).then(() => "done");
    for (;;) {
      let bytes = 0;
      for await (const { name } of Deno.readDir(path)) {
        if (!/\.(data|tmp)$/.test(name)) continue;
        bytes += await Deno.lstat(join(path, name)).then(({ size }) => size && DISK_BYTES, () => 0);
      }
      most = Math.max(most, bytes);
      if (await Promise.race([watched, Promise.resolve("not yet")]) === "done") break;
    }
    await opened.faulty.settled();
    assertLessOrEqual(most, 20 * DISK_BYTES);
    assertLessOrEqual(await diskBytesIn(path), 20 * DISK_BYTES);
    assertGreater(most, 0);
    assertEquals(opened.errors, []);
  }
});

Deno.test("two stores in one directory share the capacity, and use each other's space", async () => {
  const noop = bounds(20, null);
  await using one = await open(noop, { waits: true });
  await using other = await open(noop, { path: one.path, waits: true });
  const stored = await Promise.all([
    put(one.store, testKeys(30)),
    put(other.store, testKeys(30, 100)),
  ]);
  const count = [...stored.join("")].filter((bit) => bit === "1").length;
  assertEquals((await objectFilesIn(one.path)).length, count);
  assertLessOrEqual(count, 20);
  // Space leased by one writer is not available to the other until it is returned.
  assertGreater(count, 10);
  await other.store.delete([...testKeys(30), ...testKeys(30, 100)], call);
  assertEquals(await put(one.store, testKeys(8, 200)), "1".repeat(8));
});

Deno.test("the least recently used objects are evicted first, whichever process wrote them", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const ages = [30, 90, 10, 70, 50, 20, 80, 40];
  const keys = testKeys(ages.length);
  for (const [i, key] of keys.entries()) await putFile(path, key, ages[i] as number);
  await using opened = await open(bounds(10), { path });
  // At eight of ten objects, one more starts an eviction down to six.
  await putMissed(opened.store, [testKey(50)]);
  await opened.faulty.settled();
  const left = keys.filter((_, i) => (ages[i] as number) < 60);
  assertEquals(present(path, keys), keys.map((key) => left.includes(key) ? "1" : "0").join(""));
  const { evictedObjects, evictedBytes, usedBytes } = spaceOf(opened.store);
  assertEquals([evictedObjects, evictedBytes], [3, 3 * DISK_BYTES]);
  assertEquals(usedBytes, await diskBytesIn(path));
});

Deno.test("a time of use far in the future does not protect an object", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const keys = testKeys(8);
  for (const [i, key] of keys.entries()) await putFile(path, key, i === 3 ? -100_000 : 10 + i);
  await using opened = await open(bounds(10, { high: 0.8, low: 0.79 }), { path });
  assertEquals(await put(opened.store, [testKey(50)]), "1");
  await opened.faulty.settled();
  assertEquals(present(path, keys).at(3), "0");
});

for (
  const [what, strange] of [
    ["a time that is no date", { mtime: new Date(NaN) }],
    ["a time that no file can have", { mtime: new Date(-1) }],
    ["no time", { mtime: null }],
    ["no blocks", { blocks: 0 }],
    ["more blocks than there are", { blocks: 2 ** 60 }],
  ] as const
) {
  Deno.test(`a file system that reports ${what} stays within the capacity`, async () => {
    const lstat = async (path: string) => ({ ...await hostFileSystem.lstat(path), ...strange });
    await using opened = await open(bounds(20), { files: { lstat } });
    const { store, path, faulty, errors } = opened;
    for (let i = 0; i < 10; i++) {
      assertEquals(await put(store, testKeys(8, 8 * i)), "11111111");
      await faulty.settled();
      assertLessOrEqual(await diskBytesIn(path), 20 * DISK_BYTES);
    }
    await store[Symbol.asyncDispose]();
    // Existing files are counted in the same way.
    await ledgerOf(path).update((state) => state && { ...state, countedAt: 0 });
    await using again = await open(bounds(20), { path, files: { lstat } });
    const usedBytes = spaceOf(again.store).usedBytes ?? 0;
    assert(usedBytes >= DISK_BYTES && usedBytes <= 20 * DISK_BYTES, `${usedBytes}`);
    assertEquals([errors, again.errors], [[], []]);
  });
}

Deno.test("a count with a time in the future is not trusted", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  {
    await using opened = await open(bounds(20), { path });
    await put(opened.store, testKeys(3));
  }
  const year = 365 * 24 * 3_600_000;
  await ledgerOf(path).update((state) =>
    state && { ...state, used: state.used + DISK_BYTES, countedAt: Date.now() + year }
  );
  await using _ = await open(bounds(20), { path });
  assertEquals(await usedIn(path), 3 * DISK_BYTES);
});

Deno.test("the end of a chain is evicted first, and objects used again stay", async () => {
  await using opened = await open(bounds(20));
  const { store, path, clock, faulty } = opened;
  const [chain, other] = [testKeys(6), testKeys(6, 100)];
  // Objects that a lookup missed are stored as a chain.
  for (const keys of [chain, other]) {
    const found = await store.lookupAndLock(keys, { ...call, prefix: true });
    assertEquals(found.popcount(), 0);
    assertEquals(await put(store, keys.toReversed()), "111111");
  }
  await clock.advance(1000);
  await faulty.settled();
  const timeOf = (key: ObjectKey) => Deno.lstatSync(pathOf(path, key)).mtime?.getTime() ?? 0;
  for (const keys of [chain, other]) {
    const times = keys.map(timeOf);
    assertEquals(times, times.toSorted((a, b) => b - a), "the front is the youngest");
    assertEquals(new Set(times).size, 6);
  }
  // Later, the first chain is used again.
  for (const key of [...chain, ...other]) {
    const time = new Date(timeOf(key) - 3_600_000);
    await Deno.utime(pathOf(path, key), time, time);
  }
  await clock.advance(61_000);
  const found = await store.lookupAndLock(chain, { ...call, prefix: true });
  assertEquals(found.popcount(), 6);
  store.unlock(chain);
  await clock.advance(1000);
  await faulty.settled();
  await putMissed(store, testKeys(5, 200));
  await faulty.settled();
  assertEquals(present(path, chain), "111111");
  assertEquals(present(path, other), "100000");
});

Deno.test("objects found by a lookup stay until they are unlocked", async () => {
  await using opened = await open(bounds(8, { high: 1, low: 0.5 }));
  const { store, path, faulty } = opened;
  const held = testKeys(4);
  assertEquals(await put(store, held), "1111");
  await store.lookupAndLock(held.slice(0, 3), { ...call, prefix: false });
  await store.lookupAndLock(held.slice(0, 1), { ...call, prefix: false });
  for (let i = 0; i < 5; i++) {
    await put(store, testKeys(4, 100 * (i + 1)));
    await faulty.settled();
    assertEquals(present(path, held.slice(0, 3)), "111");
    assertLessOrEqual(await diskBytesIn(path), 8 * DISK_BYTES);
  }
  assertEquals(present(path, held), "1110");
  assertEquals(String((await store.delete(held.slice(0, 3), call)).deleted), "000");
  store.unlock(held.slice(0, 3));
  assertEquals(String((await store.delete(held.slice(0, 3), call)).deleted), "011");
  store.unlock(held.slice(0, 1));
  assertEquals(String((await store.delete(held.slice(0, 3), call)).deleted), "100");
});

Deno.test("an object with a hashed name stays while it is locked", async () => {
  await using opened = await open(bounds(8, { high: 1, low: 0.5 }));
  const { store, path, faulty } = opened;
  const long = testKey(1, { model: "m".repeat(256), cacheSalt: "s".repeat(128) });
  assertEquals(await put(store, [long]), "1");
  await store.lookupAndLock([long], { ...call, prefix: true });
  for (let i = 0; i < 5; i++) await put(store, testKeys(4, 100 * (i + 1)));
  await faulty.settled();
  assertEquals(present(path, [long]), "1");
  store.unlock([long]);
});

Deno.test("objects with hashed names are evicted while others are locked", async () => {
  await using opened = await open(bounds(8, { high: 1, low: 0.5 }));
  const { store, path, faulty, errors } = opened;
  const long = (n: number) => testKey(n, { model: "m".repeat(256), cacheSalt: "s".repeat(128) });
  const held = [testKey(1), long(2)];
  assertEquals(await put(store, held), "11");
  await store.lookupAndLock(held, { ...call, prefix: false });
  for (let i = 0; i < 5; i++) {
    assertEquals(await put(store, [3, 4, 5].map((n) => long(10 * i + n))), "111", `round ${i}`);
    await faulty.settled();
  }
  assertEquals([present(path, held), errors], ["11", []]);
  store.unlock(held);
});

Deno.test("evictions are reported by the keys in the names or in the files", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const gone: ObjectKey[] = [];
  await using store = await openFileStore(path, {
    bounds: bounds(8, { high: 1, low: 0.5 }),
    onEvicted: (keys) => void gone.push(...keys),
  });
  const layout = testLayout(1000);
  const long = { model: "m".repeat(256), cacheSalt: "s".repeat(128) };
  const keys = Array.from({ length: 40 }, (_, n) => testKey(n, n % 2 === 0 ? long : {}));
  for (const key of keys) await store.store([sealedObject(key, layout)], call);
  const left = present(path, keys);
  assertEquals(gone.length, spaceOf(store).evictedObjects);
  const told = new Set(gone.map(({ id }) => id));
  assertEquals(keys.map(({ id }) => told.has(id) ? "0" : "1").join(""), left);
  assertGreater(gone.length, 30);
});

Deno.test("an object larger than the capacity is refused, and evicts no other", async () => {
  await using opened = await open(bounds(8));
  const { store, path } = opened;
  assertEquals(await put(store, testKeys(4)), "1111");
  assertEquals(await put(store, [testKey(50)], 9 * DISK_BYTES), "0");
  assertEquals(present(path, testKeys(4)), "1111");
  assertEquals([spaceOf(store).refusedObjects, opened.errors], [1, []]);
});

Deno.test("storing an object repeatedly does not use up the capacity", async () => {
  for (const [objects, watermark] of [[20, EVICTS], [6, null]] as const) {
    await using opened = await open(bounds(objects, watermark));
    const { store, path, faulty } = opened;
    const keys = testKeys(3);
    for (let i = 0; i < 30; i++) {
      assertEquals(await put(store, keys), "111");
    }
    await faulty.settled();
    assertEquals(present(path, keys), "111");
    assertLessOrEqual(await diskBytesIn(path), 3 * DISK_BYTES);
    assertEquals(opened.errors, []);
  }
});

Deno.test("stores pause on a full disk, longer each time, and resume afterwards", async () => {
  await using opened = await open(bounds(100));
  const { store, path, faulty, clock, errors } = opened;
  assertEquals(await put(store, testKeys(2)), "11");
  faulty.arm(({ operation }) => operation === "file.write" ? systemError("ENOSPC") : undefined);
  assertEquals(await put(store, testKeys(1, 10)), "0");
  assertEquals([errors.length, errors[0]?.code], [1, "ENOSPC"]);
  for (const ms of [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]) {
    assert(spaceOf(store).pausedBy?.includes("ENOSPC"));
    await clock.advance(ms - 1);
    await faulty.settled();
    const before = faulty.failed.length;
    assertEquals(await put(store, testKeys(3, 10)), "000");
    assertEquals(faulty.failed.length, before, "asked too early");
    await clock.advance(1);
    assertEquals(await put(store, testKeys(3, 10)), "000");
    assertEquals(faulty.failed.length, before + 1, "one finds out for all");
  }
  assertEquals(await temporaryFilesIn(path), []);
  faulty.disarm();
  await clock.advance(30_000);
  assertEquals(await put(store, testKeys(1, 10)), "1");
  assertEquals([spaceOf(store).pausedBy, await put(store, testKeys(3, 20))], [undefined, "111"]);
});

Deno.test("on a full disk the cache evicts some of its objects", async () => {
  await using opened = await open(bounds(100));
  const { store, path, faulty } = opened;
  await put(store, testKeys(10));
  faulty.arm(({ operation }) => operation === "create" ? systemError("ENOSPC") : undefined);
  await put(store, testKeys(1, 10));
  await faulty.settled();
  assertLessOrEqual((await objectFilesIn(path)).length, 9);
});

for (
  const [name, limit] of [
    ["a share of the disk", { diskHighWatermark: 0.5 }],
    ["bytes that stay free", { diskMinFreeBytes: 50 * DISK_BYTES }],
  ] as const
) {
  Deno.test(`${name}: objects are evicted when others fill the disk, and refused before it is too full`, async () => {
    // A disk of 100 files, of which other programs have some.
    let others = 30;
    const opening: { path?: string } = {};
    const room = async () => {
      const { path } = opening;
      const own = path === undefined ? 0 : await diskBytesIn(path);
      const usedBytes = others * DISK_BYTES + own;
      return { usedBytes, availableBytes: 100 * DISK_BYTES - usedBytes };
    };
    await using opened = await open(
      { capacityBytes: Infinity, watermark: { high: 1, low: 0.8 }, ...limit },
      { files: { room } },
    );
    const { store, path, faulty, clock } = opened;
    opening.path = path;
    await clock.advance(1001);
    for (let i = 0; i < 40; i++) {
      await put(store, [testKey(i)]);
      await clock.advance(1001);
    }
    await faulty.settled();
    const count = (await objectFilesIn(path)).length;
    assertLessOrEqual(count, 20);
    assertGreater(count, 10);
    assertEquals(present(path, [testKey(0), testKey(39)]), "01");
    // Other programs take all free space: all objects are evicted, as far as that helps.
    others = 49;
    await clock.advance(1001);
    await put(store, [testKey(100)]);
    await faulty.settled();
    assertLessOrEqual((await objectFilesIn(path)).length, 1);
    others = 60;
    await clock.advance(1001);
    assertEquals(await put(store, [testKey(101)]), "0");
    others = 0;
    await clock.advance(1001);
    assertEquals(await put(store, testKeys(5, 200)), "11111");
    assertEquals(opened.errors, []);
  });
}

Deno.test("a restart with less capacity evicts the excess in the background", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  {
    await using opened = await open(bounds(100), { path });
    assertEquals(await put(opened.store, testKeys(40)), "1".repeat(40));
  }
  await using opened = await open(bounds(20), { path });
  await opened.faulty.settled();
  assertEquals((await objectFilesIn(path)).length, 12);
  assertEquals(spaceOf(opened.store).usedBytes, 12 * DISK_BYTES);
});

Deno.test("the lease of a killed writer is returned when the directory is counted", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  {
    await using opened = await open(bounds(20), { path });
    await put(opened.store, testKeys(3));
  }
  const lost = 15 * DISK_BYTES;
  await ledgerOf(path).update((state) =>
    state && { ...state, used: state.used + lost, leases: { [DEAD]: lost } }
  );
  await using opened = await open(bounds(20, null), { path });
  assertEquals(await usedIn(path), 3 * DISK_BYTES);
  assertEquals(await put(opened.store, testKeys(17, 100)), "1".repeat(17));
});

Deno.test("temporary files of a killed writer count until they are swept", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  {
    await using opened = await open(bounds(20), { path });
    await put(opened.store, testKeys(3));
  }
  // The lock file is gone and the temporary file is young: only age will tell.
  await Deno.writeFile(join(path, `${DEAD}-0.tmp`), new Uint8Array(5 * DISK_BYTES));
  await ledgerOf(path).update((state) =>
    state && { ...state, used: state.used + 9 * DISK_BYTES, leases: { [DEAD]: 9 * DISK_BYTES } }
  );
  await using _ = await open(bounds(20), { path });
  assertEquals(await usedIn(path), 8 * DISK_BYTES);
});

Deno.test("a lost ledger is recreated from the directory", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  {
    await using opened = await open(bounds(20), { path });
    await put(opened.store, testKeys(3));
  }
  for (const content of ["", "nonsense", undefined]) {
    const ledger = join(path, "tmp", "usage.ledger");
    if (content === undefined) await Deno.remove(ledger);
    else await Deno.writeTextFile(ledger, content);
    await using opened = await open(bounds(20), { path });
    await opened.faulty.settled();
    assertEquals(await usedIn(path), 3 * DISK_BYTES, content);
  }
});

Deno.test("counting during stores and deletions never leaves the ledger too low", async () => {
  await using one = await open(bounds(200), { waits: true });
  const { path } = one;
  await put(one.store, testKeys(60));
  for (let round = 0; round < 8; round++) {
    // Without a ledger, opening counts the directory.
    const stale = ledgerOf(path).update((state) => state && { ...state, countedAt: 0 });
    await stale;
    const work = [
      put(one.store, testKeys(10, 100 + 10 * round)),
      one.store.delete(testKeys(6, 6 * round), call),
      open(bounds(200), { path, waits: true }).then(async (other) => {
        await put(other.store, testKeys(5, 500 + 5 * round));
        await other[Symbol.asyncDispose]();
      }),
    ];
    await Promise.all(work);
    await one.faulty.settled();
    assert(await usedIn(path) >= await diskBytesIn(path), "the account says too little");
  }
  await one.store[Symbol.asyncDispose]();
  await ledgerOf(path).update((state) => state && { ...state, countedAt: 0 });
  await using last = await open(bounds(200), { path });
  await last.faulty.settled();
  assertEquals(await usedIn(path), await diskBytesIn(path));
});

Deno.test("closing returns the unused lease", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  for (const bytes of [2 ** 30, 2 ** 40]) {
    const { store, faulty } = await open({ capacityBytes: bytes, watermark: EVICTS }, { path });
    await put(store, testKeys(3));
    assertGreater(await usedIn(path), 3 * DISK_BYTES);
    await faulty.settled();
    await store[Symbol.asyncDispose]();
    await store[Symbol.asyncDispose]();
    const state = await ledgerOf(path).update((state) => state);
    assertEquals(state?.leases, {});
    assertEquals(spaceOf(store).usedBytes, state?.used);
  }
});

Deno.test("with an unwritable ledger stores fail, and never go unaccounted", async () => {
  await using opened = await open(bounds(50));
  const { store, path, faulty, errors } = opened;
  faulty.arm(({ operation }) => operation === "lock.write" ? systemError("EIO") : undefined);
  for (let i = 0; i < 3; i++) await put(store, testKeys(4, 4 * i));
  assertGreater(errors.length, 0);
  faulty.disarm();
  await put(store, testKeys(4, 100));
  assert(await usedIn(path) >= await diskBytesIn(path));
});

Deno.test("without lock support, each process stays within the capacity", async () => {
  const lock = () => Promise.reject(systemError("ENOLCK"));
  await using opened = await open(bounds(20), { files: { lock } });
  const { store, path, faulty } = opened;
  for (let i = 0; i < 10; i++) {
    assertEquals(await put(store, testKeys(8, 8 * i)), "11111111");
    await faulty.settled();
    assertLessOrEqual(await diskBytesIn(path), 20 * DISK_BYTES);
  }
  assertEquals([spaceOf(store).isShared, opened.errors], [false, []]);
});

Deno.test("without limits nothing is counted, locked or written but objects", async () => {
  await using opened = await open({ capacityBytes: Infinity });
  const { store, path } = opened;
  assertEquals(await put(store, testKeys(3)), "111");
  assertEquals(store.capabilities.evicts, false);
  await store.lookupAndLock(testKeys(3), { ...call, prefix: true });
  assertEquals(String((await store.delete(testKeys(1), call)).deleted), "1");
  const entries = await Array.fromAsync(Deno.readDir(join(path, "tmp")));
  const names = entries.map(({ name }) => name);
  assertEquals(names.filter((name) => !name.endsWith(".lock")), []);
  assertEquals(spaceOf(store).usedBytes, undefined);
});

Deno.test("loads continue while stores wait for the ledger", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  await using store = await openFileStore(path, { bounds: { capacityBytes: 2 ** 20 } });
  const kept = testObject(testKey(0));
  assertEquals((await store.store([kept], call)).stored.toString(), "1");
  const ledger = join(path, "tmp", "usage.ledger");
  let storing: Promise<unknown>;
  {
    using _held = await hostFileSystem.lock(ledger, { create: false, mode: 0o600 });
    // More objects than operations at a time, and than this writer's lease covers.
    const objects = testKeys(16, 10).map((key) => testObject(key, 40_000));
    let isOver = false;
    storing = store.store(objects, call).then(() => isOver = true);
    await delay(50);
    const room = { key: kept.key, parts: [new Uint8Array(1000)], byteLength: 1000 };
    assertEquals((await deadline(store.load([room], call), 2_000)).toString(), "1");
    assert(!isOver, "the stores wait");
  }
  await storing;
});

Deno.test("concurrent lookups are limited, also of a chain", async () => {
  await using directory = await tempDirectory();
  let now = 0;
  let most = 0;
  const counted =
    <Args extends unknown[], T>(call: (...args: Args) => Promise<T>) =>
    async (...args: Args): Promise<T> => {
      most = Math.max(most, ++now);
      try {
        return await call(...args);
      } finally {
        now--;
      }
    };
  const { exists, lstat } = hostFileSystem;
  const files = { ...hostFileSystem, exists: counted(exists), lstat: counted(lstat) };
  await using store = await openFileStore(directory.path, { files, ioConcurrency: 4 });
  const keys = testKeys(200);
  const rooms = keys.map((key) => ({ key, parts: [new Uint8Array(1)], byteLength: 1 }));
  // After a failed load, every lookup checks the object.
  assertEquals((await store.load(rooms, call)).popcount(), 0);
  for (const prefix of [true, false]) {
    for (const count of [16, 200]) {
      most = 0;
      await Promise.all(
        [1, 2].map(() => store.lookupAndLock(keys.slice(0, count), { ...call, prefix })),
      );
      assertLessOrEqual(most, 4 + 2, "and one look each when nothing is found");
      assertGreater(most, 1);
    }
  }
});

Deno.test("directories shared with a group before become private without allow_shared_group", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  {
    await using shared = await openFileStore(path, { isGroupShared: true, shards: 1 });
    await shared.store(testKeys(8).map((key) => testObject(key)), call);
  }
  await Deno.chmod(path, 0o755);
  await using own = await openFileStore(path, { shards: 1 });
  await own.store(testKeys(8).map((key) => testObject(key)), call);
  const used = new Set(["tmp", ...(await objectFilesIn(path)).map(dirname)]);
  const modes = await Promise.all(
    [...used].map(async (name) => ((await Deno.lstat(join(path, name))).mode ?? 0) & 0o022),
  );
  assertGreater(modes.length, 2);
  assert(modes.every((mode) => mode === 0), `${modes}`);
});
