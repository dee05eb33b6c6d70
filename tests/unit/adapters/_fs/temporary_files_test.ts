import { assert, assertEquals, assertMatch } from "@std/assert";
import { join } from "@std/path";
import { hostFileSystem } from "../../../../adapters/_fs/file_system.ts";
import { TemporaryFiles } from "../../../../adapters/_fs/temporary_files.ts";
import { type Clock, systemClock } from "../../../../src/base/clock.ts";
import { ManualClock } from "../../../../src/testing/manual_clock.ts";
import { FaultyFiles, systemError } from "../../../support/faulty_files.ts";
import { filesIn } from "../../../support/fs_adapter.ts";
import { tempDirectory } from "../../../support/temp_directory.ts";

const MINUTE = 60_000;
const HOUR = 3_600_000;
const never = new AbortController().signal;
const DEAD = "77-0123456789abcdef";
const OTHER = "78-fedcba9876543210";

function temporaryIn(
  path: string,
  files = hostFileSystem,
  places: string[] = [],
  clock: Clock = systemClock,
): TemporaryFiles {
  async function* all(): AsyncGenerator<string, void> {
    await Promise.resolve();
    yield* [path, ...places];
  }
  const isForeign = () => false;
  return new TemporaryFiles({ files, path, mode: 0o600, places: all, isForeign, clock });
}

/** Writes a file with a modification time in the past. */
async function put(path: string, ageMs: number, bytes = 5000): Promise<void> {
  await Deno.writeFile(path, new Uint8Array(bytes));
  const time = new Date(Date.now() - ageMs);
  await Deno.utime(path, time, time);
}

async function sweep(path: string, places?: string[]): Promise<{ freed: number; left: string[] }> {
  const temporary = temporaryIn(path, hostFileSystem, places);
  const freed = await temporary.sweep(never);
  return { freed, left: await filesIn(path) };
}

Deno.test("names are unique, and contain the tag of their writer", async () => {
  await using directory = await tempDirectory();
  const [a, b] = [temporaryIn(directory.path), temporaryIn(directory.path)];
  const names = Array.from({ length: 100 }, () => [a.next(), b.next(), a.next("/else")]).flat();
  assertEquals(new Set(names).size, 300);
  for (const name of names) assertMatch(name, /\/[0-9]+-[0-9a-f]{16}-[0-9a-z]+\.tmp$/);
  assert(a.next().startsWith(join(directory.path, a.tag)));
  assert(a.next("/else").startsWith(`/else/${a.tag}-`));
  assert(a.tag !== b.tag && a.tag.startsWith(`${Deno.pid}-`));
});

Deno.test("files of a living writer stay, however old they are", async () => {
  await using directory = await tempDirectory();
  const writer = temporaryIn(directory.path);
  await writer.announce();
  const path = writer.next();
  await put(path, 1000 * HOUR);
  const lock = join(directory.path, `${writer.tag}.lock`);
  await Deno.utime(lock, new Date(0), new Date(0));
  const { freed, left } = await sweep(directory.path);
  assertEquals([freed, left.length], [0, 2]);
  assertEquals(await temporaryIn(directory.path).isAlive(writer.tag), true);
  await writer.close();
  assertEquals(await temporaryIn(directory.path).isAlive(writer.tag), undefined);
});

Deno.test("files of a dead writer are removed at once, its lock file after a grace period", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  await put(join(path, `${DEAD}.lock`), 0, 0);
  await put(join(path, `${DEAD}-0.tmp`), 0);
  assertEquals(await temporaryIn(path).isAlive(DEAD), false);
  // A writer may be between creating and locking its lock file: only the age tells.
  assertEquals((await sweep(path)).left, [`${DEAD}.lock`]);
  await put(join(path, `${DEAD}.lock`), MINUTE - 5000, 0);
  assertEquals((await sweep(path)).left, [`${DEAD}.lock`]);
  await put(join(path, `${DEAD}.lock`), MINUTE + 5000, 0);
  assertEquals(await sweep(path), { freed: 0, left: [] });
});

Deno.test("without a lock file, files are removed after an hour", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  await put(join(path, `${DEAD}-0.tmp`), HOUR - MINUTE);
  await put(join(path, `${OTHER}-a1.tmp`), HOUR + MINUTE);
  const temporary = temporaryIn(path);
  assertEquals(await temporary.sweep(never), 8192);
  assertEquals([await filesIn(path), temporary.reclaimed.files], [[`${DEAD}-0.tmp`], 1]);
});

