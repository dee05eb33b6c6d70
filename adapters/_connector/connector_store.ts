import { Limiter } from "../../src/base/limiter.ts";
import {
  AdapterError,
  type AdapterObject,
  Bitmap,
  type CallOptions,
  type Clock,
  type DeleteResult,
  type L2Adapter,
  type ListedObject,
  type ListOptions,
  type LoadOptions,
  type LookupOptions,
  type ObjectKey,
  type StoreResult,
} from "../../src/adapter/contract.ts";
import { Capacity, type CapacityBounds, type FoundObject } from "../_shared/capacity.ts";
import { Failures } from "../_shared/failures.ts";
import { KeyLocks } from "../_shared/key_locks.ts";
import type { ObjectIndex } from "../_shared/object_book.ts";
import { untilAborted } from "../../src/base/abort.ts";
import type { Backend } from "./backend.ts";
import type { BackendCheck } from "./backend_check.ts";
import type { ObjectListing } from "./object_listing.ts";
import type { ObjectValues } from "./object_values.ts";

/** Max values in one call of a method for many keys. */
const MAX_IN_BATCH = 64;
/** Max keys in one call of `hasMany`. */
const MAX_ASKED = 512;
/** Max objects per eviction call. */
const REMOVAL_BATCH = 64;
/** Time between two counts of the objects, in milliseconds. */
const RECOUNT_MS = 600_000;

/** Options of a {@linkcode ConnectorStore}. */
export interface ConnectorStoreOptions {
  readonly backend: Backend;
  /** The objects as values of the connector. */
  readonly values: ObjectValues;
  readonly listing: ObjectListing;
  /** Whether the connector keeps binary values. */
  readonly check: BackendCheck;
  /** Max calls in flight, for stores and for everything else. */
  readonly concurrency: number;
  /** Max bytes that these calls move at a time. */
  readonly maxBytesInFlight: number;
  /** Capacity of the adapter; `undefined` if the store behind the connector limits itself. */
  readonly bounds: CapacityBounds | undefined;
  /** Static fields of the status. */
  readonly description: Readonly<Record<string, unknown>>;
  readonly clock: Clock;
  /** Called with each failure that affects a key. */
  readonly onError: (error: AdapterError) => void;
  /** Called with the keys of evicted objects. */
  readonly onEvicted: ((keys: readonly ObjectKey[]) => void) | undefined;
}

interface ObjectBatch {
  readonly objects: AdapterObject[];
  readonly indices: number[];
  byteLength: number;
}

/** Stores objects through a connector. */
export class ConnectorStore implements L2Adapter {
  /** Durability and sharing depend on the store behind the connector, so none is declared. */
  readonly capabilities: L2Adapter["capabilities"];
  /** Removes objects; absent if the connector cannot delete. */
  readonly delete?: NonNullable<L2Adapter["delete"]>;
  /** Lists objects; absent if the connector cannot list. */
  readonly list?: NonNullable<L2Adapter["list"]>;
  /** Counted objects and bytes; absent without a capacity. */
  readonly usage?: NonNullable<L2Adapter["usage"]>;
  /** Records uses of objects in device memory; absent without a capacity. */
  readonly touch?: NonNullable<L2Adapter["touch"]>;
  readonly #options: ConnectorStoreOptions;
  readonly #writeLimiter: Limiter;
  readonly #readLimiter: Limiter;
  readonly #locks = new KeyLocks();
  readonly #capacity: Capacity | undefined;

