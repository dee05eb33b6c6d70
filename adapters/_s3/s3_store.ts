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
import { Capacity, type CapacityBounds } from "../_shared/capacity.ts";
import { Failures } from "../_shared/failures.ts";
import { KeyLocks } from "../_shared/key_locks.ts";
import { listBucket, type ListedInBucket } from "./bucket_listing.ts";
import { ObjectFinder } from "./object_finder.ts";
import type { S3ObjectNames } from "./object_names.ts";
import { S3ObjectReader } from "./object_reader.ts";
import { ObjectRemover, REMOVAL_BATCH } from "./object_remover.ts";
import { S3ObjectWriter } from "./object_writer.ts";
import type { S3Client } from "./s3_client.ts";
import { isTransient } from "./s3_error.ts";

/** Time between two counts of the bucket, which cost requests, in milliseconds. */
const RECOUNT_MS = 600_000;
const PREFERRED_BYTES = 64 * 2 ** 20;

/** Options of an {@linkcode S3Store}. */
export interface S3StoreOptions {
  /** The bucket's client; closed with the store. */
  readonly client: S3Client;
  readonly names: S3ObjectNames;
  /** Bytes of an upload part, and of a range. */
  readonly partBytes: number;
  /** Objects with more bytes are uploaded in parts. */
  readonly multipartAboveBytes: number;
  /** Objects with more bytes are read in ranges. */
  readonly rangesAboveBytes: number;
  /** Whether an existing object of the right size is kept. */
  readonly putsIfAbsent: boolean;
  /** Max requests at a time. */
  readonly maxRequests: number;
  /** Max bytes of objects in flight, for stores and for loads. */
  readonly maxBytesInFlight: number;
  /** Capacity that this adapter enforces; `undefined` if lifecycle rules of the bucket do. */
  readonly bounds: CapacityBounds | undefined;
  /** Static fields of the status. */
  readonly description: Readonly<Record<string, unknown>>;
  readonly clock: Clock;
  /** Called with each failure that affects a key. */
  readonly onError: (error: AdapterError) => void;
  /** Called with the keys of evicted objects. */
  readonly onEvicted: ((keys: readonly ObjectKey[]) => void) | undefined;
}

/** Objects in a bucket. */
export class S3Store implements L2Adapter {
  /** Objects are shared and durable. */
  readonly capabilities: L2Adapter["capabilities"] = {
    shared: true,
    durable: true,
    evicts: true,
    acceptsShortObjects: true,
    preferredBytesInFlight: PREFERRED_BYTES,
  };
  /** Counted objects and bytes; absent without a capacity, because that would list everything. */
  readonly usage?: NonNullable<L2Adapter["usage"]>;
  /** Records uses of objects in device memory; absent without a capacity. */
  readonly touch?: NonNullable<L2Adapter["touch"]>;
  readonly #options: S3StoreOptions;
  readonly #writeLimiter: Limiter;
  readonly #readLimiter: Limiter;
  readonly #finder: ObjectFinder;
  readonly #writer: S3ObjectWriter;
  readonly #reader: S3ObjectReader;
  readonly #remover: ObjectRemover;
  readonly #locks = new KeyLocks();
  readonly #capacity: Capacity | undefined;

