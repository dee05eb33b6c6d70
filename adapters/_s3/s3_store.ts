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
import { Capacity, type CapacityBounds } from "../_shared/capacity.ts";
import { Failures } from "../_shared/failures.ts";
import { FlightLimit } from "../_shared/flight_limit.ts";
import { KeyLocks } from "../_shared/key_locks.ts";
import { listBucket, type ListedInBucket } from "./bucket_listing.ts";
import { ObjectFinder } from "./object_finder.ts";
import type { ObjectNames } from "./object_names.ts";
import { ObjectReader } from "./object_reader.ts";
import { ObjectRemover, REMOVAL_BATCH } from "./object_remover.ts";
import { ObjectWriter } from "./object_writer.ts";
import type { S3Client } from "./s3_client.ts";
import { isTransient } from "./s3_error.ts";

/** What others did is looked up again after so long, in milliseconds; that costs requests. */
const RECOUNT_MS = 600_000;
const PREFERRED_BYTES = 64 * 2 ** 20;

/** How an {@linkcode S3Store} is set up. */
export interface S3StoreOptions {
  /** The bucket; closed with the store. */
  readonly client: S3Client;
  /** How objects are called. */
  readonly names: ObjectNames;
  /** Bytes of a part of an upload, and of a range. */
  readonly partBytes: number;
  /** Objects with more bytes are uploaded in parts. */
  readonly multipartAboveBytes: number;
  /** Objects with more bytes are read in ranges. */
  readonly rangesAboveBytes: number;
  /** Whether what is there stays, if it has the right size. */
  readonly putsIfAbsent: boolean;
  /** Most requests at a time. */
  readonly maxRequests: number;
  /** Most bytes of objects in flight, for stores and for loads. */
  readonly maxBytesInFlight: number;
  /** What this adapter keeps within bounds by itself; left out, rules of the bucket do that. */
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

/** Objects in a bucket. */
export class S3Store implements L2Adapter {
  /** Others see the objects, which outlive everybody. */
  readonly capabilities: L2Adapter["capabilities"] = {
    shared: true,
    durable: true,
    evicts: true,
    acceptsShortObjects: true,
    preferredBytesInFlight: PREFERRED_BYTES,
  };
  /** What is counted; left out where this adapter does not count, because it would list all. */
  readonly usage?: NonNullable<L2Adapter["usage"]>;
  /** Notes uses of objects that are read elsewhere; left out where rules of the bucket evict. */
  readonly touch?: NonNullable<L2Adapter["touch"]>;
  readonly #options: S3StoreOptions;
  readonly #writeLimit: FlightLimit;
  readonly #readLimit: FlightLimit;
  readonly #finder: ObjectFinder;
  readonly #writer: ObjectWriter;
  readonly #reader: ObjectReader;
  readonly #remover: ObjectRemover;
  readonly #locks = new KeyLocks();
  readonly #capacity: Capacity | undefined;

  /** Connects when it is used. */
  constructor(options: S3StoreOptions) {
    const { bounds, maxRequests: operations, maxBytesInFlight: bytes } = options;
    this.#options = options;
    this.#writeLimit = new FlightLimit({ operations, bytes });
    this.#readLimit = new FlightLimit({ operations, bytes });
    this.#finder = new ObjectFinder(options);
    this.#writer = new ObjectWriter(options);
    this.#reader = new ObjectReader(options);
    this.#remover = new ObjectRemover(options);
    this.#capacity = bounds && new Capacity({
      ...bounds,
      adapter: "s3",
      removalBatch: REMOVAL_BATCH,
      recountMs: RECOUNT_MS,
      scan: (_, signal) => this.#scan(undefined, signal, () => {}),
      remove: (keys, signal) => this.#evict(keys, signal),
      isLocked: (key) => this.#locks.has(key),
      clock: options.clock,
      onError: options.onError,
      onEvicted: options.onEvicted,
    });
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

