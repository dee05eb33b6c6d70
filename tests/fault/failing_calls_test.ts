import { assert, assertEquals, assertGreater } from "@std/assert";
import { deadline } from "@std/async";
import { basename } from "@std/path";
import type { FileStore } from "../../adapters/_fs/file_store.ts";
import { type FileSystem, hostFileSystem } from "../../adapters/_fs/file_system.ts";
import { ObjectPaths } from "../../adapters/_fs/object_paths.ts";
import { decodeFileName } from "../../src/keys/key_codec.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import { type AdapterObject, concatParts, type L2Adapter } from "../../src/adapter/contract.ts";
import { ManualClock } from "../../src/testing/manual_clock.ts";
import { FaultyFiles, systemError } from "../support/faulty_files.ts";
import {
  diskBytesIn,
  filesIn,
  openFileStore,
  temporaryFilesIn,
  testObject,
} from "../support/fs_adapter.ts";
import { testBytes, testKeys } from "../support/objects.ts";
import { runs } from "../support/runs.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { printFigures } from "./lab/figures.ts";

// deno test -A tests/fault/failing_calls_test.ts -- [--runs ERRORS-AT-EACH-CALL]

const CODES = ["EIO", "ENOSPC", "EACCES", "EROFS", "EMFILE", "ESTALE"];
/** Errors to inject into each call; the short form uses one per call in turn. */
const { numRuns: CODES_EACH } = runs(1);
const OBJECT_BYTES = 1000;
const DISK_BYTES = 4096;
const ROOMY = { capacityBytes: 2 ** 30, watermark: { high: 0.8, low: 0.6 } };
/** Space for eight objects, of which six may be stored. */
const NARROW = { capacityBytes: 8 * DISK_BYTES, watermark: { high: 0.8, low: 0.4 } };

const call = { signal: new AbortController().signal };
/** Objects stored before the failures. */
const held = testKeys(4);
const fresh = testKeys(4, 10);
/** Objects stored after the failures. */
const later = testKeys(3, 20);

/** An operation during which a call fails, and checks of its result. */
interface Scenario {
  readonly bounds?: typeof ROOMY;
  /** In the short form, only every n-th call fails. */
  readonly step?: number;
  /** Whether files of a killed writer exist. */
  readonly hasDead?: boolean;
  /** Whether calls fail from the opening. */
  readonly opens?: boolean;
  /** Whether the operation closes the store. */
  readonly closes?: boolean;
  readonly run: (store: FileStore, basePath: string) => Promise<void>;
}

const scenarios: Record<string, Scenario> = {
  "store of one": { run: storeAndCheck(fresh.slice(0, 1)) },
  "store of many": { step: 2, run: storeAndCheck([...held.slice(2), ...fresh]) },
  "store that evicts": {
    bounds: NARROW,
    step: 6,
    run: storeAndCheck([...fresh, ...testKeys(4, 30)]),
  },
  load: { run: (store) => loadAndCheck(store, [...held, ...fresh]).then(() => {}) },
  lookup: {
    async run(store, basePath) {
      for (const prefix of [true, false]) {
        const keys = [...held, ...fresh];
        const found = (await store.lookupAndLock(keys, { ...call, prefix })).gather(keys);
        for (const key of found) assert(isFile(basePath, key), "found, and not there");
        store.unlock(found);
      }
    },
  },
  delete: {
    async run(store, basePath) {
      const { deleted } = await store.delete(held.slice(0, 2), call);
      for (const key of deleted.gather(held.slice(0, 2))) assert(!isFile(basePath, key));
      for (const key of held.slice(2)) assert(isFile(basePath, key));
    },
  },
  list: {
    async run(store) {
      const ids = new Set(held.map(({ id }) => id));
      try {
        for await (const { key } of store.list(call)) assert(ids.delete(key.id), "not there");
        assertEquals(ids.size, 0);
      } catch (error) {
        assertFault(error);
      }
    },
  },
  usage: {
    async run(store) {
      try {
        const { objectCount, usedBytes } = await store.usage(call);
        assertEquals([objectCount, usedBytes], [held.length, held.length * OBJECT_BYTES]);
      } catch (error) {
        assertFault(error);
      }
    },
  },
  open: { opens: true, step: 2, run: storeAndCheck(fresh.slice(0, 1)) },
  sweep: { opens: true, step: 2, hasDead: true, run: () => Promise.resolve() },
  close: { closes: true, run: (store) => store[Symbol.asyncDispose]() },
};

