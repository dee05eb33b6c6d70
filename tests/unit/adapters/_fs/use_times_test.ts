import { assert, assertEquals, assertLessOrEqual } from "@std/assert";
import { ObjectPaths } from "../../../../adapters/_fs/object_paths.ts";
import { type Turnover, UseTimes } from "../../../../adapters/_fs/use_times.ts";
import { Bitmap } from "../../../../src/keys/bitmap.ts";
import type { ObjectKey } from "../../../../src/keys/object_key.ts";
import { ManualClock } from "../../../../src/testing/manual_clock.ts";
import { FaultyFiles, systemError } from "../../../support/faulty_files.ts";
import { testKeys } from "../../../support/objects.ts";
import { tempDirectory } from "../../../support/temp_directory.ts";

const OLD = new Date(1_600_000_000_000);
const keys = testKeys(5);

interface Opened extends AsyncDisposable {
  readonly times: UseTimes;
  readonly clock: ManualClock;
  readonly faulty: FaultyFiles;
  /** Turnover of the directory, which a test may change. */
  readonly turnover: { -readonly [Name in keyof Turnover]: Turnover[Name] };
  readonly pathOf: (key: ObjectKey) => string;
  /** Time of the last use of an object; `undefined` if it is long ago. */
  readonly usedAt: (key: ObjectKey) => number | undefined;
}

/** Records a lookup that found the first objects. */
function lookUp(times: UseTimes, keys: readonly ObjectKey[], found: number): void {
  times.lookedUp(keys, new Bitmap(keys.length, found));
}

async function open(present: readonly ObjectKey[] = keys): Promise<Opened> {
  const directory = await tempDirectory();
  const paths = new ObjectPaths({ basePath: directory.path, layout: "kvtier", shards: 0 });
  const pathOf = (key: ObjectKey) => paths.pathOf(key);
  for (const key of present) {
    await Deno.writeFile(pathOf(key), new Uint8Array(1));
    await Deno.utime(pathOf(key), OLD, OLD);
  }
  const clock = new ManualClock();
  const faulty = new FaultyFiles();
  const turnover = { storedBytes: 0, capacityBytes: 16_000 };
  const times = new UseTimes({ files: faulty.files, paths, clock, turnover: () => turnover });
  const usedAt = (key: ObjectKey): number | undefined => {
    const time = Deno.lstatSync(pathOf(key)).mtime?.getTime();
    return time === OLD.getTime() ? undefined : time;
  };
  const dispose = async (): Promise<void> => {
    await times.close();
    assertEquals(clock.pendingTimers, 0);
    await directory[Symbol.asyncDispose]();
  };
  return { times, clock, faulty, turnover, pathOf, usedAt, [Symbol.asyncDispose]: dispose };
}

Deno.test("uses are recorded after a delay, with the front of a chain as the youngest", async () => {
  await using opened = await open();
  const { times, clock, faulty, usedAt } = opened;
  const start = Date.now();
  lookUp(times, keys, 4);
  await clock.advance(999);
  await faulty.settled();
  assertEquals([faulty.calls.length, clock.pendingTimers], [0, 1]);
  await clock.advance(1);
  await faulty.settled();
  const noted = keys.slice(0, 4).map(usedAt);
  assert(noted.every((time) => time !== undefined));
  const [first = 0] = noted;
  assert(first >= start - 1 && first <= Date.now());
  assertEquals(noted, [first, first - 1, first - 2, first - 3]);
  assertEquals(opened.usedAt(keys[4] as ObjectKey), undefined);
});

Deno.test("a recently used chain is not recorded again, unless it is longer", async () => {
  await using opened = await open();
  const { times, clock, faulty } = opened;
  lookUp(times, keys, 3);
  await clock.advance(1000);
  await faulty.settled();
  faulty.arm(() => undefined);
  lookUp(times, keys, 3);
  await clock.advance(1000);
  await faulty.settled();
  assertEquals(faulty.calls, []);
  lookUp(times, keys, 4);
  await clock.advance(1000);
  await faulty.settled();
  assertEquals(faulty.calls.length, 4);
  await clock.advance(60_000);
  lookUp(times, keys, 4);
  await clock.advance(1000);
  await faulty.settled();
  assertEquals(faulty.calls.length, 8);
});

Deno.test("a missing object of a chain gets the time of its place when it is stored", async () => {
  await using opened = await open();
  const { times, clock, faulty, usedAt } = opened;
  lookUp(times, keys, 0);
  assert(keys.every((key) => times.wasMissing(key)));
  times.stored(keys.slice(2).toReversed());
  assert(!times.wasMissing(keys[4] as ObjectKey) && times.wasMissing(keys[0] as ObjectKey));
  times.stored(testKeys(3, 100));
  await clock.advance(1000);
  await faulty.settled();
  const [a = 0, b = 0, c = 0] = keys.slice(2).map(usedAt);
  assertEquals([a - b, b - c], [1, 1]);
  assertEquals(keys.slice(0, 2).map(usedAt), [undefined, undefined]);
  assertEquals(faulty.calls.length, 3);
});