Deno.test("files with an invalid time count as old, unless the file system has no times", async () => {
  for (
    const [mtime, isKnown] of [[new Date(NaN), true], [new Date(8e15), true], [
      null,
      false,
    ]] as const
  ) {
    await using directory = await tempDirectory();
    const { path } = directory;
    await put(join(path, `${DEAD}-0.tmp`), 0);
    const lstat = async (file: string) => {
      const info = await hostFileSystem.lstat(file);
      return isKnown && !file.includes(DEAD) ? info : { ...info, mtime };
    };
    assertEquals(
      await temporaryIn(path, { ...hostFileSystem, lstat }).sweep(never),
      isKnown ? 8192 : 0,
    );
  }
});

Deno.test("foreign files stay, whatever their name and age", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const names = [
    "notes.tmp",
    "1-2-3.tmp",
    `${DEAD}.tmp`,
    `${DEAD}-.tmp`,
    `${DEAD}-A.tmp`,
    `${DEAD}-0.tmp.bak`,
    `x${DEAD}-0.tmp`,
    `${DEAD}-0.data`,
    `${DEAD.slice(0, -1)}-0.tmp`,
    `${DEAD}.lock.old`,
    "usage.ledger",
    "eviction.lock",
  ];
  for (const name of names) await put(join(path, name), 1000 * HOUR);
  await Deno.mkdir(join(path, `${DEAD}-1.tmp`));
  await Deno.symlink("/etc/passwd", join(path, `${DEAD}-2.tmp`));
  assertEquals((await sweep(path)).freed, 0);
  const entries = await Array.fromAsync(Deno.readDir(path));
  const left = entries.map(({ name }) => name).sort();
  assertEquals(left, [...names, `${DEAD}-1.tmp`, `${DEAD}-2.tmp`].sort());
});

Deno.test("all directories are swept, missing ones skipped", async () => {
  await using directory = await tempDirectory();
  const [a, b, c] = ["a", "b", "c"].map((name) => join(directory.path, name));
  assert(a !== undefined && b !== undefined && c !== undefined);
  for (const path of [a, c]) {
    await Deno.mkdir(path);
    await put(join(path, `${DEAD}-0.tmp`), 2 * HOUR);
  }
  assertEquals((await sweep(a, [b, c])).freed, 2 * 8192);
  assertEquals(await filesIn(directory.path), []);
});

Deno.test("a thousand abandoned files are removed, those of living writers stay", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const writer = temporaryIn(path);
  await writer.announce();
  const own = Array.from({ length: 5 }, () => writer.next());
  for (const file of own) await Deno.writeFile(file, new Uint8Array(1));
  await Deno.writeFile(join(path, `${DEAD}.lock`), new Uint8Array());
  for (let i = 0; i < 1000; i++) {
    await Deno.writeFile(join(path, `${DEAD}-${i.toString(36)}.tmp`), new Uint8Array(1));
  }
  const sweeper = temporaryIn(path);
  await sweeper.sweep(never);
  assertEquals(sweeper.reclaimed.files, 1000);
  const left = await filesIn(path);
  assertEquals(left.length, 5 + 2);
  await writer.close();
});

Deno.test("two concurrent sweeps do not disturb each other", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  for (let i = 0; i < 200; i++) await put(join(path, `${DEAD}-${i}.tmp`), 2 * HOUR, 1);
  const sweepers = Array.from({ length: 4 }, () => temporaryIn(path));
  await Promise.all(sweepers.map((sweeper) => sweeper.sweep(never)));
  assertEquals(await filesIn(path), []);
  assertEquals(sweepers.reduce((sum, { reclaimed }) => sum + reclaimed.files, 0), 200);
});

Deno.test("a file that cannot be removed does not stop the sweep", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  for (let i = 0; i < 5; i++) await put(join(path, `${DEAD}-${i}.tmp`), 2 * HOUR);
  const faulty = new FaultyFiles();
  faulty.arm(({ operation, path }) => {
    return operation === "remove" && path.endsWith("-2.tmp") ? systemError("EACCES") : undefined;
  });
  assertEquals(await temporaryIn(path, faulty.files).sweep(never), 4 * 8192);
  assertEquals(await filesIn(path), [`${DEAD}-2.tmp`]);
});

Deno.test("a sweep stops when its signal aborts", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  await put(join(path, `${DEAD}-0.tmp`), 2 * HOUR);
  assertEquals(await temporaryIn(path).sweep(AbortSignal.abort()), 0);
  assertEquals((await filesIn(path)).length, 1);
});

