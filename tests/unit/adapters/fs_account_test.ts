import { assert, assertEquals, assertGreater, assertLessOrEqual, assertMatch } from "@std/assert";
import { join } from "@std/path";
import type { DiskSpaceStatus } from "../../../adapters/_fs/disk_space.ts";
import type { FileStore } from "../../../adapters/_fs/file_store.ts";
import { hostFileSystem } from "../../../adapters/_fs/file_system.ts";
import type { LedgerState } from "../../../adapters/_fs/ledger_state.ts";
import { UsageLedger } from "../../../adapters/_fs/usage_ledger.ts";
import { systemClock } from "../../../src/runtime/clock.ts";
import { systemRandom } from "../../../src/runtime/random.ts";
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
  return await ledgerOf(basePath).peek();
}

async function put(store: FileStore, first: number, count = 8): Promise<number> {
  const objects = testKeys(count, first).map((key) => testObject(key, 1000));
  return (await store.store(objects, call)).stored.popcount();
}

function problemsOf(store: FileStore): readonly string[] {
  return store.reportStatus()["problems"] as string[];
}

/** Moves a clock on until some work is done. */
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

/** Removes what may not be there. */
async function remove(...paths: string[]): Promise<void> {
  for (const path of paths) {
    await Deno.remove(path, { recursive: true }).catch((error: unknown) => {
      // A writer may add a file meanwhile.
      if (!/os error (2|39)/.test(String(error))) throw error;
    });
  }
}

const replacements: Record<string, (path: string) => Promise<void>> = {
  "its account": (path) => remove(join(path, "tmp", "usage.ledger")),
  "its tmp": (path) => remove(join(path, "tmp")),
  "the whole directory": (path) => remove(path),
  async "its account by an older copy"(path) {
    const ledger = join(path, "tmp", "usage.ledger");
    await Deno.copyFile(ledger, `${ledger}.old`).catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 20));
    await Deno.rename(`${ledger}.old`, ledger).catch(() => {});
  },
};

for (const [what, replace] of Object.entries(replacements)) {
  Deno.test(`stores that lose ${what} in use keep to the capacity`, async () => {
    await using directory = await tempDirectory();
    const path = join(directory.path, "base");
    await using stack = new AsyncDisposableStack();
    const stores = await Promise.all(Array.from({ length: 3 }, async () =>
      // A store may fail when its directory is gone: the next one works.
      stack.use(await openFileStore(path, { bounds, onError: () => {} }))));
    let isOver = false;
    let stored = 0;
    let most = 0;
    let looks = 0;
    const work = stores.map(async (store, s) => {
      for (let i = 0; !isOver; i++) {
        stored += await put(store, 100_000 * s + 8 * i);
        if (i % 5 === 4) await store.delete(testKeys(3, 100_000 * s + 8 * i), call);
      }
    });
    const watching = (async () => {
      while (!isOver) {
        await new Promise((resolve) => setTimeout(resolve, 5));
        most = Math.max(most, await diskBytesIn(path).catch(() => 0));
        const state = await stateIn(path);
        if (state !== undefined) looks++;
        assert((state?.used ?? 0) >= 0 && (state?.used ?? 0) <= 2 * CAPACITY, `${state?.used}`);
      }
    })();
    for (let round = 0; round < 5; round++) {
      const enough = stored + 60;
      while (stored < enough) await new Promise((resolve) => setTimeout(resolve, 1));
      await replace(path);
    }
    isOver = true;
    await Promise.all([...work, watching]);
    await stack.disposeAsync();
    // What was granted after a copy was made is known to those that it was granted to; and what two
    // wrote while a third made an account is in it when they ask for more.
    assertLessOrEqual(most, what.includes("copy") ? 1.5 * CAPACITY : CAPACITY + 2 * 8 * DISK_BYTES);
    assertGreater(looks, 5);
    // What is left is known, or found out now, and the account is a good one.
    await using last = await openFileStore(path, { bounds });
    await waitUntil(async () => (await stateIn(path))?.countedAt !== 0);
    assertGreater(await put(last, 900_000), 0);
    const used = (await stateIn(path))?.used ?? 0;
    assertLessOrEqual(await diskBytesIn(path), used);
  });
}

Deno.test("a writer enters what it has in an account that was made anew by others", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const noop = { capacityBytes: 1000 * DISK_BYTES };
  await using one = await openFileStore(path, { bounds: noop });
  // Takes much in advance: the stores that follow do not ask.
  await put(one, 0, 1);
  const leased = Object.values((await stateIn(path))?.leases ?? {}).reduce((a, b) => a + b, 0);
  await Deno.remove(join(path, "tmp", "usage.ledger"));
  await using other = await openFileStore(path, { bounds: noop });
  await put(other, 100, 4);
  assertGreater(leased, 0);
  await put(one, 200, 200);
  const { used = 0, granted = 0, credited = 0 } = await stateIn(path) ?? {};
  assertLessOrEqual(await diskBytesIn(path), used);
  assert(used >= 0 && granted >= 0 && credited >= 0);
});

Deno.test("what was removed from another account is not taken from a new one", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const faulty = new FaultyFiles();
  await using store = await openFileStore(path, { bounds, files: faulty.files });
  assertEquals(await put(store, 0, 60), 60);
  await using other = await openFileStore(path, { bounds });
  // Between the removal and the report of it, the account is made anew, without what is gone.
  let isReplaced = false;
  const files = {
    ...hostFileSystem,
    async remove(file: string) {
      await hostFileSystem.remove(file);
      if (isReplaced || !file.endsWith(".data")) return;
      isReplaced = true;
      await Deno.remove(join(path, "tmp", "usage.ledger"));
      await other.store(testKeys(1, 500).map((key) => testObject(key, 1000)), call);
    },
  };
  await using third = await openFileStore(path, { bounds, files });
  await third.store(testKeys(1, 600).map((key) => testObject(key, 1000)), call);
  assertEquals((await third.delete(testKeys(1), call)).deleted.popcount(), 1);
  assert(isReplaced);
  assertLessOrEqual(await diskBytesIn(path), (await stateIn(path))?.used ?? 0);
});

Deno.test("stores go on while a stopped process holds the account, within bounds", async () => {
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

Deno.test("without eviction, a held account leaves each writer its part of what was left", async () => {
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
  // Half of what the 40 objects left, for two writers and one more.
  assert(stored >= 15 && stored <= 21, `${stored}`);
  assertMatch(String(errors[0]), /held by others/);
});

Deno.test("writers that open while the account is held keep to the capacity", async () => {
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
    // Closing one waits for the account.
    const writer = await openFileStore(path, { ...options, onError: () => {} });
    assertEquals(await drive(clock, faulty, put(writer, 1000 * i, 10)), 10);
    await drive(clock, faulty, writer[Symbol.asyncDispose]());
    assertLessOrEqual(await diskBytesIn(path), CAPACITY);
  }
});

Deno.test("stores go on while a stopped process holds the lock of evictions", async () => {
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
  const { evictedObjects } = store.reportStatus()["space"] as DiskSpaceStatus;
  assertGreater(evictedObjects, 100);
});
