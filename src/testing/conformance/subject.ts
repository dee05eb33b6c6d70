import { assert, assertEquals } from "@std/assert";
import { deadline } from "@std/async";
import type { Bitmap } from "../../keys/bitmap.ts";
import type { ObjectKey } from "../../keys/object_key.ts";
import type {
  AdapterCapabilities,
  AdapterObject,
  L2Adapter,
  L2AdapterModule,
} from "../../adapter/contract.ts";
import type { AdapterError } from "../../adapter/errors.ts";
import { givenAdapter } from "../../l2/adapter_discovery.ts";
import { AdapterRegistry } from "../../l2/adapter_registry.ts";
import { checkValues } from "../../l2/adapter_config.ts";
import { openAdapter } from "../../l2/open_adapter.ts";
import { systemClock, wait } from "../../base/clock.ts";
import { MIB } from "../../base/units.ts";
import { areEqual, bytesOf, isFilled, keysOf, objectOf, type Sample, targetOf } from "./samples.ts";

/** A case that takes longer fails, in milliseconds. */
const CASE_DEADLINE_MS = 60_000;
/** Capacity of a bounded store, in bytes. */
export const CAPACITY_BYTES: number = 4 * MIB;

/** The configuration for one case and its cleanup. */
export interface ConformanceSetup {
  /** The configuration, without `type`; `serde` is applied, as in a cache. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Called after the adapters of the case are closed. */
  [Symbol.asyncDispose]?(): PromiseLike<void>;
}

/** Options of a conformance suite. */
export interface AdapterConformanceOptions {
  /** The adapter module. */
  readonly module: L2AdapterModule;
  /** Returns the configuration for one case: an empty store, not shared with other cases. */
  readonly config: () => ConformanceSetup | PromiseLike<ConformanceSetup>;
  /**
   * Capabilities that the adapter must declare. They are tested instead of the declared ones.
   *
   * @default {the capabilities that the adapter declares}
   */
  readonly capabilities?: AdapterCapabilities;
  /**
   * Returns the configuration for a case about eviction: an empty store with a capacity of about
   * `capacityBytes` bytes. Without it, eviction is not tested.
   */
  readonly boundedConfig?: (
    capacityBytes: number,
  ) => ConformanceSetup | PromiseLike<ConformanceSetup>;
  /** Adapters that the tested one can open by type, if it wraps another adapter. @default {[]} */
  readonly adapters?: readonly L2AdapterModule[];
  /** A case that takes longer fails, in milliseconds. @default {60000} */
  readonly deadlineMs?: number;
}

/** Throws if the adapter violates a requirement of the contract. */
export type Check = (subject: Subject) => void | Promise<void>;

/** Checks by requirement. */
export type Cases = Readonly<Record<string, Check>>;

