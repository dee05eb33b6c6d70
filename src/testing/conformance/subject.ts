import { Buffer } from "node:buffer";
import { assert, assertEquals } from "@std/assert";
import { deadline } from "@std/async";
import type { Bitmap } from "../../keys/bitmap.ts";
import type { ObjectKey } from "../../keys/object_key.ts";
import type { AdapterCapabilities, L2Adapter, L2AdapterModule } from "../../l2/adapter.ts";
import { parseAdapterConfig } from "../../l2/adapter_config.ts";
import type { AdapterError } from "../../l2/adapter_error.ts";
import { AdapterRegistry } from "../../l2/adapter_registry.ts";
import { withOpen } from "../../l2/open_inner.ts";
import { systemClock, wait } from "../../runtime/clock.ts";
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
  /**
   * What the author claims, which must be what the adapter declares. What is claimed is tested;
   * left out, what is declared is.
   */
  readonly capabilities?: AdapterCapabilities;
  /**
   * Makes the configuration for a case about eviction: an empty store of about so many bytes.
   * Left out, an adapter that evicts is not tested in that.
   */
  readonly boundedConfig?: (
    capacityBytes: number,
  ) => ConformanceSetup | PromiseLike<ConformanceSetup>;
  /** The adapters that it can open by their types, if it wraps another one. @default {[]} */
  readonly adapters?: readonly L2AdapterModule[];
  /** After this time a case that hangs fails, in milliseconds. @default {60000} */
  readonly deadlineMs?: number;
}

/** One promise of the contract. */
export interface SubjectCase {
  /** What is promised. */
  readonly name: string;
  /** Throws if the adapter does not keep it. */
  readonly check: (subject: Subject) => void | Promise<void>;
  /** Bytes of the store that it needs, if it is about one that is bounded. */
  readonly capacityBytes?: number;
}

/** An adapter under test, open and empty, with shorthands for what most cases do. */
export class Subject implements AsyncDisposable {
  /** The module that made the adapter. */
  readonly module: L2AdapterModule;
  /** What the adapter reported as failures. */
  readonly errors: AdapterError[] = [];
  /** Ids of the objects that the adapter says it evicted. */
  readonly evicted = new Set<string>();
  /** What its author claims. */
  readonly claims: AdapterCapabilities | undefined;
  /** After this time a case that hangs fails, in milliseconds. */
  readonly deadlineMs: number;
  readonly #config: Readonly<Record<string, unknown>>;
  readonly #registry: AdapterRegistry;
  #adapter: L2Adapter | undefined;

  constructor(options: AdapterConformanceOptions, config: Readonly<Record<string, unknown>>) {
    const { module, capabilities, adapters = [], deadlineMs = CASE_DEADLINE_MS } = options;
    this.module = module;
    this.claims = capabilities;
    this.deadlineMs = deadlineMs;
    this.#config = config;
    this.#registry = new AdapterRegistry({
      builtIn: adapters.map((other) => ({
        name: other.type,
        origin: "options.adapters",
        load: () => Promise.resolve({ default: other }),
      })),
    });
  }

  /** The adapter. */
  get adapter(): L2Adapter {
    if (this.#adapter === undefined) throw new Error("The adapter is not open");
    return this.#adapter;
  }

  /** What is tested: what its author claims, or else what it declares. */
  get promises(): AdapterCapabilities {
    return this.claims ?? this.adapter.capabilities;
  }

  /** Opens the adapter, which is closed before if it is open; `signal` aborts when it closes. */
  async restart(signal?: AbortSignal): Promise<void> {
    await this[Symbol.asyncDispose]();
    this.#adapter = await this.openAnother(signal);
  }

  /** Opens one more adapter with the same configuration, for the caller to close. */
  async openAnother(signal = new AbortController().signal): Promise<L2Adapter> {
    const values = parseAdapterConfig(this.module, this.#config);
    const environment = withOpen(this.#registry, {
      clock: systemClock,
      signal,
      l1Memory: { type: "host", maxObjectBytes: 2 ** 26, alignmentBytes: 256 },
      onError: (error) => this.errors.push(error),
      onEvicted: (keys) => {
        for (const { id } of keys) this.evicted.add(id);
      },
    });
    return await this.module.create(values as Record<string, never>, environment);
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
  options: AdapterConformanceOptions,
  { check, capacityBytes }: SubjectCase,
): Promise<void> {
  const { config, boundedConfig } = options;
  const makeConfig = capacityBytes === undefined
    ? config
    : boundedConfig && (() => boundedConfig(capacityBytes));
  if (makeConfig === undefined) return;
  await using cleanup = new AsyncDisposableStack();
  const setup = await makeConfig();
  cleanup.defer(async () => await setup[Symbol.asyncDispose]?.());
  const subject = cleanup.use(new Subject(options, setup.config));
  await subject.restart();
  await deadline((async () => await check(subject))(), subject.deadlineMs);
}

/** Lets everything that is due happen: whoever is late has the time to be so. */
export async function turns(count = 3): Promise<void> {
  for (let turn = 0; turn < count; turn++) await wait(systemClock, 0);
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
