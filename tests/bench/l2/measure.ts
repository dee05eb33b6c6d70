import { Buffer } from "node:buffer";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import { seededRandom } from "../../support/random.ts";
import { time } from "../rows.ts";
import { allocateBuffers, type Buffers, keysOf } from "./objects.ts";
import { type LookupKind, type Operation, OPERATIONS } from "./row.ts";
import type { Shape } from "./shape.ts";
import type { BenchTarget, Round } from "./target.ts";

/** What one target took for one operation. */
export interface Samples {
  /** The target. */
  readonly target: BenchTarget;
  /** What. */
  readonly op: Operation;
  /** How keys were looked up. */
  readonly how?: LookupKind;
  /** Time of each round. */
  readonly ms: number[];
  /** Keys that were stored, found or loaded. */
  done: number;
  /** Keys that were to be stored or loaded, or that were looked up. */
  of: number;
}

/** How a {@linkcode measure} goes. */
export interface MeasureOptions {
  /** Rounds measured. */
  readonly rounds: number;
  /** Rounds before that. */
  readonly warmupRounds: number;
  /** Share of the keys looked up that are there. */
  readonly maxHitRate: number;
  /** Whether what the last round loaded is compared with what it stored. */
  readonly isVerified: boolean;
  /** What is measured. */
  readonly operations: readonly Operation[];
}

/** What a {@linkcode measure} found. */
export interface Measurement {
  /** Times, by target and operation. */
  readonly samples: readonly Samples[];
  /** What did not work, in words. */
  readonly failures: readonly string[];
}

/**
 * Runs every target in every round, so that what disturbs the machine disturbs all of them. Each
 * has keys of its own in each round, and its objects are gone before the next one starts.
 */
export async function measure(
  targets: readonly BenchTarget[],
  shape: Shape,
  options: MeasureOptions,
  buffers: Buffers = allocateBuffers(shape.numKeys * shape.inFlight, shape.objectBytes),
): Promise<Measurement> {
  const run = new Measuring(targets, shape, options, buffers);
  for (let round = -options.warmupRounds; round < options.rounds; round++) {
    await run.round(round);
  }
  return { samples: run.samples, failures: run.failures };
}

/** Indices in a different order per round, so that no target always follows the same one. */
function shuffled(count: number, round: number): number[] {
  const { below } = seededRandom(round);
  const indices = [...Array(count).keys()];
  for (let i = count - 1; i > 0; i--) {
    const j = below(i + 1);
    [indices[i], indices[j]] = [indices[j] ?? 0, indices[i] ?? 0];
  }
  return indices;
}

class Measuring {
  readonly samples: readonly Samples[];
  readonly failures: string[] = [];
  readonly #targets: readonly BenchTarget[];
  readonly #shape: Shape;
  readonly #options: MeasureOptions;
  readonly #buffers: Buffers;
  /** Makes the keys of this run differ from those of others in the same place. */
  readonly #id = crypto.randomUUID();

  constructor(
    targets: readonly BenchTarget[],
    shape: Shape,
    options: MeasureOptions,
    buffers: Buffers,
  ) {
    this.#targets = targets;
    this.#shape = shape;
    this.#options = options;
    this.#buffers = buffers;
    this.samples = targets.flatMap((target) =>
      OPERATIONS.filter((op) => options.operations.includes(op)).flatMap((op): Samples[] => {
        const samples = { target, op, done: 0, of: 0 };
        return op === "lookup"
          ? target.lookupKinds.map((how) => ({ ...samples, how, ms: [] }))
          : [{ ...samples, ms: [] }];
      })
    );
  }

  async round(number: number): Promise<void> {
    const { sources, readBack } = this.#buffers;
    for (const { payload } of [...sources, ...readBack]) {
      new DataView(payload.buffer).setInt32(4, number);
    }
    for (const index of shuffled(this.#targets.length, number)) {
      const target = this.#targets[index];
      if (target !== undefined) await this.#runTarget(target, number, index);
    }
  }

  async #runTarget(target: BenchTarget, number: number, index: number): Promise<void> {
    const { operations, isVerified, rounds } = this.#options;
    const keys = keysOf(`${this.#id} ${number} ${index}`, this.#buffers.sources.length);
    const absent = keysOf(`${this.#id} ${number} ${index} absent`, keys.length);
    const received = new Map<number, Uint8Array>();
    const hits = this.#hitsOf(Math.max(0, number));
    const round: Round = {
      buffers: this.#buffers,
      keys,
      lookups: this.#lookupsOf(keys, absent, hits),
      inFlight: this.#shape.inFlight,
      ...(isVerified ? { onLoaded: (at, payload) => void received.set(at, payload) } : {}),
    };
    const note = async (
      op: Operation,
      run: () => Promise<number>,
      expected: number,
      how?: LookupKind,
    ): Promise<void> => {
      let done = 0;
      const wallMs = await time(async () => done = await run());
      const ms = target.ownMs ?? wallMs;
      if (done !== expected) this.#fail(target, `${op} of ${done} of ${expected} keys`);
      const samples = this.samples.find((one) =>
        one.target === target && one.op === op && one.how === how
      );
      if (number < 0 || samples === undefined) return;
      samples.ms.push(ms);
      samples.done += done;
      samples.of += keys.length;
    };
    const expectedHits = hits.reduce((sum, count) => sum + count, 0);
    await note("store", () => target.store(round), keys.length);
    if (operations.includes("lookup")) {
      for (const how of target.lookupKinds) {
        await note("lookup", () => target.lookup(round, how), expectedHits, how);
      }
    }
    if (operations.includes("load")) {
      const isCompared = isVerified && number === rounds - 1;
      if (isCompared) {
        const { loaded, aligned } = this.#buffers;
        for (const { payload } of [...loaded, ...aligned]) payload.fill(0);
      }
      await target.prepareLoad?.(round);
      await note("load", () => target.load(round), keys.length);
      if (isCompared) this.#compare(target, received);
    }
    await target.clear(round);
    // What the file system has left to do is not to slow the next target down.
    await new Deno.Command("sync").output();
  }

  /** Keys that are there, of each call of a round: over all rounds, the share that is asked for. */
  #hitsOf(round: number): number[] {
    const { numKeys, inFlight } = this.#shape;
    const before = (call: number): number => Math.floor(call * numKeys * this.#options.maxHitRate);
    return Array.from({ length: inFlight }, (_, i) => {
      const call = round * inFlight + i;
      return before(call + 1) - before(call);
    });
  }

  #lookupsOf(
    keys: readonly ObjectKey[],
    absent: readonly ObjectKey[],
    hits: readonly number[],
  ): ObjectKey[] {
    const { numKeys } = this.#shape;
    return hits.flatMap((count, call) => {
      const start = call * numKeys;
      return [...keys.slice(start, start + count), ...absent.slice(start + count, start + numKeys)];
    });
  }

  #compare(target: BenchTarget, received: ReadonlyMap<number, Uint8Array>): void {
    const { sources, loaded } = this.#buffers;
    const wrong = sources.filter(({ payload }, i) => {
      const bytes = received.get(i) ?? loaded[i]?.payload ?? new Uint8Array();
      return Buffer.compare(payload, bytes) !== 0;
    });
    if (wrong.length > 0) {
      this.#fail(target, `verification: ${wrong.length} of ${sources.length} objects differ`);
    }
  }

  #fail(target: BenchTarget, what: string): void {
    const { objectBytes } = this.#shape;
    const reason = target.lastError === undefined ? "" : `: ${target.lastError}`;
    this.failures.push(`${target.name}, objects of ${objectBytes} bytes: ${what}${reason}`);
  }
}