function pathsIn(basePath: string): ObjectPaths {
  return new ObjectPaths({ basePath, layout: "kvtier", shards: 2 });
}

function isFile(basePath: string, key: ObjectKey): boolean {
  try {
    return Deno.lstatSync(pathsIn(basePath).pathOf(key)).isFile;
  } catch {
    return false;
  }
}

function assertFault(error: unknown): void {
  assert(
    error instanceof Error && "code" in error && CODES.includes(String(error.code)),
    `${error}`,
  );
}

function storeAndCheck(keys: readonly ObjectKey[]): Scenario["run"] {
  return async (store, basePath) => {
    const { stored, bytes } = await store.store(keys.map((key) => testObject(key)), call);
    assertEquals(bytes, stored.popcount() * OBJECT_BYTES);
    // Without free space, stored objects may have been evicted again.
    if (evictedBy(store) > 0) return;
    for (const key of stored.gather(keys)) assert(isFile(basePath, key), "stored, and not there");
  };
}

/** Loads objects, which must have the expected bytes of their keys. Returns the bits. */
async function loadAndCheck(store: L2Adapter, keys: readonly ObjectKey[]): Promise<string> {
  const rooms: AdapterObject[] = keys.map((key) => {
    const parts = [new Uint8Array(400), new Uint8Array(OBJECT_BYTES - 400)];
    return { key, parts, byteLength: OBJECT_BYTES };
  });
  const loaded = await store.load(rooms, call);
  for (const { key, parts } of loaded.gather(rooms)) {
    assertEquals(concatParts(parts), testBytes(key, OBJECT_BYTES));
  }
  return String(loaded);
}

/** Fails unless every object file has the expected bytes of its key. */
async function checkFiles(basePath: string): Promise<void> {
  for (const path of await filesIn(basePath)) {
    if (!path.endsWith(".data")) continue;
    const key = decodeFileName(basename(path));
    assert(key !== null);
    const bytes = await Deno.readFile(`${basePath}/${path}`);
    assertEquals(bytes, testBytes(key, OBJECT_BYTES), `${path} is not whole`);
  }
}

async function fill(basePath: string, { hasDead }: Scenario): Promise<void> {
  const paths = pathsIn(basePath);
  for (const key of held) {
    await Deno.mkdir(paths.directoryOf(key), { recursive: true, mode: 0o700 });
    await Deno.writeFile(paths.pathOf(key), testBytes(key, OBJECT_BYTES));
  }
  if (!hasDead) return;
  await Deno.mkdir(`${basePath}/tmp`);
  const tag = "1-00000000000000aa";
  const old = new Date(Date.now() - 7_200_000);
  const directories = [`${basePath}/tmp`, ...held.slice(2).map((key) => paths.directoryOf(key))];
  const dead = directories.map((path) => `${path}/${tag}-0.tmp`);
  for (const path of [...dead, `${basePath}/tmp/${tag}.lock`]) {
    await Deno.writeFile(path, new Uint8Array(10));
    await Deno.utime(path, old, old);
  }
}

function evictedBy(store: FileStore): number {
  return (store.reportStatus().space as { evictedObjects: number }).evictedObjects;
}

