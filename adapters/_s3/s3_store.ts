import {
  Bitmap,
  type FoundObject,
  type ObjectKey,
  type RemovalResult,
} from "../../src/adapter/contract.ts";
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
import { findChainEnd } from "../_shared/chain_search.ts";
import { RecentKeys } from "../_shared/recent_keys.ts";
import { listBucket } from "./bucket_listing.ts";
import { S3ObjectReader, type S3ObjectReaderOptions } from "./object_reader.ts";
import { ObjectRemover, REMOVAL_BATCH } from "./object_remover.ts";
import { S3ObjectWriter, type S3ObjectWriterOptions } from "./object_writer.ts";
import { isTransient } from "./s3_error.ts";

/** Time between two counts of the bucket, which cost requests, in milliseconds. */
const RECOUNT_MS = 600_000;
/** Probes per round of a chain search: requests are cheap, but round trips are slow. */
const CHAIN_WIDTH = 32;
/** Max keys remembered as missing. */
const MAX_SUSPECTS = 10_000;
const PREFERRED_BYTES = 64 * 2 ** 20;

/** Options of an {@linkcode S3Store}. The client is closed with the store. */
export interface S3StoreOptions
  extends RemoteOptions, S3ObjectWriterOptions, S3ObjectReaderOptions {
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
  /** Keys that a chain search must not claim, because they turned out to be missing. */
  readonly #suspects = new RecentKeys(MAX_SUSPECTS);
  readonly #writer: S3ObjectWriter;
  readonly #reader: S3ObjectReader;
  readonly #remover: ObjectRemover;

  constructor(options: S3StoreOptions) {
    const limits = { operations: options.maxRequests, bytes: options.maxBytesInFlight };
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
      writes: limits,
      reads: limits,
    });
    this.#options = options;
    this.#writer = new S3ObjectWriter(options);
    this.#reader = new S3ObjectReader(options);
    this.#remover = new ObjectRemover(options);
  }

  protected override async write(call: StoreCall): Promise<void> {
    const { objects, signal } = call;
    await this.writeLimiter.forEach(objects, byteLengthOf, async (object, index) => {
      if (!call.hasRoom(index)) return;
      try {
        call.stored(index, await this.#writer.write(object, signal));
        this.#suspects.delete(object.key);
      } catch (cause) {
        // Without a refusal the object may exist.
        call.failed(index, cause, isTransient(cause));
      }
    }, signal);
  }

  /** Looks up all keys at once; of a chain, only as many as it takes to find its end. */
  protected override async find(
    { keys, isChain, signal, absent, failed }: LookupCall,
  ): Promise<FoundKeys> {
    const { client, names } = this.#options;
    let asked = 0;
    const isPresent = async (key: ObjectKey): Promise<boolean> => {
      asked++;
      try {
        const exists = await client.has(names.nameOf(key), signal);
        if (exists) this.#suspects.delete(key);
        else absent(key);
        return exists;
      } catch (cause) {
        failed(key, cause);
        return false;
      }
    };
    if (!isChain) {
      const present = await Promise.all(keys.map(isPresent));
      return { found: Bitmap.from(present, (exists) => exists), asked };
    }
    const suspects = this.#suspects.placesIn(keys);
    const at = (places: readonly number[]): Promise<boolean[]> =>
      Promise.all(places.map((place) => isPresent(keys[place] as ObjectKey)));
    const end = await findChainEnd(keys.length, at, suspects, CHAIN_WIDTH);
    return { found: new Bitmap(keys.length, end), asked };
  }

  protected override async read(call: LoadCall): Promise<void> {
    await this.readEach(call, async (object) => {
      const outcome = await this.#reader.read(object, call.allowShorter, call.signal);
      if (outcome === "absent") this.#suspects.add(object.key);
      return outcome;
    });
  }

  /** Removes objects. The server does not tell which existed, so those not counted are looked up. */
  protected override async remove(call: RemoveCall): Promise<readonly RemovalResult[]> {
    const { keys, purpose, signal, failed } = call;
    const { client, names } = this.#options;
    const sizes = purpose === "evict"
      ? keys.map((key) => this.capacity.bytesOf(key) ?? "absent")
      : await this.removeEach(call, async (key) => {
        return await client.sizeOf(names.nameOf(key), signal) ?? "absent";
      });
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
