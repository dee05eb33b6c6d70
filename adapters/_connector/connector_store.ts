import { untilAborted } from "../../src/base/abort.ts";
import type { AdapterObject, FoundObject, RemovalResult } from "../../src/adapter/contract.ts";
import {
  byteLengthOf,
  findInSteps,
  type FoundKeys,
  type LoadCall,
  type LookupCall,
  type RemoteOptions,
  RemoteStore,
  type RemoveCall,
  type ScanCall,
  type StoreCall,
} from "../_remote/remote_store.ts";
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
export interface ConnectorStoreOptions extends RemoteOptions {
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
  /** Static fields of the status. */
  readonly description: Readonly<Record<string, unknown>>;
}

interface ObjectBatch {
  readonly objects: AdapterObject[];
  readonly indices: number[];
  byteLength: number;
}

/** Stores objects through a connector. */
export class ConnectorStore extends RemoteStore {
  readonly #options: ConnectorStoreOptions;

  constructor(options: ConnectorStoreOptions) {
    const { backend, bounds, concurrency: operations, maxBytesInFlight: bytes } = options;
    super(options, {
      type: "connector",
      // Durability and sharing depend on the store behind the connector.
      capabilities: {
        evicts: bounds !== undefined,
        acceptsShortObjects: true,
        preferredBytesInFlight: bytes,
      },
      canDelete: backend.delete !== undefined,
      canList: backend.list !== undefined,
      removalBatch: REMOVAL_BATCH,
      recountMs: RECOUNT_MS,
      writes: { operations, bytes },
      reads: { operations, bytes },
    });
    this.#options = options;
  }

  protected override async write(call: StoreCall): Promise<void> {
    const { objects, signal } = call;
    const { backend, check, values } = this.#options;
    const checked = await untilAborted(signal, check.result(), () => undefined);
    if (checked?.state === "unsound") {
      throw new Error(`Expected ${checked.expected}: received ${checked.received}`);
    }
    const batches = this.#batches(objects, call.hasRoom, backend.setMany !== undefined);
    await this.writeLimiter.forEach(batches, byteLengthOf, async (batch) => {
      const outcomes = await values.writeAll(batch.objects, signal);
      for (const [i, index] of batch.indices.entries()) {
        const failure = outcomes[i];
        if (failure === undefined) call.stored(index, batch.objects[i]?.byteLength ?? 0);
        else call.failed(index, failure, true);
      }
    }, signal);
  }

  /** Looks up many keys per call; of a chain, until one is missing. */
  protected override find(call: LookupCall): Promise<FoundKeys> {
    const { backend, values, concurrency } = this.#options;
    const maxKeys = backend.hasMany === undefined ? concurrency : MAX_ASKED;
    return findInSteps(call, maxKeys, (keys) => values.hasAll(keys, call.signal));
  }

  protected override async read(call: LoadCall): Promise<void> {
    const { objects, allowShorter, signal } = call;
    const { backend, values } = this.#options;
    const batches = this.#batches(objects, () => true, backend.getMany !== undefined);
    await this.readLimiter.forEach(batches, byteLengthOf, async (batch) => {
      const outcomes = await values.readAll(batch.objects, allowShorter, signal);
      for (const [i, index] of batch.indices.entries()) {
        const outcome = outcomes[i];
        if (typeof outcome === "string") call.settle(index, outcome);
        else call.failed((objects[index] as AdapterObject).key, outcome);
      }
    }, signal);
  }

  protected override async remove(call: RemoveCall): Promise<readonly RemovalResult[]> {
    return await this.removeEach(call, async (key) => {
      return (await this.#options.values.remove(key, call.signal))?.byteLength ?? "absent";
    });
  }

  /**
   * Lists the objects. For a count, removes leftovers of interrupted stores; the size of an
   * unreadable object is taken from the index, or counts as 0.
   *
   * @throws After the last object, if it is unknown whether the connector lists all of them.
   */
  protected override async *scan(call: ScanCall): AsyncGenerator<FoundObject, void> {
    const { listing, check } = this.#options;
    const { bytesOf, signal } = call;
    if (bytesOf !== undefined) {
      for await (const { key, byteLength } of listing.listAndRepair(call)) {
        yield { key, byteLength: byteLength === 0 ? bytesOf(key) ?? 0 : byteLength };
      }
      return;
    }
    yield* listing.list(call);
    const { state } = await untilAborted(signal, check.result(), () => ({ state: "sound" }));
    if (state !== "sound") {
      throw new Error("It is unknown whether the connector lists all its keys");
    }
  }

  /** The kind of connector. */
  protected override describe(): Readonly<Record<string, unknown>> {
    return this.#options.description;
  }

  protected override async close(): Promise<void> {
    await this.#options.backend.close?.();
  }

  /** Groups objects into calls. */
  #batches(
    objects: readonly AdapterObject[],
    isChosen: (index: number) => boolean,
    areTogether: boolean,
  ): ObjectBatch[] {
    const maxObjects = areTogether ? MAX_IN_BATCH : 1;
    const batches: ObjectBatch[] = [];
    let last: ObjectBatch | undefined;
    for (const [index, object] of objects.entries()) {
      if (!isChosen(index)) continue;
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
}
