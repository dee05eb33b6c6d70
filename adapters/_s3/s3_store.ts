import { Limiter } from "../../src/base/limiter.ts";
import type { FoundObject, ObjectKey, RemovalResult } from "../../src/adapter/contract.ts";
import {
  byteLengthOf,
  type FoundKeys,
  type LoadCall,
  type LookupCall,
  type RemoteOptions,
  RemoteStore,
  type RemoveCall,
  type ScanCall,
  type StoreCall,
} from "../_remote/remote_store.ts";
import { listBucket } from "./bucket_listing.ts";
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
export interface S3StoreOptions extends RemoteOptions {
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
  /** Static fields of the status. */
  readonly description: Readonly<Record<string, unknown>>;
}

/** Objects in a bucket. */
export class S3Store extends RemoteStore {
  readonly #options: S3StoreOptions;
  readonly #writeLimiter: Limiter;
  readonly #readLimiter: Limiter;
  readonly #finder: ObjectFinder;
  readonly #writer: S3ObjectWriter;
  readonly #reader: S3ObjectReader;
  readonly #remover: ObjectRemover;

  constructor(options: S3StoreOptions) {
    super(options, {
      type: "s3",
      capabilities: {
        shared: true,
        durable: true,
        evicts: true,
        acceptsShortObjects: true,
        preferredBytesInFlight: PREFERRED_BYTES,
      },
      canDelete: true,
      canList: true,
      removalBatch: REMOVAL_BATCH,
      recountMs: RECOUNT_MS,
    });
    const { maxRequests: operations, maxBytesInFlight: bytes } = options;
    this.#options = options;
    this.#writeLimiter = new Limiter({ operations, bytes });
    this.#readLimiter = new Limiter({ operations, bytes });
    this.#finder = new ObjectFinder(options);
    this.#writer = new S3ObjectWriter(options);
    this.#reader = new S3ObjectReader(options);
    this.#remover = new ObjectRemover(options);
  }

  protected override async write(call: StoreCall): Promise<void> {
    const { objects, signal } = call;
    await this.#writeLimiter.forEach(objects, byteLengthOf, async (object, index) => {
      if (!call.hasRoom(index)) return;
      try {
        call.stored(index, await this.#writer.write(object, signal));
        this.#finder.trust(object.key);
      } catch (cause) {
        // Without a refusal the object may exist.
        call.failed(index, cause, isTransient(cause));
      }
    }, signal);
  }

  /** Looks up all keys at once, or searches for the end of a chain. */
  protected override find(call: LookupCall): Promise<FoundKeys> {
    return this.#finder.find(call);
  }

  protected override async read(call: LoadCall): Promise<void> {
    const { objects, allowShorter, signal } = call;
    await this.#readLimiter.forEach(objects, byteLengthOf, async (object, index) => {
      try {
        const outcome = await this.#reader.read(object, allowShorter, signal);
        if (outcome === "absent") this.#finder.suspect(object.key);
        call.settle(index, outcome);
      } catch (cause) {
        call.failed(object.key, cause);
      }
    }, signal);
  }

  /** Removes objects. The server does not tell which existed, so those not counted are looked up. */
  protected override async remove(call: RemoveCall): Promise<readonly RemovalResult[]> {
    const { keys, purpose, signal, failed } = call;
    const sizes = purpose === "evict"
      ? keys.map((key) => this.capacity.bytesOf(key) ?? "absent")
      : await this.#finder.sizesOf(call);
    const present = keys.filter((_, i) => typeof sizes[i] === "number");
    const gone = await this.#remover.remove(present, signal, failed);
    return sizes.map((size, i) => {
      const isKept = typeof size === "number" && !gone.has((keys[i] as ObjectKey).id);
      return isKept ? "failed" : size;
    });
  }

  protected override async *scan(call: ScanCall): AsyncGenerator<FoundObject, void> {
    const { client, names } = this.#options;
    for await (const page of listBucket({ ...call, client, names })) yield* page;
  }

  protected override describe(): Readonly<Record<string, unknown>> {
    const { client, description } = this.#options;
    return {
      ...description,
      requests: client.requests,
      retries: client.retries,
      removesTogether: this.#remover.isBatched,
      evictedBy: this.capacity.isBounded ? "kvtier" : "bucket",
    };
  }

  protected override async close(): Promise<void> {
    await this.#writer[Symbol.asyncDispose]();
    this.#options.client[Symbol.dispose]();
  }
}