/** Runs one operation with one failure. */
async function tryOnce(
  scenario: Scenario,
  faulty: FaultyFiles,
  arm: () => void,
): Promise<void> {
  await using directory = await tempDirectory();
  const basePath = directory.path;
  await fill(basePath, scenario);
  const clock = new ManualClock();
  const open = () =>
    openFileStore(basePath, {
      files: faulty.files,
      shards: 2,
      durability: "full",
      ioConcurrency: 1,
      bounds: scenario.bounds ?? ROOMY,
      clock,
      onError: () => {},
    });
  if (scenario.opens) arm();
  const store = await open();
  try {
    await faulty.settled();
    if (!scenario.opens) arm();
    await scenario.run(store, basePath);
    await faulty.settled();
    faulty.disarm();

    await checkFiles(basePath);
    const kept = faulty.failed.filter(({ operation }) => operation === "remove");
    for (const path of await temporaryFilesIn(basePath)) {
      const isKept = kept.some((failed) => failed.path === `${basePath}/${path}`);
      assert(isKept || scenario.hasDead, `${path} is left`);
    }
    assertEquals(faulty.open, [], "files are open");
    assert(faulty.locked.every((path) => path.endsWith(".lock")), `${faulty.locked} are locked`);

    if (!scenario.closes) {
      // Stores are paused after a full disk.
      await clock.advance(60_000);
      const before = evictedBy(store);
      const { stored } = await store.store(later.map((key) => testObject(key)), call);
      assertEquals(String(stored), "111", "no service afterwards");
      await faulty.settled();
      const loaded = await loadAndCheck(store, later);
      const { deleted } = await store.delete(later.slice(0, 1), call);
      const left = await loadAndCheck(store, later);
      // After evictions, stored objects may be gone.
      if (evictedBy(store) === before) {
        assertEquals([loaded, String(deleted), left], ["111", "1", "011"]);
      }
    }
  } finally {
    faulty.disarm();
    await store[Symbol.asyncDispose]();
  }
  assertEquals([faulty.open, faulty.locked], [[], []], "open after the end");
  assertEquals(clock.pendingTimers, 0, "timers are left");
  await checkLater(basePath);
}

/** Asserts that remains of a failure are removed, and that the ledger never understates the usage. */
async function checkLater(basePath: string): Promise<void> {
  const before = await usedIn(basePath);
  if (before !== undefined) {
    assert(before >= await diskBytesIn(basePath), "the account says too little");
  }
  const old = new Date(Date.now() - 7_200_000);
  for (const path of await filesIn(basePath)) {
    if (/\.(tmp|lock)$/.test(path)) await Deno.utime(`${basePath}/${path}`, old, old);
  }
  const files = new FaultyFiles();
  const next = await openFileStore(basePath, { files: files.files, shards: 2 });
  await files.settled();
  await next[Symbol.asyncDispose]();
  assertEquals(await temporaryFilesIn(basePath), [], "temporary files are left for ever");
}

async function usedIn(basePath: string): Promise<number | undefined> {
  const text = await Deno.readTextFile(`${basePath}/tmp/usage.ledger`).catch(() => "");
  return text === "" ? undefined : JSON.parse(text.split("\n")[0] ?? "").used;
}

let tried = 0;

for (const [name, scenario] of Object.entries(scenarios)) {
  for (const isForEver of [false, true]) {
    const how = isForEver ? "every call from one on fails" : "one call fails";
    Deno.test(`${name}: ${how}in any call: no partial objects, no leaks, service resumes`, async () => {
      const isOver = new Set<string>();
      const step = CODES_EACH === 1 ? scenario.step ?? 1 : 1;
      for (let n = 0; isOver.size < CODES.length; n++) {
        const k = n * step + (isForEver ? step - 1 : 0);
        const codes = CODES.filter((code, i) => {
          return !isOver.has(code) && (i + n) % CODES.length < CODES_EACH;
        });
        for (const code of codes) {
          const faulty = new FaultyFiles();
          const arm = (): void =>
            faulty.arm(({ index }) => {
              return index === k || (isForEver && index > k) ? systemError(code) : undefined;
            });
          await deadline(tryOnce(scenario, faulty, arm), 20_000).catch((cause) => {
            const first = faulty.failed[0];
            const where = `call ${k} (${first?.operation} ${basename(first?.path ?? "")})`;
            throw new Error(`${code} at ${where}: ${cause}`, { cause });
          });
          tried++;
          // Call number k was not reached.
          if (faulty.failed.length === 0) isOver.add(code);
        }
        if (k > 2000) throw new Error("The calls never end");
      }
    });
  }
}

