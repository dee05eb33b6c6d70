import { assert, assertEquals, assertGreater, assertLessOrEqual, assertMatch } from "@std/assert";
import { join } from "@std/path";
import type { DiskSpaceStatus } from "../../../adapters/_fs/disk_space_options.ts";
import type { FileStore } from "../../../adapters/_fs/file_store.ts";
import { hostFileSystem } from "../../../adapters/_fs/file_system.ts";
import type { LedgerState } from "../../../adapters/_fs/ledger_state.ts";
import { UsageLedger } from "../../../adapters/_fs/usage_ledger.ts";
import { systemClock } from "../../../src/base/clock.ts";
import { systemRandom } from "../../../src/base/random.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { FaultyFiles } from "../../support/faulty_files.ts";
import { diskBytesIn, openFileStore, testObject } from "../../support/fs_adapter.ts";
import { testKeys } from "../../support/objects.ts";
import { tempDirectory } from "../../support/temp_directory.ts";
import { waitUntil } from "../../support/wait_until.ts";

const DISK_BYTES = 4096;
const CAPACITY = 100 * DISK_BYTES;
const bounds = { capacityBytes: CAPACITY, watermark: { high: 0.8, low: 0.6 } };
const call = { signal: new AbortController().signal };
const mode = 0o600;

function ledgerOf(basePath: string): UsageLedger {
  return new UsageLedger({
    files: hostFileSystem,
    path: join(basePath, "tmp", "usage.ledger"),
    mode,
    clock: systemClock,
    random: systemRandom,
  });
}

async function stateIn(basePath: string): Promise<LedgerState | undefined> {
  // With the lock: an update in progress cannot be read.
  return await ledgerOf(basePath).update((state) => state);
}

async function put(store: FileStore, first: number, count = 8): Promise<number> {
  const objects = testKeys(count, first).map((key) => testObject(key, 1000));
  return (await store.store(objects, call)).stored.popcount();
}

function problemsOf(store: FileStore): readonly string[] {
  return store.reportStatus()["problems"] as string[];
}

function spaceOf(store: FileStore): DiskSpaceStatus {
  return store.reportStatus()["space"] as DiskSpaceStatus;
}

/** Advances a clock until some work is done. */
async function drive<Value>(
  clock: ManualClock,
  faulty: FaultyFiles,
  work: Promise<Value>,
): Promise<Value> {
  let isOver = false;
  work.finally(() => isOver = true).catch(() => {});
  while (!isOver) {
    await faulty.settled();
    if (!isOver) await clock.advance(50);
  }
  return await work;
}

/** Empties a directory, except for what writers add meanwhile. */
async function empty(path: string): Promise<void> {
  await Deno.remove(path, { recursive: true }).catch((error: unknown) => {
    if (!/os error 39/.test(String(error))) throw error;
  });
}

const replacements: Record<string, (path: string) => Promise<void>> = {
  "its ledger": (path) => Deno.remove(join(path, "tmp", "usage.ledger")),
  "its tmp": (path) => empty(join(path, "tmp")),
  "the whole directory": empty,
  "its ledger to an older copy": (path) =>
    Deno.rename(join(path, "tmp", "older"), join(path, "tmp", "usage.ledger")),
};

for (const [what, replace] of Object.entries(replacements)) {
  Deno.test(`writers stay within the capacity of a directory that loses ${what} at runtime`, async () => {
    await using directory = await tempDirectory();
    const path = join(directory.path, "base");
    await using stack = new AsyncDisposableStack();
    // A store may fail after its directory was removed; the next one works.
    const options = { bounds, onError: () => {} };
    const stores: FileStore[] = [];
    for (let i = 0; i < 3; i++) stores.push(stack.use(await openFileStore(path, options)));
    await waitUntil(async () => ((await stateIn(path))?.countedAt ?? 0) > 0);
    const ledger = join(path, "tmp", "usage.ledger");
    // Grants since the copy was made are known to their writers; removals during a count may be
    // subtracted twice.
    const most = (what.includes("copy") ? 1.2 : 1.1) * CAPACITY;
    for (let round = 0; round < 4; round++) {
      if (what.includes("copy")) await Deno.copyFile(ledger, join(path, "tmp", "older"));
      for (const [s, store] of stores.entries()) await put(store, 10_000 * s + 100 * round, 12);
      await replace(path);
      for (let turn = 1; turn < 4; turn++) {
        for (const [s, store] of stores.entries()) {
          await put(store, 10_000 * s + 100 * round + 20 * turn, 12);
          assertLessOrEqual(await diskBytesIn(path), most);
        }
      }
    }
    await stack.disposeAsync();
    // The new writer knows the used bytes, or counts them.
    await using _last = await openFileStore(path, { bounds });
    await waitUntil(async () => ((await stateIn(path))?.countedAt ?? 0) > 0);
    const { used = 0 } = await stateIn(path) ?? {};
    const onDisk = await diskBytesIn(path);
    assert(used + 0.25 * CAPACITY >= onDisk && used <= 2 * CAPACITY, `${used} of ${onDisk} bytes`);
  });
}

