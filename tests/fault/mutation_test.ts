import { Buffer } from "node:buffer";
import { assert, assertEquals, assertGreater } from "@std/assert";
import { hasHashedFileName } from "../../src/keys/key_codec.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import { concatParts } from "../../src/adapter/contract.ts";
import { AdapterGuard } from "../../src/l2/adapter_guard.ts";
import { DEFAULT_ADAPTER_TIMEOUTS } from "../../src/l2/adapter_status.ts";
import {
  type TrailerFault,
  verifyAnyLayout,
  verifyObject,
} from "../../src/adapter/object_trailer.ts";
import { ManualClock } from "../../src/testing/manual_clock.ts";
import { fileOf, openFs } from "../support/fs_adapter.ts";
import { testKey, testLayout } from "../support/objects.ts";
import { seededRandom } from "../support/random.ts";
import { runs } from "../support/runs.ts";
import { emptyObject, sealedObject } from "../support/sealed_objects.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { printFigures } from "./lab/figures.ts";
import { flip, MUTATIONS } from "./lab/mutations.ts";

// deno test -A tests/fault/mutation_test.ts -- [--runs MUTATIONS] [--seed S]

const { numRuns: MUTANTS, seed = Date.now() % 1_000_000 } = runs(100_000);
/** One in this number of seeded mutations, and of flips, is also made on disk. */
const DISK_SHARE = 50;
const PAYLOAD_BYTES = 2 ** 16;
const layout = testLayout(PAYLOAD_BYTES);

/** An object and another one of the same size. */
interface Subject {
  readonly key: ObjectKey;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly other: Uint8Array<ArrayBuffer>;
}

function subject(key: ObjectKey, other: ObjectKey): Subject {
  const [bytes, otherBytes] = [key, other].map((k) => concatParts(sealedObject(k, layout).parts));
  assert(bytes !== undefined && otherBytes !== undefined);
  return { key, bytes, other: otherBytes };
}

const long = { model: "m".repeat(256), cacheSalt: "s".repeat(128) };
const plain = subject(testKey(1), testKey(2));
/** An object with a hashed name, which therefore has the key before its trailer. */
const hashed = subject(testKey(1, long), testKey(2, long));

/** Counts damaged objects that pass verification. */
class Tally {
  /** Damaged objects. */
  damaged = 0;
  /** Those with wrong bytes that are served. */
  served = 0;
  /** Those with wrong bytes that would be served without the checksum of the payload. */
  servedUnchecked = 0;

  /** Checks bytes that differ from those of the subject. */
  add({ key, bytes }: Subject, damaged: Uint8Array): void {
    this.damaged++;
    const asSealed = verifyAnyLayout(key, bytes.length, [damaged]);
    const asLaidOut = verifyObject(key, layout, [damaged]);
    if (withoutPayload(asSealed) !== null && withoutPayload(asLaidOut) !== null) return;
    if (!hasOtherPayload(bytes, damaged)) return;
    this.servedUnchecked++;
    if (asSealed === null || asLaidOut === null) this.served++;
  }
}

/** The result of the same check without its last step, the checksum of the payload. */
function withoutPayload(fault: TrailerFault | null): TrailerFault | null {
  return fault === "payload-checksum" ? null : fault;
}

function hasOtherPayload(bytes: Uint8Array, damaged: Uint8Array): boolean {
  const [a, b] = [bytes, damaged].map((whole) => whole.subarray(0, PAYLOAD_BYTES));
  return a === undefined || b === undefined || Buffer.compare(a, b) !== 0;
}

/**
 * Number of flips of one bit that a check misses, and that it would miss without the checksum of
 * the payload.
 */
function missedFlips(
  bytes: Uint8Array,
  check: (bytes: Uint8Array) => TrailerFault | null,
): { flips: number; served: number; servedUnchecked: number } {
  const tally = { flips: bytes.length * 8, served: 0, servedUnchecked: 0 };
  const flipped = bytes.slice();
  for (let bit = 0; bit < tally.flips; bit++) {
    const [at, mask] = [bit >> 3, 1 << (bit & 7)];
    flipped[at] = (flipped[at] ?? 0) ^ mask;
    const fault = check(flipped);
    if (fault === null) tally.served++;
    if (withoutPayload(fault) === null) tally.servedUnchecked++;
    flipped[at] = (flipped[at] ?? 0) ^ mask;
  }
  return tally;
}

Deno.test("verifyObject() detects every single-bit flip in an object of 64 KiB", () => {
  const { key, bytes } = plain;
  const tally = missedFlips(bytes, (flipped) => verifyObject(key, layout, [flipped]));
  assertEquals(tally.served, 0);
  // The control: without the checksum of the payload, flips go unnoticed.
  assertEquals(tally.servedUnchecked, PAYLOAD_BYTES * 8);
  printFigures("bit flips", { payloadBytes: PAYLOAD_BYTES, ...tally });
});

