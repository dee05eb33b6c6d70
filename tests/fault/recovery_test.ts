import { assert, assertEquals, assertLess } from "@std/assert";
import { join } from "@std/path";
import * as nodeFs from "node:fs";
import { concatParts } from "../../src/adapter/contract.ts";
import { fileOf } from "../support/fs_adapter.ts";
import { testKey, testLayout } from "../support/objects.ts";
import { runs } from "../support/runs.ts";
import { sealedObject } from "../support/sealed_objects.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { accountOf, allocationIn } from "./lab/accounts.ts";
import { printFigures } from "./lab/figures.ts";
import { LabProgram } from "./lab/program.ts";
import type { RecoveryOptions, RecoveryReport } from "./lab/recovery_options.ts";

// deno test -A tests/fault/recovery_test.ts -- [--runs OBJECTS]

const { numRuns: OBJECTS } = runs(20_000);
const PAYLOAD_BYTES = 1000;
/** With fewer objects, the memory of the runtime hides theirs. */
const MANY = 500_000;
const MOST_BYTES_AN_OBJECT = 200;
const STALE = 10_000;
const DEAD_WRITERS = 100;
/** The number of the only whole object; the others have a single byte. */
const WANTED = 17;
const program = new URL("./recover_directory.ts", import.meta.url);

/** Writes files at the paths of objects, as fast as possible. */
function writeObjects(basePath: string): void {
  nodeFs.mkdirSync(join(basePath, "tmp"));
  for (let shard = 0; shard < 256; shard++) {
    nodeFs.mkdirSync(join(basePath, shard.toString(16).padStart(2, "0")));
  }
  const byte = new Uint8Array(1);
  for (let n = 0; n < OBJECTS; n++) {
    const key = testKey(n);
    const isWanted = n === WANTED;
    const bytes = isWanted ? concatParts(sealedObject(key, testLayout(PAYLOAD_BYTES)).parts) : byte;
    nodeFs.writeFileSync(fileOf(basePath, key), bytes);
  }
}

/** Name of a temporary file of writer `n`. */
function temporaryName(writer: number, n: number): string {
  return `${tagOf(writer)}-${n.toString(36)}.tmp`;
}

function tagOf(writer: number): string {
  return `${100_000 + writer}-${writer.toString(16).padStart(16, "0")}`;
}

/** Opens a directory in a separate process. */
async function recover(basePath: string): Promise<RecoveryReport> {
  const options: RecoveryOptions = { basePath, wanted: WANTED, payloadBytes: PAYLOAD_BYTES };
  const flags = ["--v8-flags=--expose-gc"];
  await using child = await LabProgram.start(program, options, flags);
  return await child.stop() as RecoveryReport;
}

Deno.test(`a directory of ${OBJECTS} objects serves before it is counted`, async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  writeObjects(path);
  const { bytes } = allocationIn(path);
  const { failures, ...report } = await recover(path);
  assertEquals(failures, []);
  assert(report.isHit, "the object is served");
  assert(report.isCountingAtHit, "the object is served before all are counted");
  assertEquals(report.usedBytes, bytes, "what is counted is what is there");
  assertEquals((await accountOf(path))?.used, bytes, "and all processes know");
  const bytesAnObject = report.heapBytes / OBJECTS;
  if (OBJECTS >= MANY) assertLess(bytesAnObject, MOST_BYTES_AN_OBJECT);
  const again = await recover(path);
  assert(again.isHit && !again.failures.length);
  assertEquals(again.usedBytes, bytes, "what was counted lately is known");
  printFigures("recovery", {
    objects: OBJECTS,
    firstHitMs: Math.round(report.firstHitMs),
    countedMs: Math.round(report.countedMs),
    heapBytesAnObject: Math.round(bytesAnObject),
    rssBytesAnObject: Math.round(report.rssBytes / OBJECTS),
    countedMsAgain: Math.round(again.countedMs),
  });
});

Deno.test(`${STALE} temporary files of killed writers are removed once, others stay`, async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const tmp = join(path, "tmp");
  nodeFs.mkdirSync(tmp);
  const hoursAgo = (Date.now() - 2 * 3_600_000) / 1000;
  const write = (name: string, time?: number) => {
    nodeFs.writeFileSync(join(tmp, name), "x");
    if (time !== undefined) nodeFs.utimesSync(join(tmp, name), time, time);
  };
  // They are next to objects, or where a writer was configured to put them.
  nodeFs.mkdirSync(join(path, "00"));
  for (let n = 0; n < STALE; n++) {
    const name = temporaryName(n % DEAD_WRITERS, n);
    write(n % 2 === 0 ? name : join("..", "00", name), hoursAgo);
  }
  // Some writers had locks, which were released; others never had any.
  for (let writer = 0; writer < DEAD_WRITERS; writer += 2) write(`${tagOf(writer)}.lock`, hoursAgo);
  const living = DEAD_WRITERS;
  write(`${tagOf(living)}.lock`, hoursAgo);
  for (let n = 0; n < 10; n++) write(temporaryName(living, n), hoursAgo);
  // It is unknown whether this writer is alive.
  const unknown = DEAD_WRITERS + 1;
  for (let n = 0; n < 10; n++) write(temporaryName(unknown, n));
  write("notes.txt", hoursAgo);
  using lock = await Deno.open(join(tmp, `${tagOf(living)}.lock`), { write: true });
  assert(await lock.tryLock(true));
  const { reclaimed, failures, countedMs } = await recover(path);
  assertEquals(failures, []);
  assertEquals(reclaimed, STALE);
  const shared = ["eviction.lock", "notes.txt", "usage.ledger"];
  const expected = [
    `${tagOf(living)}.lock`,
    ...Array.from({ length: 10 }, (_, n) => temporaryName(living, n)),
    ...Array.from({ length: 10 }, (_, n) => temporaryName(unknown, n)),
    "notes.txt",
  ].sort();
  const left = nodeFs.readdirSync(tmp);
  assertEquals(
    left.filter((name) => name === "notes.txt" || !shared.includes(name)).sort(),
    expected,
  );
  assertEquals(allocationIn(path).temporaries, 20);
  assertEquals((await recover(path)).reclaimed, 0);
  printFigures("recovery, sweep", { stale: STALE, reclaimed, sweptMs: Math.round(countedMs) });
});