  constructor(options: ConnectorStoreOptions) {
    const { backend, bounds, concurrency: operations, maxBytesInFlight: bytes } = options;
    this.#options = options;
    this.#writeLimiter = new Limiter({ operations, bytes });
    this.#readLimiter = new Limiter({ operations, bytes });
    this.#capacity = bounds && new Capacity({
      ...bounds,
      adapter: "connector",
      removalBatch: REMOVAL_BATCH,
      recountMs: RECOUNT_MS,
      scan: (index, signal) => this.#scan(index, signal),
      remove: (keys, signal) => this.#remove(keys, { signal }),
      isLocked: (key) => this.#locks.has(key),
      clock: options.clock,
      onError: options.onError,
      onEvicted: options.onEvicted,
    });
    this.capabilities = {
      evicts: bounds !== undefined,
      acceptsShortObjects: true,
      preferredBytesInFlight: bytes,
    };
    if (backend.delete !== undefined) this.delete = (keys, call) => this.#remove(keys, call);
    if (backend.list !== undefined) this.list = (call) => this.#list(call);
    const capacity = this.#capacity;
    if (capacity !== undefined) {
      this.usage = (call) => capacity.usage(call);
      this.touch = (keys) => capacity.index.touch(keys);
    }
  }

  /** Starts the first count, if there is a capacity. */
  start(): void {
    this.#capacity?.maintain();
  }

  /** Stores objects; each becomes visible completely or not at all. */
  async store(objects: readonly AdapterObject[], { signal }: CallOptions): Promise<StoreResult> {
    const stored = new Bitmap(objects.length);
    let bytes = 0;
    if (signal.aborted || objects.length === 0) return { stored, bytes };
    const checked = await untilAborted(signal, this.#options.check.result(), () => undefined);
    if (checked?.state === "unsound") {
      const cause = new Error(`Expected ${checked.expected}: received ${checked.received}`);
      throw new AdapterError({ adapter: "connector", operation: "store", cause });
    }
    const failures = new Failures("connector", "store");
    const hasRoom = await this.#capacity?.reserve(objects, signal);
    const settled = new Set<number>();
    const settle = (index: number, isThere: boolean): void => {
      settled.add(index);
      const object = objects[index];
      if (object !== undefined && hasRoom?.[index]) this.#capacity?.settle(object, isThere);
    };
    const batches = this.#batches(objects, hasRoom, this.#options.backend.setMany !== undefined);
    await this.#writeLimiter.forEach(batches, bytesOf, async (batch) => {
      const outcomes = await this.#options.values.writeAll(batch.objects, signal);
      for (const [i, { key, byteLength }] of batch.objects.entries()) {
        const index = batch.indices[i] ?? 0;
        const failure = outcomes[i];
        // A failed object may exist anyway. The next count corrects it if it does not.
        settle(index, true);
        if (failure === undefined) {
          stored.set(index);
          bytes += byteLength;
        } else if (!signal.aborted) failures.add(key, failure);
      }
    }, signal);
    for (const index of objects.keys()) if (!settled.has(index)) settle(index, false);
    this.#capacity?.index.touch(stored.gather(objects).map(({ key }) => key));
    this.#capacity?.maintain();
    this.#report(failures, objects.length);
    return { stored, bytes };
  }

  /** Looks up many keys per call; of a chain, until one is missing. */
  async lookupAndLock(
    keys: readonly ObjectKey[],
    { prefix, signal }: LookupOptions,
  ): Promise<Bitmap> {
    const found = await this.#locks.lockFound(keys, prefix, () => {
      return this.#lookup(keys, prefix, signal);
    });
    this.#capacity?.index.touch(found.gather(keys));
    return found;
  }

  /** Releases the locks of a lookup. */
  unlock(keys: readonly ObjectKey[]): void {
    this.#locks.remove(keys);
  }

  /** Loads objects into their parts. */
  async load(
    objects: readonly AdapterObject[],
    { signal, onLoaded, allowShorter = false }: LoadOptions,
  ): Promise<Bitmap> {
    const loaded = new Bitmap(objects.length);
    const failures = new Failures("connector", "load");
    const removeStale = this.#capacity?.index.staleRemover(objects.map(({ key }) => key));
    const batches = this.#batches(
      objects,
      undefined,
      this.#options.backend.getMany !== undefined,
    );
    await this.#readLimiter.forEach(batches, bytesOf, async (batch) => {
      const outcomes = await this.#options.values.readAll(batch.objects, allowShorter, signal);
      for (const [i, { key }] of batch.objects.entries()) {
        const index = batch.indices[i] ?? 0;
        const outcome = outcomes[i];
        if (outcome === "filled") {
          loaded.set(index);
          onLoaded?.(index);
        } else if (outcome === "absent") {
          removeStale?.(key);
        } else if (typeof outcome === "string") {
          onLoaded?.(index, outcome);
        } else if (!signal.aborted) failures.add(key, outcome);
      }
    }, signal);
    this.#capacity?.index.touch(loaded.gather(objects).map(({ key }) => key));
    this.#report(failures, objects.length);
    return loaded;
  }

  /** The kind of connector, and the capacity figures. */
  reportStatus(): Readonly<Record<string, unknown>> {
    const capacity = this.#capacity;
    return {
      ...this.#options.description,
      lockedObjects: this.#locks.size,
      ...capacity?.reportStatus(),
    };
  }

  /** Closes the connector. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#capacity?.[Symbol.asyncDispose]();
    await this.#options.backend.close?.();
  }

  async #lookup(
    keys: readonly ObjectKey[],
    isChain: boolean,
    signal: AbortSignal,
  ): Promise<Bitmap> {
    const { backend, values, concurrency } = this.#options;
    const failures = new Failures("connector", "lookup");
    const found = new Bitmap(keys.length);
    const maxKeys = backend.hasMany === undefined ? concurrency : MAX_ASKED;
    let start = 0;
    let isGap = false;
    while (start < keys.length && !signal.aborted && !(isChain && isGap)) {
      const some = keys.slice(start, start + maxKeys);
      for (const [i, answer] of (await values.hasAll(some, signal)).entries()) {
        if (answer === true) found.set(start + i);
        else isGap = true;
        if (answer instanceof Error) failures.add(keys[start + i] as ObjectKey, answer);
      }
      start += some.length;
    }
    if (signal.aborted) return new Bitmap(keys.length);
    this.#report(failures, start);
    return found;
  }

  /** Removes objects that are not locked. */
  async #remove(keys: readonly ObjectKey[], { signal }: CallOptions): Promise<DeleteResult> {
    const { values } = this.#options;
    const failures = new Failures("connector", "delete");
    const removeStale = this.#capacity?.index.staleRemover(keys);
    const deleted = new Bitmap(keys.length);
    let bytes = 0;
    await this.#readLimiter.forEach(keys, () => 0, async (key, index) => {
      if (!this.#locks.startRemoval(key)) return;
      try {
        const removed = await values.remove(key, signal);
        if (removed !== undefined) {
          deleted.set(index);
          bytes += removed.byteLength;
        }
        removeStale?.(key);
      } catch (cause) {
        if (!signal.aborted) failures.add(key, cause);
      } finally {
        this.#locks.endRemoval(key);
      }
    }, signal);
    this.#report(failures, keys.length);
    return { deleted, bytes };
  }

  /**
   * Lists the objects.
   *
   * @throws {AdapterError} After the last object, if the list may be incomplete.
   */
  async *#list({ model, signal }: ListOptions): AsyncGenerator<ListedObject, void> {
    const { listing, check } = this.#options;
    const isWanted = (key: ObjectKey | undefined): boolean =>
      key === undefined || model === undefined || key.model === model;
    const causes: unknown[] = [];
    const onUnread = (cause: unknown): void => void causes.push(cause);
    for await (const { key, byteLength } of listing.list({ isWanted, onUnread, signal })) {
      yield { key, byteLength };
    }
    if (causes.length > 0) {
      const cause = new Error(`${causes.length} values cannot be read: ${causes[0]}`);
      throw new AdapterError({ adapter: "connector", operation: "list", cause });
    }
    const { state } = await untilAborted(signal, check.result(), () => ({ state: "sound" }));
    if (state === "sound") return;
    const cause = new Error("It is unknown whether the connector lists all its keys");
    throw new AdapterError({ adapter: "connector", operation: "list", cause });
  }

  /**
   * Lists the objects for the capacity. The size of an unreadable object is taken from the index,
   * or counts as 0.
   */
  async *#scan(index: ObjectIndex, signal: AbortSignal): AsyncGenerator<FoundObject, void> {
    const causes: unknown[] = [];
    const onUnread = (cause: unknown): void => void causes.push(cause);
    for await (
      const { key, byteLength } of this.#options.listing.listAndRepair({ onUnread, signal })
    ) {
      const isKnown = byteLength === 0 && index.get(key) !== undefined;
      yield { key, byteLength: isKnown ? undefined : byteLength, usedAt: undefined };
    }
    const [cause] = causes;
    if (causes.length === 0 || signal.aborted) return;
    this.#options.onError(new AdapterError({ adapter: "connector", operation: "list", cause }));
  }

  /** Groups objects into calls. */
  #batches(
    objects: readonly AdapterObject[],
    chosen: readonly boolean[] | undefined,
    areTogether: boolean,
  ): ObjectBatch[] {
    const maxObjects = areTogether ? MAX_IN_BATCH : 1;
    const batches: ObjectBatch[] = [];
    let last: ObjectBatch | undefined;
    for (const [index, object] of objects.entries()) {
      if (chosen?.[index] === false) continue;
      const { byteLength } = object;
      const isFull = last === undefined || last.objects.length >= maxObjects ||
        last.byteLength + byteLength > this.#options.maxBytesInFlight / 2;
      if (isFull) batches.push(last = { objects: [], indices: [], byteLength: 0 });
      last?.objects.push(object);
      last?.indices.push(index);
      if (last !== undefined) last.byteLength += byteLength;
    }
    return batches;
  }

  /** Reports the failures; throws if all objects failed. */
  #report(failures: Failures, count: number): void {
    const errors = failures.errors();
    const [first] = errors;
    if (first !== undefined && failures.isAll(count)) throw first;
    for (const error of errors) this.#options.onError(error);
  }
}

function bytesOf({ byteLength }: ObjectBatch): number {
  return byteLength;
}