Deno.test("an object removed meanwhile is no problem", async () => {
  await using opened = await open(keys.slice(0, 2));
  const { times, clock, faulty, usedAt } = opened;
  lookUp(times, [...keys.slice(2), ...keys.slice(0, 2)], 5);
  await clock.advance(1000);
  await faulty.settled();
  assert(keys.slice(0, 2).every((key) => usedAt(key) !== undefined));
});

Deno.test("the target of a link in place of an object keeps its time", async () => {
  await using opened = await open([]);
  const { times, pathOf } = opened;
  const target = `${pathOf(keys[0] as ObjectKey)}.target`;
  await Deno.writeFile(target, new Uint8Array(1));
  await Deno.utime(target, OLD, OLD);
  await Deno.symlink(target, pathOf(keys[0] as ObjectKey));
  lookUp(times, keys, 1);
  await times.close();
  assertEquals((await Deno.stat(target)).mtime, OLD);
});

Deno.test("with a fast turnover a chain is recorded again sooner, and without a delay", async () => {
  await using opened = await open();
  const { times, clock, faulty, turnover } = opened;
  lookUp(times, keys, 3);
  await clock.advance(1000);
  await faulty.settled();
  faulty.arm(() => undefined);
  turnover.storedBytes += 999;
  lookUp(times, keys, 3);
  assertEquals(clock.pendingTimers, 0);
  turnover.storedBytes += 1;
  lookUp(times, keys, 3);
  assertEquals([faulty.calls.length, clock.pendingTimers], [0, 1]);
  // After 1/64 of the capacity was stored, the next use starts a write.
  turnover.storedBytes += 250;
  lookUp(times, keys, 3);
  await faulty.settled();
  assertEquals([faulty.calls.length, clock.pendingTimers], [3, 0]);
});

Deno.test("objects found after a gap count as used", async () => {
  await using opened = await open();
  const { times, clock, faulty, usedAt } = opened;
  times.lookedUp(keys, Bitmap.of(5, [0, 2, 3]));
  assertEquals(keys.map((key) => times.wasMissing(key)), [false, true, false, false, true]);
  await clock.advance(1000);
  await faulty.settled();
  const [first = 0, ...others] = keys.map(usedAt);
  assertEquals(others, [undefined, first - 2, first - 3, undefined]);
});

Deno.test("on a read-only file system, recording pauses after the first error", async () => {
  await using opened = await open();
  const { times, clock, faulty, usedAt } = opened;
  faulty.arm(() => systemError("EROFS"));
  lookUp(times, keys, 5);
  await clock.advance(1000);
  await faulty.settled();
  assertLessOrEqual(faulty.calls.length, 2);
  faulty.disarm();
  lookUp(times, testKeys(5, 50), 5);
  assertEquals(clock.pendingTimers, 0);
  // After the pause, the file system may be writable again.
  await clock.advance(60_000);
  lookUp(times, keys, 5);
  await clock.advance(1000);
  await faulty.settled();
  assert(keys.every((key) => usedAt(key) !== undefined));
});

Deno.test("another user's object only loses its own time, unless there are many", async () => {
  for (const code of ["EACCES", "EPERM"]) {
    await using opened = await open();
    const { times, clock, faulty, usedAt } = opened;
    let refused = 2;
    faulty.arm(() => refused-- > 0 ? systemError(code) : undefined);
    lookUp(times, keys, 5);
    await clock.advance(1000);
    await faulty.settled();
    assertEquals(keys.filter((key) => usedAt(key) !== undefined).length, 3);
    faulty.arm(() => systemError(code));
    lookUp(times, testKeys(2000, 100), 2000);
    await clock.advance(1000);
    await faulty.settled();
    assertLessOrEqual(faulty.calls.length, 1002);
    lookUp(times, testKeys(5, 50), 5);
    assertEquals(clock.pendingTimers, 0);
  }
});

Deno.test("close() writes pending times, and later uses are ignored", async () => {
  await using opened = await open();
  const { times, clock, usedAt } = opened;
  lookUp(times, keys, 5);
  await times.close();
  assert(keys.every((key) => usedAt(key) !== undefined));
  // A lookup may end after the adapter has closed.
  lookUp(times, testKeys(5, 50), 5);
  times.stored(testKeys(5, 50));
  assertEquals(clock.pendingTimers, 0);
});

Deno.test("the number of pending times is bounded", async () => {
  await using opened = await open([]);
  const { times, faulty } = opened;
  const many = testKeys(20_000);
  for (let i = 0; i < 8; i++) {
    const part = many.slice(2500 * i, 2500 * (i + 1));
    for (let repeat = 0; repeat < 20; repeat++) {
      lookUp(times, part, part.length);
      // Other chains displace this one among the remembered chains.
      lookUp(times, [part[repeat] as ObjectKey], 1);
    }
  }
  faulty.arm(() => systemError("ENOENT"));
  await times.close();
  assertLessOrEqual(faulty.calls.length, 65_536 + 2500);
});
