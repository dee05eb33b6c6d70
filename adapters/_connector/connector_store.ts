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
} from "../../src/l2/adapter.ts";
import { Capacity, type CapacityBounds, type FoundObject } from "../_shared/capacity.ts";
import { Failures } from "../_shared/failures.ts";
import { FlightLimit } from "../_shared/flight_limit.ts";
import { KeyLocks } from "../_shared/key_locks.ts";
import type { ObjectBook } from "../_shared/object_book.ts";
import { untilAborted } from "../_shared/until_aborted.ts";
import type { Backend } from "./backend.ts";
import type { BackendCheck } from "./backend_check.ts";
import type { ObjectListing } from "./object_listing.ts";
import type { ObjectValues } from "./object_values.ts";

/** Values that a batch of a connector with methods for many keys has at the most. */
const MOST_IN_BATCH = 64;
/** Keys that are asked for at a time. */
const MOST_ASKED = 512;
/** Objects removed at a time to make room. */
const REMOVAL_BATCH = 64;
/** What others did is looked up again after so long, in milliseconds. */
const RECOUNT_MS = 600_000;

/** How a {@linkcode ConnectorStore} is set up. */
export interface ConnectorStoreOptions {
  /** The connector. */
  readonly backend: Backend;
  /** Objects in it. */
  readonly values: ObjectValues;
  /** Enumerates them. */
  readonly listing: ObjectListing;
  /** Whether the connector keeps what it is given. */
  readonly check: BackendCheck;
  /** Most calls in flight, for stores and for everything else. */
  readonly concurrency: number;
  /** Most bytes that they move. */
  readonly maxBytesInFlight: number;
  /** What it is kept within; left out, what is behind the connector bounds itself. */
  readonly bounds: CapacityBounds | undefined;
  /** What there is to know that does not change. */
  readonly description: Readonly<Record<string, unknown>>;
  /** Source of time. */
  readonly clock: Clock;
  /** Told about failures that cost a key. */
  readonly onError: (error: AdapterError) => void;
  /** Told which objects were removed to make room. */
  readonly onEvicted: ((keys: readonly ObjectKey[]) => void) | undefined;
}

interface Batch {
  readonly objects: AdapterObject[];
  readonly indices: number[];
  byteLength: number;
}

/** Objects in whatever a connector leads to. */
export class ConnectorStore implements L2Adapter {
  /** Nobody knows what is behind a connector. */
  readonly capabilities: L2Adapter["capabilities"];
  /** Removes objects; left out if the connector cannot. */
  readonly delete?: NonNullable<L2Adapter["delete"]>;
  /** Enumerates them; left out if the connector cannot. */
  readonly list?: NonNullable<L2Adapter["list"]>;
  /** What is counted. */
  readonly usage?: NonNullable<L2Adapter["usage"]>;
  /** Notes uses of objects that are read elsewhere; left out where nothing is evicted. */
  readonly touch?: NonNullable<L2Adapter["touch"]>;
  readonly #options: ConnectorStoreOptions;
  readonly #writeLimit: FlightLimit;
  readonly #readLimit: FlightLimit;
  readonly #locks = new KeyLocks();
  readonly #capacity: Capacity | undefined;