/** An adapter under test, open and empty, with helpers for the cases. */
export class Subject implements AsyncDisposable {
  /** The module of the adapter. */
  readonly module: L2AdapterModule;
  /** Errors that the adapter reported. */
  readonly errors: AdapterError[] = [];
  /** Ids of the objects that the adapter reported as evicted. */
  readonly evicted = new Set<string>();
  /** Capabilities claimed in the options. */
  readonly claims: AdapterCapabilities | undefined;
  /** A case that takes longer fails, in milliseconds. */
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
    this.#registry = new AdapterRegistry({ builtIn: adapters.map(givenAdapter) });
  }

  /** The adapter. */
  get adapter(): L2Adapter {
    if (this.#adapter === undefined) throw new Error("The adapter is not open");
    return this.#adapter;
  }

  /** The capabilities to test: those claimed in the options, or else the declared ones. */
  get promises(): AdapterCapabilities {
    return this.claims ?? this.adapter.capabilities;
  }

  /** Closes the adapter if it is open, and opens it. `signal` aborts when the cache closes. */
  async restart(signal?: AbortSignal): Promise<void> {
    await this[Symbol.asyncDispose]();
    this.#adapter = await this.openAnother(signal);
  }

  /** Opens another adapter with the same configuration. The caller closes it. */
  async openAnother(signal = new AbortController().signal): Promise<L2Adapter> {
    const { adapter } = await openAdapter(checkValues(this.module, this.#config), {
      registry: this.#registry,
      clock: systemClock,
      signal,
      l1Memory: { type: "host", maxObjectBytes: 2 ** 26, alignmentBytes: 256 },
      onError: (error) => this.errors.push(error),
      onEvicted: (keys) => {
        for (const { id } of keys) this.evicted.add(id);
      },
    });
    return adapter;
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

  /** Looks up keys, unlocks those found, and returns the result as a string of bits. */
  async lookup(keys: readonly ObjectKey[], prefix = false): Promise<string> {
    const found = await this.adapter.lookupAndLock(keys, { ...call(), prefix });
    assertEquals(found.length, keys.length, "one bit a key");
    this.adapter.unlock?.(found.gather(keys));
    return bits(found);
  }

  /** Locks objects and returns the locked ones: storing a batch may evict some of its own objects. */
  async lock(samples: readonly Sample[]): Promise<Sample[]> {
    const found = await this.adapter.lookupAndLock(keysOf(samples), { ...call(), prefix: false });
    return found.gather(samples);
  }

  /** Unlocks objects. */
  unlock(samples: readonly Sample[]): void {
    this.adapter.unlock?.(keysOf(samples));
  }

  /**
   * Deletes objects; returns the result as a string of bits, and the number of freed bytes.
   *
   * @returns `undefined` if the adapter cannot delete.
   */
  async delete(keys: readonly ObjectKey[]): Promise<[deleted: string, bytes: number] | undefined> {
    const result = await this.adapter.delete?.(keys, call());
    return result && [bits(result.deleted), result.bytes];
  }

  /** The stored bytes of a key, or `null` for a miss. */
  async load(given: Sample, adapter = this.adapter): Promise<Uint8Array | null> {
    const target = targetOf(given);
    const loaded = await adapter.load([target], call());
    assertEquals(loaded.length, 1, "one bit an object");
    return loaded.test(0) ? bytesOf(target) : null;
  }

  /** Loads objects in one batch; all must be found and have the right bytes. */
  async assertStored(samples: readonly Sample[], adapter = this.adapter): Promise<void> {
    const targets = samples.map(targetOf);
    const loaded = await adapter.load(targets, call());
    assertEquals(bits(loaded), "1".repeat(samples.length), "bits of the loaded objects");
    assertFilled(loaded, targets, samples);
  }

  /** Loads an object, which must be a whole version or a miss; returns whether it is there. */
  async assertWhole(...versions: readonly [Sample, ...Sample[]]): Promise<boolean> {
    const [first] = versions;
    const found = await this.load(first);
    const isWhole = found === null || versions.some(({ bytes }) => areEqual(bytes, found));
    assert(isWhole, `Wrong bytes under ${first.key.id}`);
    return found !== null;
  }
}

/** Fails if the parts of a loaded object have other bytes than its sample. */
export function assertFilled(
  loaded: Bitmap,
  targets: readonly AdapterObject[],
  samples: readonly Sample[],
): void {
  for (const [i, each] of samples.entries()) {
    assert(!loaded.test(i) || isFilled(targets[i], each), `Wrong bytes under ${each.key.id}`);
  }
}

/**
 * Opens an adapter, runs a check and closes everything again.
 *
 * @param isBounded Whether it needs a bounded store; it passes if there is none.
 */
export async function testSubject(
  options: AdapterConformanceOptions,
  check: Check,
  isBounded: boolean,
): Promise<void> {
  const setup = await (isBounded ? options.boundedConfig?.(CAPACITY_BYTES) : options.config());
  if (setup === undefined) return;
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(async () => await setup[Symbol.asyncDispose]?.());
  const subject = cleanup.use(new Subject(options, setup.config));
  await subject.restart();
  await deadline((async () => await check(subject))(), subject.deadlineMs);
}

/** Runs turns of the event loop, so that late work of an adapter gets a chance to run. */
export async function turns(count = 3): Promise<void> {
  for (let turn = 0; turn < count; turn++) await wait(systemClock, 0);
}

/** Options of a call that is never aborted. */
export function call(): { signal: AbortSignal } {
  return { signal: new AbortController().signal };
}

/** A bitmap as a string of `0` and `1`. Uses only the methods that the cache uses. */
export function bits(bitmap: Bitmap): string {
  return Array.from({ length: bitmap.length }, (_, i) => bitmap.test(i) ? "1" : "0").join("");
}
