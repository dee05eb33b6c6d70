import {
  AdapterError,
  type AdapterObject,
  Bitmap,
  type CallOptions,
  Capacity,
  type CapacityBounds,
  type Clock,
  type FoundObject,
  type L2Adapter,
  type ListedObject,
  type ListOptions,
  type LoadOptions,
  type LookupOptions,
  type ObjectKey,
  type RemovalResult,
  type StoreResult,
  type TrailerFault,
} from "../../src/adapter/contract.ts";
import { Limiter, type LimiterOptions } from "../../src/base/limiter.ts";
import { Failures } from "./failures.ts";

/** Result of reading an object; a {@linkcode TrailerFault} if the server holds something else. */
export type ReadOutcome = "filled" | "absent" | TrailerFault;

/** Options that the stores of all protocols have. */
export interface RemoteOptions {
  /** Capacity that the adapter enforces; `undefined` if the server limits itself. */
  readonly bounds: CapacityBounds | undefined;
  readonly clock: Clock;
  /** Called with each failure that affects a key. */
  readonly onError: (error: AdapterError) => void;
  /** Called with the keys of evicted objects. */
  readonly onEvicted?: ((keys: readonly ObjectKey[]) => void) | undefined;
}

/** What distinguishes a protocol. */
export interface RemoteTraits {
  /** Adapter type that errors name. */
  readonly type: string;
  readonly capabilities: L2Adapter["capabilities"];
  /** Whether objects can be removed. */
  readonly canDelete: boolean;
  /** Whether objects can be listed. */
  readonly canList: boolean;
  /** Max objects per eviction call. */
  readonly removalBatch: number;
  /** Time between two counts of the objects, in milliseconds. */
  readonly recountMs: number;
  /** Limits of stores in flight. */
  readonly writes: LimiterOptions;
  /** Limits of everything else in flight. */
  readonly reads: LimiterOptions;
}

/** Records the failure of one object; does nothing after the call was aborted. */
export type OnFailure = (key: ObjectKey, cause: unknown) => void;

/** One call of `store`. */
export interface StoreCall {
  readonly objects: readonly AdapterObject[];
  readonly signal: AbortSignal;
  /** Whether the capacity has room for an object. */
  readonly hasRoom: (index: number) => boolean;
  /** Records that an object is stored, for which `bytes` were written. */
  readonly stored: (index: number, bytes: number) => void;
  /**
   * Records a failure. An object that may exist is counted; the next count corrects it if it does
   * not.
   */
  readonly failed: (index: number, cause: unknown, mayExist: boolean) => void;
}

/** One call of `lookupAndLock`. */
export interface LookupCall {
  readonly keys: readonly ObjectKey[];
  /** Whether only the keys before the first missing one count. */
  readonly isChain: boolean;
  readonly signal: AbortSignal;
  /** Records that an object does not exist. */
  readonly absent: (key: ObjectKey) => void;
  readonly failed: OnFailure;
}

/** Result of a lookup. */
export interface FoundKeys {
  /** The objects that exist. */
  readonly found: Bitmap;
  /** Number of keys looked up. */
  readonly asked: number;
}

/** One call of `load`. */
export interface LoadCall {
  readonly objects: readonly AdapterObject[];
  readonly allowShorter: boolean;
  readonly signal: AbortSignal;
  /** Records an outcome; does nothing after the call was aborted. */
  readonly settle: (index: number, outcome: ReadOutcome) => void;
  readonly failed: OnFailure;
}

/** One removal of objects. */
export interface RemoveCall {
  readonly keys: readonly ObjectKey[];
  readonly purpose: "delete" | "evict";
  readonly signal: AbortSignal;
  readonly failed: OnFailure;
}

/** One scan of the objects. */
export interface ScanCall {
  /** Lists only objects of this model; all models if left out. */
  readonly model?: string | undefined;
  /**
   * Bytes of an object that is counted already, so that its size need not be read; left out unless
   * the objects are being counted.
   */
  readonly bytesOf?: (key: ObjectKey) => number | undefined;
  readonly signal: AbortSignal;
  /** Called for each object whose key or size cannot be determined. */
  readonly onUnread: (reason: unknown) => void;
}

/**
 * Objects on a server. The base does what all protocols have in common: capacity, locks, bitmaps
 * and the report of failures; a protocol only moves bytes.
 */
export abstract class RemoteStore implements L2Adapter {
  readonly capabilities: L2Adapter["capabilities"];
  /** Removes objects that are not locked; absent if the server cannot delete. */
  readonly delete?: NonNullable<L2Adapter["delete"]>;
  /** Lists the objects; absent if the server cannot list. */
  readonly list?: NonNullable<L2Adapter["list"]>;
  /** Counted objects and bytes; absent without a capacity, because that would list everything. */
  readonly usage?: NonNullable<L2Adapter["usage"]>;
  protected readonly capacity: Capacity;
  /** Limits stores. */
  protected readonly writeLimiter: Limiter;
  /** Limits everything else. */
  protected readonly readLimiter: Limiter;
  readonly #type: string;
  readonly #onError: (error: AdapterError) => void;