  /** Writes objects; each is visible as a whole, or not at all. */
  async store(objects: readonly AdapterObject[], { signal }: CallOptions): Promise<StoreResult> {
    const stored = new Bitmap(objects.length);
    let bytes = 0;
    if (signal.aborted || objects.length === 0) return { stored, bytes };
    const failures = new Failures("s3", "store");
    const hasRoom = await this.#capacity?.reserve(objects, signal);
    const settled = new Set<number>();
    const settle = (object: AdapterObject, index: number, isThere: boolean): void => {
      if (hasRoom?.[index] === true) this.#capacity?.settle(object, isThere);
      settled.add(index);
    };
    await this.#writeLimit.forEach(objects, byteLengthOf, signal, async (object, index) => {
      if (hasRoom?.[index] === false) return;
      try {
        const written = await this.#writer.write(object, signal);
        bytes += written;
        stored.set(index);
        this.#finder.trust(object.key);
        settle(object, index, true);
      } catch (cause) {
        // What was not refused may be there: counted too much is put right by the next count.
        settle(object, index, isTransient(cause));
        if (!signal.aborted) failures.add(object.key, cause);
      }
    });
    for (const [index, object] of objects.entries()) {
      if (!settled.has(index)) settle(object, index, false);
    }
    this.#capacity?.book.touch(stored.gather(objects).map(({ key }) => key));
    this.#capacity?.tend();
    this.#report(failures, objects.length);
    return { stored, bytes };
  }

  /** Asks for all keys at a time, or searches for the end of a chain. */
  async lookupAndLock(
    keys: readonly ObjectKey[],
    { prefix, signal }: LookupOptions,
  ): Promise<Bitmap> {
    if (signal.aborted || keys.length === 0) return new Bitmap(keys.length);
    const failures = new Failures("s3", "lookup");
    const forget = this.#forgetter(keys);
    const found = await this.#locks.lockFound(keys, prefix, async () => {
      const { found, asked } = await this.#finder.find(keys, prefix, failures, signal, forget);
      if (signal.aborted) return new Bitmap(keys.length);
      this.#report(failures, asked);
      return found;
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
    const failures = new Failures("s3", "load");
    const forget = this.#forgetter(objects.map(({ key }) => key));
    await this.#readLimit.forEach(objects, byteLengthOf, signal, async (object, index) => {
      try {
        const outcome = await this.#reader.read(object, allowShorter, signal);
        if (outcome === "absent") {
          this.#finder.suspect(object.key);
          forget(object.key);
        }
        if (outcome === "different") onLoaded?.(index, "layout");
        if (outcome !== "filled") return;
        loaded.set(index);
        onLoaded?.(index);
      } catch (cause) {
        if (!signal.aborted) failures.add(object.key, cause);
      }
    });
    this.#capacity?.book.touch(loaded.gather(objects).map(({ key }) => key));
    this.#report(failures, objects.length);
    return loaded;
  }

  /** Removes objects that are not locked. */
  async delete(keys: readonly ObjectKey[], { signal }: CallOptions): Promise<DeleteResult> {
    const failures = new Failures("s3", "delete");
    const asked = keys.filter((key) => !this.#locks.has(key));
    const forget = this.#forgetter(asked);
    const sizes = await this.#finder.sizesOf(asked, failures, signal, forget);
    return await this.#remove(keys, sizes, failures, signal);
  }

  /**
   * Enumerates the objects.
   *
   * @throws {AdapterError} After the others, if there are objects whose keys cannot be told.
   */
  async *list({ model, signal }: ListOptions): AsyncIterable<ListedObject> {
    let unread = 0;
    const objects = this.#scan(model, signal, () => unread++);
    for await (const { key, byteLength, usedAt } of objects) {
      yield { key, byteLength, ...(usedAt === undefined ? {} : { usedAt }) };
    }
    if (unread === 0) return;
    const cause = new Error(`${unread} objects were left out: they lack the metadata kvtier-key`);
    throw new AdapterError({ adapter: "s3", operation: "list", cause });
  }

  /** Where the objects are, how they are moved, and who evicts. */
  reportStatus(): Readonly<Record<string, unknown>> {
    const { client, description } = this.#options;
    const capacity = this.#capacity;
    return {
      ...description,
      requests: client.requests,
      retries: client.retries,
      removesTogether: this.#remover.isBatched,
      lockedObjects: this.#locks.size,
      evictedBy: capacity === undefined ? "bucket" : "kvtier",
      ...capacity?.reportStatus(),
    };
  }

  /** Closes all connections. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#capacity?.[Symbol.asyncDispose]();
    await this.#writer[Symbol.asyncDispose]();
    this.#options.client[Symbol.dispose]();
  }

  async *#scan(
    model: string | undefined,
    signal: AbortSignal,
    onUnread: () => void,
  ): AsyncIterable<ListedInBucket> {
    const { client, names } = this.#options;
    try {
      for await (const page of listBucket({ client, names, model, onUnread, signal })) yield* page;
    } catch (cause) {
      if (!signal.aborted) throw new AdapterError({ adapter: "s3", operation: "list", cause });
    }
  }

  /** Removes what is in the book, without asking for it. */
  async #evict(keys: readonly ObjectKey[], signal: AbortSignal): Promise<DeleteResult> {
    const sizes = new Map<string, number>();
    for (const key of keys) {
      const entry = this.#capacity?.book.get(key);
      if (entry !== undefined) sizes.set(key.id, entry.byteLength);
    }
    return await this.#remove(keys, sizes, new Failures("s3", "evict"), signal);
  }

  /** Removes those objects that have a size and are not locked. */
  async #remove(
    keys: readonly ObjectKey[],
    sizes: ReadonlyMap<string, number>,
    failures: Failures,
    signal: AbortSignal,
  ): Promise<DeleteResult> {
    const forget = this.#forgetter(keys);
    const there = keys.filter((key) => sizes.has(key.id) && this.#locks.startRemoval(key));
    const gone = await this.#remover.remove(there, signal, (key, cause) => {
      if (!signal.aborted) failures.add(key, cause);
    }).finally(() => there.forEach((key) => this.#locks.endRemoval(key)));
    let bytes = 0;
    const deleted = Bitmap.from(keys, (key) => {
      // Of a key that is given twice, one object is removed.
      if (!gone.delete(key.id)) return false;
      bytes += sizes.get(key.id) ?? 0;
      forget(key);
      return true;
    });
    this.#report(failures, keys.length);
    return { deleted, bytes };
  }

  #forgetter(keys: readonly ObjectKey[]): (key: ObjectKey) => void {
    return this.#capacity?.book.forgetter(keys) ?? (() => {});
  }

  /** Reports what failed; throws if that is everything. */
  #report(failures: Failures, count: number): void {
    const errors = failures.errors();
    const [first] = errors;
    if (first !== undefined && failures.isAll(count)) throw first;
    for (const error of errors) this.#options.onError(error);
  }
}

function byteLengthOf({ byteLength }: AdapterObject): number {
  return byteLength;
}