  /** Asks nothing yet. */
  constructor(options: ConnectorStoreOptions) {
    const { backend, bounds, concurrency: operations, maxBytesInFlight: bytes } = options;
    this.#options = options;
    this.#writeLimit = new FlightLimit({ operations, bytes });
    this.#readLimit = new FlightLimit({ operations, bytes });
    this.#capacity = bounds && new Capacity({
      ...bounds,
      adapter: "connector",
      removalBatch: REMOVAL_BATCH,
      recountMs: RECOUNT_MS,
      scan: (book, signal) => this.#scan(book, signal),
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
      this.touch = (keys) => capacity.book.touch(keys);
    }
  }

  /** Begins to count what is there, where that bounds it. */
  start(): void {
    this.#capacity?.tend();
  }

  /** Puts objects; each is visible as a whole, or not at all. */
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
    await this.#writeLimit.forEach(batches, bytesOf, signal, async (batch) => {
      const outcomes = await this.#options.values.writeAll(batch.objects, signal);
      for (const [i, { key, byteLength }] of batch.objects.entries()) {
        const index = batch.indices[i] ?? 0;
        const failure = outcomes[i];
        // What failed may be there: counted too much is put right by the next count.
        settle(index, true);
        if (failure === undefined) {
          stored.set(index);
          bytes += byteLength;
        } else if (!signal.aborted) failures.add(key, failure);
      }
    });
    for (const index of objects.keys()) if (!settled.has(index)) settle(index, false);
    this.#capacity?.book.touch(stored.gather(objects).map(({ key }) => key));
    this.#capacity?.tend();
    this.#report(failures, objects.length);
    return { stored, bytes };
  }

  /** Asks for many keys at a time; of a chain until one is missing. */
  async lookupAndLock(
    keys: readonly ObjectKey[],
    { prefix, signal }: LookupOptions,
  ): Promise<Bitmap> {
    const found = await this.#locks.lockFound(keys, prefix, () => {
      return this.#lookup(keys, prefix, signal);
    });
    this.#capacity?.book.touch(found.gather(keys));
    return found;
  }

  /** Lets objects be evicted again. */
  unlock(keys: readonly ObjectKey[]): void {
    this.#locks.remove(keys);
  }

  /** Reads objects into their parts. */
  async load(
    objects: readonly AdapterObject[],
    { signal, onLoaded, allowShorter = false }: LoadOptions,
  ): Promise<Bitmap> {
    const loaded = new Bitmap(objects.length);
    const failures = new Failures("connector", "load");
    const forget = this.#capacity?.book.forgetter(objects.map(({ key }) => key));
    const batches = this.#batches(
      objects,
      undefined,
      this.#options.backend.getMany !== undefined,
    );
    await this.#readLimit.forEach(batches, bytesOf, signal, async (batch) => {
      const outcomes = await this.#options.values.readAll(batch.objects, allowShorter, signal);
      for (const [i, { key }] of batch.objects.entries()) {
        const index = batch.indices[i] ?? 0;
        const outcome = outcomes[i];
        if (outcome === "filled") {
          loaded.set(index);
          onLoaded?.(index);
        } else if (outcome === "absent") {
          forget?.(key);
        } else if (typeof outcome === "string") {
          onLoaded?.(index, outcome);
        } else if (!signal.aborted) failures.add(key, outcome);
      }
    });
    this.#capacity?.book.touch(loaded.gather(objects).map(({ key }) => key));
    this.#report(failures, objects.length);
    return loaded;
  }

  /** What is behind it, how objects are moved, and who evicts. */
  reportStatus(): Readonly<Record<string, unknown>> {
    const capacity = this.#capacity;
    return {
      ...this.#options.description,
      lockedObjects: this.#locks.size,
      ...capacity?.reportStatus(),
    };
  }

  /** Lets go of the connector. */
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
    const most = backend.hasMany === undefined ? concurrency : MOST_ASKED;
    let start = 0;
    let isGap = false;
    while (start < keys.length && !signal.aborted && !(isChain && isGap)) {
      const some = keys.slice(start, start + most);
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
    const forget = this.#capacity?.book.forgetter(keys);
    const deleted = new Bitmap(keys.length);
    let bytes = 0;
    await this.#readLimit.forEach(keys, () => 0, signal, async (key, index) => {
      if (!this.#locks.startRemoval(key)) return;
      try {
        const removed = await values.remove(key, signal);
        if (removed !== undefined) {
          deleted.set(index);
          bytes += removed.byteLength;
        }
        forget?.(key);
      } catch (cause) {
        if (!signal.aborted) failures.add(key, cause);
      } finally {
        this.#locks.endRemoval(key);
      }
    });
    this.#report(failures, keys.length);
    return { deleted, bytes };
  }

  /**
   * Enumerates the objects.
   *
   * @throws {AdapterError} After the others, if there may be more.
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
    const cause = new Error("It is not known whether the connector lists what it holds");
    throw new AdapterError({ adapter: "connector", operation: "list", cause });
  }

  /** What is there, for the capacity; what cannot be read counts as what it was, or as nothing. */
  async *#scan(book: ObjectBook, signal: AbortSignal): AsyncGenerator<FoundObject, void> {
    const causes: unknown[] = [];
    const onUnread = (cause: unknown): void => void causes.push(cause);
    for await (const { key, byteLength } of this.#options.listing.tend({ onUnread, signal })) {
      const isKnown = byteLength === 0 && book.get(key) !== undefined;
      yield { key, byteLength: isKnown ? undefined : byteLength, usedAt: undefined };
    }
    const [cause] = causes;
    if (causes.length === 0 || signal.aborted) return;
    this.#options.onError(new AdapterError({ adapter: "connector", operation: "list", cause }));
  }

  /** Objects that are moved by one call. */
  #batches(
    objects: readonly AdapterObject[],
    chosen: readonly boolean[] | undefined,
    areTogether: boolean,
  ): Batch[] {
    const most = areTogether ? MOST_IN_BATCH : 1;
    const batches: Batch[] = [];
    let last: Batch | undefined;
    for (const [index, object] of objects.entries()) {
      if (chosen?.[index] === false) continue;
      const { byteLength } = object;
      const isFull = last === undefined || last.objects.length >= most ||
        last.byteLength + byteLength > this.#options.maxBytesInFlight / 2;
      if (isFull) batches.push(last = { objects: [], indices: [], byteLength: 0 });
      last?.objects.push(object);
      last?.indices.push(index);
      if (last !== undefined) last.byteLength += byteLength;
    }
    return batches;
  }

  /** Reports what failed; throws if that is everything. */
  #report(failures: Failures, count: number): void {
    const errors = failures.errors();
    const [first] = errors;
    if (first !== undefined && failures.isAll(count)) throw first;
    for (const error of errors) this.#options.onError(error);
  }
}

function bytesOf({ byteLength }: Batch): number {
  return byteLength;
}