Deno.test("a count does not apply to a ledger that others recreated meanwhile", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  {
    await using gone = await openFileStore(path, { bounds });
    assertEquals(await put(gone, 0, 60), 60);
  }
  await using other = await openFileStore(path, { bounds, countsOnStart: false });
  await ledgerOf(path).update((state) => state && { ...state, countedAt: 0 });
  let isReplaced = false;
  const files = {
    ...hostFileSystem,
    async *readDir(directory: string) {
      await isOpen.promise;
      if (!isReplaced && spaceOf(counting).isCounting) {
        await Deno.remove(join(path, "tmp", "usage.ledger"));
        assertEquals(await put(other, 500, 1), 1);
        await waitUntil(async () => await stateIn(path) !== undefined);
        isReplaced = true;
      }
      yield* hostFileSystem.readDir(directory);
    },
  };
  const isOpen = Promise.withResolvers<void>();
  await using counting = await openFileStore(path, { bounds, files });
  isOpen.resolve();
  await waitUntil(() => isReplaced && !spaceOf(counting).isCounting);
  const used = (await stateIn(path))?.used ?? 0;
  assertLessOrEqual(await diskBytesIn(path), used);
  assertLessOrEqual(used, CAPACITY);
});

Deno.test("stores continue within the capacity while a suspended process holds the ledger", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const [clock, faulty] = [new ManualClock(), new FaultyFiles()];
  {
    await using store = await openFileStore(path, { bounds, clock, files: faulty.files });
    assertEquals(await put(store, 0, 60), 60);
    let stored = 0;
    {
      using held = await hostFileSystem.lock(join(path, "tmp", "usage.ledger"), {
        create: false,
        mode,
      });
      assert(held !== undefined);
      for (let i = 0; i < 20; i++) {
        stored += await drive(clock, faulty, put(store, 1000 + 8 * i));
        assertLessOrEqual(await diskBytesIn(path), CAPACITY);
      }
      assertEquals(stored, 160, "each store finds room");
      assertMatch(problemsOf(store).join(), /usage\.ledger cannot be locked/);
    }
    assertEquals(await put(store, 2000), 8);
    await faulty.settled();
    assertEquals(problemsOf(store), []);
    const { used = 0 } = await stateIn(path) ?? {};
    assertLessOrEqual(await diskBytesIn(path), used);
    assertLessOrEqual(used, CAPACITY);
  }
  await ledgerOf(path).update((state) => state && { ...state, countedAt: 0 });
  const usedBefore = (await stateIn(path))?.used;
  await using counted = await openFileStore(path, { bounds });
  while ((await stateIn(path))?.countedAt === 0) await new Promise((done) => setTimeout(done, 5));
  assertEquals((await stateIn(path))?.used, usedBefore, "the account was right");
  void counted;
});

Deno.test("without eviction, a held ledger leaves each writer its share of the free space", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const [clock, faulty] = [new ManualClock(), new FaultyFiles()];
  const noop = { capacityBytes: CAPACITY };
  const errors: unknown[] = [];
  const onError = (error: unknown): void => void errors.push(error);
  const options = { bounds: noop, clock, files: faulty.files, onError };
  await using one = await openFileStore(path, options);
  assertEquals(await drive(clock, faulty, put(one, 0, 20)), 20);
  await using other = await openFileStore(path, options);
  assertEquals(await drive(clock, faulty, put(other, 100, 20)), 20);
  using held = await hostFileSystem.lock(join(path, "tmp", "usage.ledger"), {
    create: false,
    mode,
  });
  assert(held !== undefined);
  const storing = Promise.all([put(one, 200, 60), put(other, 300, 60)]);
  const stored = (await drive(clock, faulty, storing)).reduce((sum, count) => sum + count);
  // Half of the space that the 40 objects left, divided among two writers and one more.
  assert(stored >= 15 && stored <= 21, `${stored}`);
  assertMatch(String(errors[0]), /locked by another process/);
});

Deno.test("writers that open while the ledger is held stay within the capacity", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const [clock, faulty] = [new ManualClock(), new FaultyFiles()];
  const options = { bounds, clock, files: faulty.files, countsOnStart: false };
  await using first = await openFileStore(path, options);
  assertEquals(await drive(clock, faulty, put(first, 0, 20)), 20);
  using held = await hostFileSystem.lock(join(path, "tmp", "usage.ledger"), {
    create: false,
    mode,
  });
  assert(held !== undefined);
  for (let i = 1; i <= 12; i++) {
    // Closing a writer waits for the ledger.
    const writer = await openFileStore(path, { ...options, onError: () => {} });
    assertEquals(await drive(clock, faulty, put(writer, 1000 * i, 10)), 10);
    await drive(clock, faulty, writer[Symbol.asyncDispose]());
    assertLessOrEqual(await diskBytesIn(path), CAPACITY);
  }
});

Deno.test("stores continue while a suspended process holds the eviction lock", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const [clock, faulty] = [new ManualClock(), new FaultyFiles()];
  await using store = await openFileStore(path, { bounds, clock, files: faulty.files });
  assertEquals(await put(store, 0, 60), 60);
  {
    using held = await hostFileSystem.lock(join(path, "tmp", "eviction.lock"), {
      create: false,
      mode,
    });
    assert(held !== undefined);
    for (let i = 0; i < 20; i++) {
      assertEquals(await drive(clock, faulty, put(store, 1000 + 8 * i)), 8);
      assertLessOrEqual(await diskBytesIn(path), CAPACITY);
    }
    assertMatch(problemsOf(store).join(), /eviction\.lock cannot be locked/);
  }
  for (let i = 0; i < 10; i++) assertEquals(await put(store, 3000 + 8 * i), 8);
  await faulty.settled();
  assertEquals(problemsOf(store), []);
  assertGreater(spaceOf(store).evictedObjects, 100);
});