  protected constructor(
    { bounds, clock, onError, onEvicted }: RemoteOptions,
    traits: RemoteTraits,
  ) {
    this.#type = traits.type;
    this.#onError = onError;
    this.capabilities = traits.capabilities;
    this.writeLimiter = new Limiter(traits.writes);
    this.readLimiter = new Limiter(traits.reads);
    const capacity = this.capacity = new Capacity({
      adapter: traits.type,
      bounds,
      removalBatch: traits.removalBatch,
      recountMs: traits.recountMs,
      scan: (signal) => this.#count(signal),
      remove: (keys, signal, purpose) => this.#remove(keys, signal, purpose),
      clock,
      onError,
      onEvicted,
    });
    if (traits.canDelete) this.delete = (keys, call) => capacity.delete(keys, call);
    if (traits.canList) this.list = (call) => this.#list(call);
    if (bounds !== undefined) this.usage = (call) => capacity.usage(call);
  }

  /** Starts the first count, if there is a capacity. */
  start(): void {
    this.capacity.maintain();
  }

  /** Stores objects; each becomes visible completely or not at all. */
  async store(objects: readonly AdapterObject[], { signal }: CallOptions): Promise<StoreResult> {
    const stored = new Bitmap(objects.length);
    let bytes = 0;
    if (signal.aborted || objects.length === 0) return { stored, bytes };
    const failures = new Failures(this.#type, "store");
    const reserved = await this.capacity.reserve(objects, signal);
    const settle = (index: number, isStored: boolean): AdapterObject => {
      const object = objects[index] as AdapterObject;
      if (reserved[index]) this.capacity.settle(object, isStored);
      reserved[index] = false;
      return object;
    };
    try {
      await this.#wrapped("store", () =>
        this.write({
          objects,
          signal,
          hasRoom: (index) => reserved[index] === true,
          stored: (index, written) => {
            settle(index, true);
            stored.set(index);
            bytes += written;
          },
          failed: (index, cause, mayExist) => {
            const { key } = settle(index, mayExist);
            if (!signal.aborted) failures.add(key, cause, this.isOutage(cause));
          },
        }));
    } finally {
      for (const index of reserved.keys()) settle(index, false);
    }
    this.capacity.renew(keysOf(stored.gather(objects)));
    this.capacity.maintain();
    failures.report(objects.length, this.#onError);
    return { stored, bytes };
  }

  /** Looks up objects; those found are neither evicted nor removed until they are unlocked. */
  async lookupAndLock(
    keys: readonly ObjectKey[],
    { prefix: isChain, signal }: LookupOptions,
  ): Promise<Bitmap> {
    if (signal.aborted || keys.length === 0) return new Bitmap(keys.length);
    const failures = new Failures(this.#type, "lookup");
    const absent = this.capacity.staleRemover(keys);
    return await this.capacity.lockFound(keys, isChain, async () => {
      const failed = failures.adderUntil(signal);
      const call = { keys, isChain, signal, absent, failed };
      const { found, asked } = await this.#wrapped("lookup", () => this.find(call));
      if (signal.aborted) return new Bitmap(keys.length);
      failures.report(asked, this.#onError);
      return found;
    });
  }

  /** Releases the locks of a lookup. */
  unlock(keys: readonly ObjectKey[]): void {
    this.capacity.unlock(keys);
  }

  /** Records uses of objects in device memory. */
  touch(keys: readonly ObjectKey[]): void {
    this.capacity.touch(keys);
  }

  /** Loads objects into their parts, each as soon as its bytes arrive. */
  async load(
    objects: readonly AdapterObject[],
    { signal, onLoaded, allowShorter = false }: LoadOptions,
  ): Promise<Bitmap> {
    const loaded = new Bitmap(objects.length);
    if (signal.aborted || objects.length === 0) return loaded;
    const failures = new Failures(this.#type, "load");
    const removeStale = this.capacity.staleRemover(keysOf(objects));
    const settle = (index: number, outcome: ReadOutcome): void => {
      if (signal.aborted) return;
      if (outcome === "absent") return removeStale((objects[index] as AdapterObject).key);
      if (outcome !== "filled") return onLoaded?.(index, outcome);
      loaded.set(index);
      onLoaded?.(index);
    };
    const failed = failures.adderUntil(signal);
    const call = { objects, allowShorter, signal, settle, failed };
    await this.#wrapped("load", () => this.read(call));
    this.capacity.renew(keysOf(loaded.gather(objects)));
    failures.report(objects.length, this.#onError);
    return loaded;
  }

  /** Settings and counts of the protocol, locks and capacity figures. */
  reportStatus(): Readonly<Record<string, unknown>> {
    return { ...this.describe(), ...this.capacity.reportStatus() };
  }

  /** Closes all connections. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.capacity[Symbol.asyncDispose]();
    await this.close();
  }

  /** Writes the objects that have room. */
  protected abstract write(call: StoreCall): Promise<void>;
  /** Finds which objects exist. */
  protected abstract find(call: LookupCall): Promise<FoundKeys>;
  /** Reads objects into their parts. */
  protected abstract read(call: LoadCall): Promise<void>;
  /** Removes objects. */
  protected abstract remove(call: RemoveCall): Promise<readonly RemovalResult[]>;
  /** Lists objects; may include other models. */
  protected abstract scan(call: ScanCall): AsyncIterable<FoundObject>;
  /** Status of the protocol. */
  protected abstract describe(): Readonly<Record<string, unknown>>;
  /** Releases all resources. */
  protected abstract close(): Promise<void>;

  /** Reads each object by itself. */
  protected async readEach(
    { objects, signal, settle, failed }: LoadCall,
    read: (object: AdapterObject, index: number) => Promise<ReadOutcome>,
  ): Promise<void> {
    await this.readLimiter.forEach(objects, byteLengthOf, async (object, index) => {
      if (signal.aborted) return;
      try {
        settle(index, await read(object, index));
      } catch (cause) {
        failed(object.key, cause);
      }
    }, signal);
  }

  /** Removes, or looks up, the object of each key by itself. */
  protected async removeEach(
    { keys, signal, failed }: RemoveCall,
    remove: (key: ObjectKey, index: number) => Promise<number | "absent">,
  ): Promise<RemovalResult[]> {
    const results: RemovalResult[] = [];
    await this.readLimiter.forEach(keys, () => 0, async (key, index) => {
      try {
        results[index] = await remove(key, index);
      } catch (cause) {
        failed(key, cause);
        results[index] = "failed";
      }
    }, signal);
    return results;
  }

  /** Whether a failed write suggests that all calls fail, rather than that there is no room. */
  protected isOutage(_cause: unknown): boolean {
    return true;
  }

  async #remove(
    keys: readonly ObjectKey[],
    signal: AbortSignal,
    purpose: "delete" | "evict",
  ): Promise<readonly RemovalResult[]> {
    const failures = new Failures(this.#type, purpose);
    const failed = failures.adderUntil(signal);
    const call = { keys, purpose, signal, failed };
    const results = await this.#wrapped(purpose, () => this.remove(call));
    failures.report(keys.length, this.#onError);
    return results;
  }

  /**
   * Lists the objects.
   *
   * @throws {AdapterError} After the last object, if some were left out.
   */
  async *#list({ model, signal }: ListOptions): AsyncGenerator<ListedObject, void> {
    const reasons: unknown[] = [];
    const onUnread = (reason: unknown): void => void reasons.push(reason);
    for await (const { key, byteLength = 0, usedAt } of this.#scan({ model, signal, onUnread })) {
      if (model !== undefined && key.model !== model) continue;
      yield { key, byteLength, ...(usedAt === undefined ? {} : { usedAt }) };
    }
    if (reasons.length === 0) return;
    throw this.#error("list", new Error(`${reasons.length} objects were left out: ${reasons[0]}`));
  }

  /** Lists the objects for the capacity. */
  async *#count(signal: AbortSignal): AsyncGenerator<FoundObject, void> {
    const causes: unknown[] = [];
    const onUnread = (reason: unknown): void => void causes.push(reason);
    const bytesOf = (key: ObjectKey): number | undefined => this.capacity.bytesOf(key);
    yield* this.#scan({ bytesOf, signal, onUnread });
    const cause = causes.find((reason) => reason instanceof Error);
    if (cause !== undefined && !signal.aborted) this.#onError(this.#error("list", cause));
  }

  async *#scan(call: ScanCall): AsyncGenerator<FoundObject, void> {
    try {
      yield* this.scan(call);
    } catch (cause) {
      if (!call.signal.aborted) throw this.#error("list", cause);
    }
  }

  async #wrapped<Value>(operation: string, work: () => Promise<Value>): Promise<Value> {
    try {
      return await work();
    } catch (cause) {
      throw this.#error(operation, cause);
    }
  }

  #error(operation: string, cause: unknown): AdapterError {
    if (cause instanceof AdapterError) return cause;
    return new AdapterError({ adapter: this.#type, operation, cause });
  }
}

/** Bytes of an object or a batch, for a limiter. */
export function byteLengthOf({ byteLength }: { readonly byteLength: number }): number {
  return byteLength;
}

/**
 * Looks up keys in steps of `maxKeys`; of a chain, until one is missing.
 *
 * @param ask Returns whether each object exists, or why that is unknown.
 */
export async function findInSteps(
  { keys, isChain, signal, absent, failed }: LookupCall,
  maxKeys: number,
  ask: (keys: readonly ObjectKey[]) => Promise<readonly (boolean | Error)[]>,
): Promise<FoundKeys> {
  const found = new Bitmap(keys.length);
  let asked = 0;
  let isGap = false;
  while (asked < keys.length && !signal.aborted && !(isChain && isGap)) {
    const step = keys.slice(asked, asked + maxKeys);
    for (const [i, answer] of (await ask(step)).entries()) {
      if (answer === true) {
        found.set(asked + i);
        continue;
      }
      isGap = true;
      if (answer === false) absent(step[i] as ObjectKey);
      else failed(step[i] as ObjectKey, answer);
    }
    asked += step.length;
  }
  return { found, asked };
}

function keysOf(objects: readonly AdapterObject[]): ObjectKey[] {
  return objects.map(({ key }) => key);
}