Deno.test("a writer locks a new file after its directory was removed", async () => {
  await using directory = await tempDirectory();
  const path = join(directory.path, "tmp");
  await Deno.mkdir(path);
  const writer = temporaryIn(path);
  await Promise.all([writer.announce(), writer.announce()]);
  await Deno.remove(path, { recursive: true });
  await Deno.mkdir(path);
  assertEquals(await temporaryIn(path).isAlive(writer.tag), undefined);
  await writer.announce();
  assertEquals(await temporaryIn(path).isAlive(writer.tag), true);
  await writer.close();
  assertEquals(await filesIn(path), []);
});

Deno.test("a writer reports that its lock file cannot be created, and tries again", async () => {
  await using directory = await tempDirectory();
  const faulty = new FaultyFiles();
  const writer = temporaryIn(directory.path, faulty.files);
  faulty.arm(({ operation }) => operation === "lock" ? systemError("EIO") : undefined);
  const failure = await writer.announce().catch((error: unknown) => error);
  assert(failure instanceof Error && failure.message.includes("EIO"));
  faulty.disarm();
  await writer.announce();
  await writer.close();
  assertEquals([await filesIn(directory.path), faulty.locked], [[], []]);
});

Deno.test("a writer waits for its lock while others test it", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const [clock, faulty] = [new ManualClock(), new FaultyFiles()];
  const writer = temporaryIn(path, faulty.files, [], clock);
  const lockPath = join(path, `${writer.tag}.lock`);
  let announcing: Promise<void>;
  {
    // Locked like by other writers that check whether this one lives.
    using held = await hostFileSystem.lock(lockPath, { create: true, mode: 0o600 });
    assert(held !== undefined);
    announcing = writer.announce();
    await faulty.settled();
    assertEquals(clock.pendingTimers, 1);
  }
  await clock.advance(10);
  await announcing;
  assertEquals(await temporaryIn(path).isAlive(writer.tag), true);
  await writer.close();
});

Deno.test("a writer reports that others keep its lock, and tries again", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const [clock, faulty] = [new ManualClock(), new FaultyFiles()];
  const writer = temporaryIn(path, faulty.files, [], clock);
  const lockPath = join(path, `${writer.tag}.lock`);
  {
    using held = await hostFileSystem.lock(lockPath, { create: true, mode: 0o600 });
    assert(held !== undefined);
    let isOver = false;
    const failure = writer.announce().catch((error: unknown) => error).finally(() => isOver = true);
    while (!isOver) {
      await clock.advance(10);
      await faulty.settled();
    }
    assertMatch(String(await failure), /locked by another process/);
  }
  await writer.announce();
  assertEquals(await temporaryIn(path).isAlive(writer.tag), true);
  await writer.close();
});

Deno.test("without lock support, only age decides", async () => {
  for (const code of ["ENOLCK", "EOPNOTSUPP", "ENOSYS"]) {
    await using directory = await tempDirectory();
    const { path } = directory;
    const faulty = new FaultyFiles();
    faulty.arm(({ operation }) => operation === "lock" ? systemError(code) : undefined);
    const writer = temporaryIn(path, faulty.files);
    await writer.announce();
    await put(writer.next(), 2 * HOUR);
    await put(join(path, `${DEAD}-0.tmp`), HOUR / 2);
    await put(join(path, `${OTHER}-0.tmp`), 2 * HOUR);
    assertEquals(await writer.isAlive(DEAD), undefined);
    assertEquals(await writer.sweep(never), 8192);
    assertEquals((await filesIn(path)).filter((name) => name.startsWith(OTHER)), []);
    assertEquals((await filesIn(path)).length, 2);
    await writer.close();
  }
});

Deno.test("abandoned bytes are those of writers that are dead, or given as dead", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const writer = temporaryIn(path);
  await writer.announce();
  await put(writer.next(), 0, 4096);
  await put(join(path, `${DEAD}-0.tmp`), 0, 8192);
  await put(join(path, `${OTHER}.lock`), 0, 0);
  await put(join(path, `${OTHER}-0.tmp`), 0, 12_288);
  const observer = temporaryIn(path);
  assertEquals(await observer.abandonedBytes(new Set(), never), 8192 + 12_288);
  assertEquals(await observer.abandonedBytes(new Set([writer.tag]), never), 4096 + 20_480);
  await writer.close();
});