  constructor(options: S3StoreOptions) {
    const { bounds, maxRequests: operations, maxBytesInFlight: bytes } = options;
    this.#options = options;
    this.#writeLimiter = new Limiter({ operations, bytes });
    this.#readLimiter = new Limiter({ operations, bytes });
    this.#finder = new ObjectFinder(options);
    this.#writer = new S3ObjectWriter(options);
    this.#reader = new S3ObjectReader(options);
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
    const failures = new Failures("s3", "store");
    const hasRoom = await this.#capacity?.reserve(objects, signal);
    const settled = new Set<number>();
    const settle = (object: AdapterObject, index: number, isThere: boolean): void => {
      if (hasRoom?.[index] === true) this.#capacity?.settle(object, isThere);
      settled.add(index);
    };
    await this.#writeLimiter.forEach(objects, byteLengthOf, async (object, index) => {
      if (hasRoom?.[index] === false) return;
      try {
        const written = await this.#writer.write(object, signal);
        bytes += written;
        stored.set(index);
        this.#finder.trust(object.key);
        settle(object, index, true);
      } catch (cause) {
        // Without a refusal the object may exist. The next count corrects it if it does not.
        settle(object, index, isTransient(cause));
        if (!signal.aborted) failures.add(object.key, cause);
      }
    }, signal);
    for (const [index, object] of objects.entries()) {
      if (!settled.has(index)) settle(object, index, false);
    }
    this.#capacity?.index.touch(stored.gather(objects).map(({ key }) => key));
    this.#capacity?.maintain();
    this.#report(failures, objects.length);
    return { stored, bytes };
  }

  /** Looks up all keys at once, or searches for the end of a chain. */
  async lookupAndLock(
    keys: readonly ObjectKey[],
    { prefix, signal }: LookupOptions,
  ): Promise<Bitmap> {
    if (signal.aborted || keys.length === 0) return new Bitmap(keys.length);
    const failures = new Failures("s3", "lookup");
    const removeStale = this.#staleRemover(keys);
    const found = await this.#locks.lockFound(keys, prefix, async () => {
      const { found, asked } = await this.#finder.find(keys, prefix, failures, signal, removeStale);
      if (signal.aborted) return new Bitmap(keys.length);
      this.#report(failures, asked);
      return found;
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
    const failures = new Failures("s3", "load");
    const removeStale = this.#staleRemover(objects.map(({ key }) => key));
    await this.#readLimiter.forEach(objects, byteLengthOf, async (object, index) => {
      try {
        const outcome = await this.#reader.read(object, allowShorter, signal);
        if (outcome === "absent") {
          this.#finder.suspect(object.key);
          removeStale(object.key);
        }
        if (outcome === "different") onLoaded?.(index, "layout");
        if (outcome !== "filled") return;
        loaded.set(index);
        onLoaded?.(index);
      } catch (cause) {
        if (!signal.aborted) failures.add(object.key, cause);
      }
    }, signal);
    this.#capacity?.index.touch(loaded.gather(objects).map(({ key }) => key));
    this.#report(failures, objects.length);
    return loaded;
  }

  /** Removes objects that are not locked. */
  async delete(keys: readonly ObjectKey[], { signal }: CallOptions): Promise<DeleteResult> {
    const failures = new Failures("s3", "delete");
    const asked = keys.filter((key) => !this.#locks.has(key));
    const removeStale = this.#staleRemover(asked);
    const sizes = await this.#finder.sizesOf(asked, failures, signal, removeStale);
    return await this.#remove(keys, sizes, failures, signal);
  }

  /**
   * Lists the objects.
   *
   * @throws {AdapterError} After the last object, if some keys could not be determined.
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

  /** Bucket, settings, request counts and capacity figures. */
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

  /** Removes indexed objects without looking them up. */
  async #evict(keys: readonly ObjectKey[], signal: AbortSignal): Promise<DeleteResult> {
    const sizes = new Map<string, number>();
    for (const key of keys) {
      const entry = this.#capacity?.index.get(key);
      if (entry !== undefined) sizes.set(key.id, entry.byteLength);
    }
    return await this.#remove(keys, sizes, new Failures("s3", "evict"), signal);
  }

  /** Removes the objects that have a size and are not locked. */
  async #remove(
    keys: readonly ObjectKey[],
    sizes: ReadonlyMap<string, number>,
    failures: Failures,
    signal: AbortSignal,
  ): Promise<DeleteResult> {
    const removeStale = this.#staleRemover(keys);
    const removable = keys.filter((key) => sizes.has(key.id) && this.#locks.startRemoval(key));
    const gone = await this.#remover.remove(removable, signal, (key, cause) => {
      if (!signal.aborted) failures.add(key, cause);
    }).finally(() => removable.forEach((key) => this.#locks.endRemoval(key)));
    let bytes = 0;
    const deleted = Bitmap.from(keys, (key) => {
      // A key given twice counts once.
      if (!gone.delete(key.id)) return false;
      bytes += sizes.get(key.id) ?? 0;
      removeStale(key);
      return true;
    });
    this.#report(failures, keys.length);
    return { deleted, bytes };
  }

  #staleRemover(keys: readonly ObjectKey[]): (key: ObjectKey) => void {
    return this.#capacity?.index.staleRemover(keys) ?? (() => {});
  }

  /** Reports the failures; throws if all objects failed. */
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
