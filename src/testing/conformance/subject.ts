import { Buffer } from "node:buffer";
import { assert, assertEquals } from "@std/assert";
import { deadline } from "@std/async";
import type { Bitmap } from "../../keys/bitmap.ts";
import type { ObjectKey } from "../../keys/object_key.ts";
import type { L2Adapter, L2AdapterModule } from "../../l2/adapter.ts";
import { parseAdapterConfig } from "../../l2/adapter_config.ts";
import type { AdapterError } from "../../l2/adapter_error.ts";
import { systemClock } from "../../runtime/clock.ts";
import { bytesOf, objectOf, roomFor, type Sample } from "./samples.ts";

/** After this time a case that hangs fails, in milliseconds. */
const CASE_DEADLINE_MS = 60_000;

/** The configuration for one case, and what there is to clean up after it. */
export interface ConformanceSetup {
  /** The configuration, without `type`. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Called when the adapters of the case are closed; left out if there is nothing to do. */
  [Symbol.asyncDispose]?(): PromiseLike<void>;
}

/** What a conformance suite tests. */
export interface AdapterConformanceOptions {
  /** The adapter module. */
  readonly module: L2AdapterModule;
  /** Makes the configuration for one case: a store that is empty and shared with no other case. */
  readonly config: () => ConformanceSetup | PromiseLike<ConformanceSetup>;
}

/** One promise of the contract. */
export interface SubjectCase {
  /** What is promised. */
  readonly name: string;
  /** Throws if the adapter does not keep it. */
  readonly check: (subject: Subject) => void | Promise<void>;
}

/** An adapter under test, open and empty, with shorthands for what most cases do. */
export class Subject implements AsyncDisposable {
  /** The module that made the adapter. */
  readonly module: L2AdapterModule;
  /** What the adapter reported as failures. */
  readonly errors: AdapterError[] = [];
  readonly #config: Readonly<Record<string, unknown>>;
  #adapter: L2Adapter | undefined;

  constructor(module: L2AdapterModule, config: Readonly<Record<string, unknown>>) {
    this.module = module;
    this.#config = config;
  }

  /** The adapter. */
  get adapter(): L2Adapter {
    if (this.#adapter === undefined) throw new Error("The adapter is not open");
    return this.#adapter;
  }

  /** Opens the adapter, which is closed before if it is open. */
  async restart(): Promise<void> {
    await this[Symbol.asyncDispose]();
    this.#adapter = await this.openAnother();
  }

  /** Opens one more adapter with the same configuration, for the caller to close. */
  async openAnother(): Promise<L2Adapter> {
    const values = parseAdapterConfig(this.module, this.#config);
    return await this.module.create(values as Record<string, never>, {
      clock: systemClock,
      signal: new AbortController().signal,
      l1Memory: { type: "host", maxObjectBytes: 2 ** 26, alignmentBytes: 256 },
      onError: (error) => this.errors.push(error),
    });
  }

  /** Closes the adapter. */
  async [Symbol.asyncDispose](): Promise<void> {
    const adapter = this.#adapter;
    this.#adapter = undefined;
    await adapter?.[Symbol.asyncDispose]();
  }

  /** Stores objects in one batch; all must be stored. */
  async store(samples: readonly Sample[]): Promise<void> {
    const objects = samples.map((sample) => objectOf(sample));
    const { stored } = await this.adapter.store(objects, call());
    assertEquals(bits(stored), "1".repeat(samples.length), "bits of the stored objects");
  }

  /** Which keys a lookup finds, as a string of bits; they are unlocked again. */
  async lookup(keys: readonly ObjectKey[], prefix = false): Promise<string> {
    const found = await this.adapter.lookupAndLock(keys, { ...call(), prefix });
    assertEquals(found.length, keys.length, "one bit a key");
    this.adapter.unlock?.(found.gather(keys));
    return bits(found);
  }

  /** The bytes under a key, or `null` for a miss. */
  async load({ key, bytes }: Sample, adapter = this.adapter): Promise<Uint8Array | null> {
    const room = roomFor(key, bytes.byteLength);
    const loaded = await adapter.load([room], call());
    assertEquals(loaded.length, 1, "one bit an object");
    return loaded.test(0) ? bytesOf(room) : null;
  }

  /** Loads objects in one batch; all must be there with their bytes. */
  async assertHeld(samples: readonly Sample[], adapter = this.adapter): Promise<void> {
    const rooms = samples.map(({ key, bytes }) => roomFor(key, bytes.byteLength));
    const loaded = await adapter.load(rooms, call());
    assertEquals(bits(loaded), "1".repeat(samples.length), "bits of the loaded objects");
    for (const [i, { key, bytes }] of samples.entries()) {
      const room = rooms[i];
      assert(room !== undefined && areEqual(bytesOf(room), bytes), `Wrong bytes under ${key.id}`);
    }
  }
}

/** Opens an adapter, checks it and closes everything again. */
export async function testSubject(
  { module, config }: AdapterConformanceOptions,
  check: (subject: Subject) => void | Promise<void>,
): Promise<void> {
  await using cleanup = new AsyncDisposableStack();
  const setup = await config();
  cleanup.defer(async () => await setup[Symbol.asyncDispose]?.());
  const subject = cleanup.use(new Subject(module, setup.config));
  await subject.restart();
  await deadline((async () => await check(subject))(), CASE_DEADLINE_MS);
}

/** Options of a call that nobody aborts. */
export function call(): { signal: AbortSignal } {
  return { signal: new AbortController().signal };
}

/** The bits of an answer as a string of `0` and `1`, by the part of its interface that is used. */
export function bits(bitmap: Bitmap): string {
  return Array.from({ length: bitmap.length }, (_, i) => bitmap.test(i) ? "1" : "0").join("");
}

/** Whether two arrays hold the same bytes; quick, where an assertion compares one by one. */
export function areEqual(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