for (const maxBytes of [1, 7]) {
  Deno.test(`reads and writes of at most ${maxBytes} bytes transfer whole objects`, async () => {
    for (const readAheadBytes of [0, 5, 450]) {
      await using directory = await tempDirectory();
      const faulty = new FaultyFiles();
      faulty.maxBytes = maxBytes;
      const { files } = faulty;
      await using store = await openFileStore(directory.path, { files, readAheadBytes });
      const { stored } = await store.store(held.map((key) => testObject(key)), call);
      assertEquals(String(stored), "1111");
      await checkFiles(directory.path);
      assertEquals(await loadAndCheck(store, held), "1111");
      tried++;
    }
  });
}

Deno.test("a file that accepts no more bytes fails its object and leaves no file behind", async () => {
  await using directory = await tempDirectory();
  const faulty = new FaultyFiles();
  const errors: string[] = [];
  const onError = (error: Error) => void errors.push(error.message);
  await using store = await openFileStore(directory.path, { files: faulty.files, onError });
  await faulty.settled();
  faulty.maxBytes = 0;
  const { stored } = await store.store([testObject(held[0] as ObjectKey)], call);
  assertEquals([String(stored), errors.length], ["0", 1]);
  assertEquals([await temporaryFilesIn(directory.path), faulty.open], [[], []]);
  faulty.maxBytes = Infinity;
  const again = await store.store([testObject(held[0] as ObjectKey)], call);
  assertEquals(String(again.stored), "1");
  tried++;
});

Deno.test("a read that returns no bytes is a miss", async () => {
  await using directory = await tempDirectory();
  const faulty = new FaultyFiles();
  await using store = await openFileStore(directory.path, { files: faulty.files });
  await store.store(held.map((key) => testObject(key)), call);
  await faulty.settled();
  faulty.maxBytes = 0;
  assertEquals(await loadAndCheck(store, held), "0000");
  faulty.maxBytes = Infinity;
  assertEquals(await loadAndCheck(store, held), "1111");
  tried++;
});

/** Files that report complete writes for partial ones. */
function lyingFiles(faulty: FaultyFiles): FileSystem {
  return {
    ...faulty.files,
    async create(path, mode) {
      const file = await faulty.files.create(path, mode);
      return {
        write: async (bytes) => {
          await file.write(bytes);
          return bytes.byteLength;
        },
        flush: async () => await file.flush?.(),
        syncData: () => file.syncData(),
        [Symbol.dispose]: () => file[Symbol.dispose](),
      };
    },
  };
}

Deno.test("control: a store that ignores short writes is seen to publish partial objects", async () => {
  await using directory = await tempDirectory();
  const faulty = new FaultyFiles(hostFileSystem);
  faulty.maxBytes = 100;
  await using store = await openFileStore(directory.path, { files: lyingFiles(faulty) });
  const { stored } = await store.store(held.map((key) => testObject(key)), call);
  assertEquals(String(stored), "1111");
  const wrong = await checkFiles(directory.path).then(() => 0, () => 1);
  assertEquals([wrong, await loadAndCheck(store, held)], [1, "0000"]);
});

Deno.test("figures", () => {
  assertGreater(tried, 100);
  printFigures("failing calls", {
    runs: tried,
    errors: Math.min(CODES_EACH, CODES.length),
    wrong: 0,
  });
});