for (const { key } of [plain, hashed]) {
  const name = hasHashedFileName(key) ? "hashed" : "spelled";
  Deno.test(`verifyAnyLayout() detects every flip in an object of 4 KiB, name ${name}`, () => {
    const bytes = concatParts(sealedObject(key, testLayout(4096)).parts);
    const { flips, served, servedUnchecked } = missedFlips(
      bytes,
      (flipped) => verifyAnyLayout(key, bytes.length, [flipped]),
    );
    assertEquals([served, servedUnchecked], [0, 4096 * 8]);
    printFigures("bit flips", { payloadBytes: 4096, name, flips, served, servedUnchecked });
  });
}

Deno.test("an object of 64 KiB is not served truncated at any length", () => {
  const figures = { lengths: 0, served: 0 };
  for (const subject of [plain, hashed]) {
    const tally = new Tally();
    for (let length = 0; length < subject.bytes.length; length++) {
      tally.add(subject, subject.bytes.subarray(0, length));
    }
    figures.lengths += tally.damaged;
    figures.served += tally.served;
  }
  assertEquals(figures.served, 0);
  printFigures("truncations", figures);
});

Deno.test(`${MUTANTS} mutations of objects are detected, seed ${seed}`, () => {
  const random = seededRandom(seed);
  const kinds = Object.entries(MUTATIONS);
  const tallies = new Map(kinds.map(([kind]) => [kind, new Tally()]));
  let done = 0;
  for (let n = 0; done < MUTANTS; n++) {
    const subject = n % 2 === 0 ? plain : hashed;
    const [kind, mutate] = kinds[n % kinds.length] ?? assertNever();
    const mutant = mutate(subject.bytes.slice(), random, subject.other);
    if (Buffer.compare(mutant, subject.bytes) === 0) continue;
    const tally = tallies.get(kind);
    tally?.add(subject, mutant);
    assertEquals(tally?.served, 0, `mutation ${n}: ${kind}`);
    done++;
  }
  const unchecked = [...tallies.values()].reduce((sum, tally) => sum + tally.servedUnchecked, 0);
  // The control: without the checksum of the payload, wrong bytes are served.
  assertGreater(unchecked, MUTANTS / 10);
  assertGreater(Math.min(...[...tallies.values()].map(({ damaged }) => damaged)), 0);
  printFigures("mutations", { seed, damaged: done, served: 0, servedUnchecked: unchecked });
});

Deno.test(`no guarded adapter serves damaged files, seed ${seed}`, async () => {
  const random = seededRandom(seed);
  await using directory = await tempDirectory();
  const guard = new AdapterGuard(await openFs({ base_path: directory.path }), {
    id: 0,
    type: "fs",
    clock: new ManualClock(),
    timeouts: DEFAULT_ADAPTER_TIMEOUTS,
  });
  await guard.store([plain, hashed].map(({ key }) => sealedObject(key, layout)));
  const kinds = Object.entries(MUTATIONS);
  const perKind = Math.ceil(MUTANTS / DISK_SHARE / kinds.length);
  const ways = [
    ...Array.from({ length: MUTANTS / DISK_SHARE }, () => ["flip", flip] as const),
    ...kinds.flatMap((kind) => Array.from({ length: perKind }, () => kind)),
  ];
  const figures = { damaged: 0, served: 0, notDamaged: 0 };
  const load = async (key: ObjectKey): Promise<Uint8Array | undefined> => {
    const object = emptyObject(key, layout);
    const { done } = await guard.load([object]);
    return done.test(0) ? concatParts(object.parts) : undefined;
  };
  for (const [n, [kind, mutate]] of ways.entries()) {
    const { key, bytes, other } = n % 2 === 0 ? plain : hashed;
    const mutant = mutate(bytes.slice(), random, other);
    await Deno.writeFile(fileOf(directory.path, key), mutant);
    const served = await load(key);
    if (Buffer.compare(mutant, bytes) === 0) {
      // Undamaged objects are served, so the mutated path is the right one.
      assert(served !== undefined);
      figures.notDamaged++;
      continue;
    }
    figures.damaged++;
    if (served !== undefined) figures.served++;
    assertEquals(served, undefined, `file ${n}: ${kind}`);
  }
  for (const { key, bytes } of [plain, hashed]) {
    await Deno.writeFile(fileOf(directory.path, key), bytes);
    assertEquals(Buffer.compare(await load(key) ?? new Uint8Array(), bytes), 0);
  }
  const { damagedObjects } = guard.reportStatus();
  await guard.close();
  printFigures("mutations on disk", { seed, ...figures, ...damagedObjects });
});

function assertNever(): never {
  throw new Error("There is no mutation");
}
