import { Limiter } from "../../base/limiter.ts";
import { Bitmap } from "../../keys/bitmap.ts";
import {
  type AdapterCapabilities,
  type AdapterEnvironment,
  type AdapterObject,
  type CallOptions,
  fillParts,
  type L2Adapter,
  type ListedObject,
  type ListOptions,
  type LoadOptions,
  type StoreResult,
} from "../../adapter/contract.ts";
import { copyBits, copyStoreResult } from "../adapter_answers.ts";
import { AdapterError } from "../../adapter/errors.ts";
import type { TrailerFault } from "../../adapter/object_trailer.ts";
import { BufferPool } from "./buffer_pool.ts";
import type { TransformChain } from "./transform_chain.ts";

/**
 * Maximum bytes of host memory for objects being transformed and their results. Stores have a limit
 * of their own, because they keep the memory for as long as the adapter takes.
 */
const STORE_BYTES = 64 * 2 ** 20;
const LOAD_BYTES = 128 * 2 ** 20;
/** Maximum bytes of the objects of one call that are transformed together. */
const GROUP_BYTES = 32 * 2 ** 20;
/** Maximum bytes of idle buffers kept for the next load. */
const IDLE_BYTES = 32 * 2 ** 20;
/**
 * Maximum number of objects being transformed at the same time, for stores and for loads: threads
 * are needed for other work, too.
 */
const STORE_OPERATIONS = 2;
const LOAD_OPERATIONS = 4;

/** Limiters of calls of one kind. */
interface Limits {
  readonly scratch: Limiter;
  readonly operations: Limiter;
}

/** Options of {@linkcode TransformedObjects}. */
export interface TransformOptions {
  readonly type: string;
  /** Transforms, owned by the adapter and released with it. */
  readonly chain: TransformChain;
  /** Called with failures that affect a single key. */
  readonly onError: AdapterEnvironment["onError"];
}

/** Encodes objects before they are stored in an adapter, and decodes them after they are loaded. */
export class TransformedObjects {
  readonly #adapter: L2Adapter;
  readonly #options: TransformOptions;
  readonly #storing: Limits = {
    scratch: new Limiter({ bytes: STORE_BYTES }),
    operations: new Limiter({ operations: STORE_OPERATIONS }),
  };
  readonly #loading: Limits = {
    scratch: new Limiter({ bytes: LOAD_BYTES }),
    operations: new Limiter({ operations: LOAD_OPERATIONS }),
  };
  readonly #buffers = new BufferPool(IDLE_BYTES);
  readonly #refused: Partial<Record<TrailerFault, number>> = {};
  #givenBytes = 0;
  #keptBytes = 0;

  constructor(adapter: L2Adapter, options: TransformOptions) {
    this.#adapter = adapter;
    this.#options = options;
  }

  /** Capabilities of the adapter, adjusted for the objects before the transforms. */
  get capabilities(): AdapterCapabilities {
    const {
      acceptsShortObjects: _,
      loadsShorter: _old,
      maxObjectBytes: max,
      ...others
    } = this.#adapter.capabilities;
    const { chain } = this.#options;
    const added = chain.minAddedBytes;
    return {
      ...others,
      ...(max === undefined ? {} : { maxObjectBytes: Math.max(1, max - added) }),
      ...(chain.isFixed ? {} : { variableLength: true }),
    };
  }

  /** Stores transformed objects. An object whose transform fails affects only itself. */
  async store(objects: readonly AdapterObject[], options: CallOptions): Promise<StoreResult> {
    const { chain } = this.#options;
    const stored = new Bitmap(objects.length);
    const sizes = objects.map(({ byteLength }) => byteLength);
    let bytes = 0;
    for (const group of groupsOf(objects)) {
      bytes += await this.#withScratch(this.#storing, objects, group, options.signal, async () => {
        const encoded = await Promise.all(group.map((i) => {
          const object = objects[i] as AdapterObject;
          return this.#transform("store", object, options.signal, () => chain.encode(object));
        }));
        const ready = [...encoded.keys()].filter((n) => encoded[n] !== undefined);
        if (ready.length === 0 || options.signal.aborted) return 0;
        const kept = ready.map((n) => encoded[n] as AdapterObject);
        const answer = copyStoreResult(await this.#adapter.store(kept, options), kept.length);
        for (const n of answer.stored.indices()) {
          const index = group[ready[n] as number] as number;
          const size = answer.sizes?.[n] ?? (kept[n] as AdapterObject).byteLength;
          stored.set(index);
          this.#givenBytes += sizes[index] as number;
          this.#keptBytes += size;
          sizes[index] = size;
        }
        return answer.bytes;
      }) ?? 0;
    }
    return { stored, bytes, sizes };
  }

  /**
   * Loads and decodes objects. An object that the transforms reject is reported with a fault, and
   * is a miss.
   */
  async load(objects: readonly AdapterObject[], options: LoadOptions): Promise<Bitmap> {
    const loaded = new Bitmap(objects.length);
    for (const group of groupsOf(objects)) {
      await this.#withScratch(this.#loading, objects, group, options.signal, async () => {
        const done = await this.#loadGroup(group.map((i) => objects[i] as AdapterObject), {
          ...options,
          onLoaded: (n, fault) => options.onLoaded?.(group[n] as number, fault),
        });
        for (const n of done) loaded.set(group[n] as number);
      });
    }
    return loaded;
  }

  /**
   * Lists stored objects, with the bytes to request from `load` where they follow from the size.
   */
  async *list(options: ListOptions): AsyncIterable<ListedObject> {
    const { chain } = this.#options;
    for await (const object of this.#adapter.list?.(options) ?? []) {
      const loadBytes = object.byteLength - chain.addedBytes(object.key);
      yield chain.isFixed && loadBytes > 0 ? { ...object, loadBytes } : object;
    }
  }

  /** Releases idle buffers. */
  close(): void {
    this.#buffers.clear();
  }

  /** Bytes before and after the transforms, rejected objects by fault, and memory in use. */
  reportStatus(): Record<string, unknown> {
    return {
      givenBytes: this.#givenBytes,
      keptBytes: this.#keptBytes,
      refusedObjects: { ...this.#refused },
      scratchBytes: this.#storing.scratch.bytes + this.#loading.scratch.bytes,
    };
  }

  /**
   * Loads and decodes a group of objects.
   *
   * @returns The indices of those that were decoded.
   */
  async #loadGroup(
    objects: readonly AdapterObject[],
    { signal, onLoaded }: LoadOptions,
  ): Promise<number[]> {
    const { chain } = this.#options;
    const buffers = objects.map(({ key, byteLength }) =>
      this.#buffers.acquire(byteLength + chain.addedBytes(key))
    );
    const decoding = new Map<number, Promise<TrailerFault | null | undefined>>();
    const decode = (n: number): Promise<TrailerFault | null | undefined> => {
      let outcome = decoding.get(n);
      if (outcome === undefined) {
        const object = objects[n] as AdapterObject;
        const buffer = buffers[n] ?? new Uint8Array(0);
        outcome = this.#transform("load", object, signal, () => this.#decode(object, buffer));
        decoding.set(n, outcome);
        outcome.then((fault) => fault === null ? onLoaded?.(n) : undefined);
      }
      return outcome;
    };
    const refuse = (n: number, fault: TrailerFault): void => {
      this.#refused[fault] = (this.#refused[fault] ?? 0) + 1;
      onLoaded?.(n, fault);
    };
    try {
      const wanted = objects.map(({ key }, n) => {
        const buffer = buffers[n] as Uint8Array<ArrayBuffer>;
        return { key, parts: [buffer], byteLength: buffer.byteLength };
      });
      const answer = await this.#adapter.load(wanted, {
        signal,
        onLoaded: (n, fault) => {
          if (objects[n] === undefined) return;
          if (fault === undefined) decode(n);
          else refuse(n, fault);
        },
        ...(chain.isFixed ? {} : { allowShorter: true }),
      });
      const here = copyBits("load()", answer, objects.length).indices();
      const faults = await Promise.all(here.map(decode));
      const loaded: number[] = [];
      for (const [i, n] of here.entries()) {
        const fault = faults[i];
        if (fault === null) loaded.push(n);
        else if (fault !== undefined) refuse(n, fault);
      }
      await Promise.all(decoding.values());
      for (const buffer of buffers) this.#buffers.release(buffer);
      return loaded;
    } finally {
      await Promise.all(decoding.values());
    }
  }

  /**
   * Encodes or decodes an object in turn. A failure is reported.
   *
   * @returns `undefined` if it failed, or if `signal` aborted first.
   */
  async #transform<T>(
    operation: "store" | "load",
    { key }: AdapterObject,
    signal: AbortSignal,
    work: () => Promise<T>,
  ): Promise<T | undefined> {
    const { operations } = operation === "store" ? this.#storing : this.#loading;
    if (!(await operations.acquire(0, signal))) return undefined;
    try {
      return await work();
    } catch (cause) {
      const { type, onError } = this.#options;
      onError(new AdapterError({ adapter: type, operation, key, cause }));
      return undefined;
    } finally {
      operations.release(0);
    }
  }

  /** Decodes an object into its parts; returns the fault, or `null`. */
  async #decode(
    { key, parts, byteLength }: AdapterObject,
    buffer: Uint8Array<ArrayBuffer>,
  ): Promise<TrailerFault | null> {
    const decoded = await this.#options.chain.decode(key, byteLength, buffer);
    if (decoded.fault !== undefined) return decoded.fault;
    return fillParts(parts, decoded.bytes) ? null : "transform";
  }

  /** Runs `work` when enough host memory is available; not at all if `signal` aborts first. */
  async #withScratch<T>(
    { scratch }: Limits,
    objects: readonly AdapterObject[],
    group: readonly number[],
    signal: AbortSignal,
    work: () => Promise<T>,
  ): Promise<T | undefined> {
    const { chain } = this.#options;
    let bytes = 0;
    for (const i of group) {
      const { key, byteLength } = objects[i] as AdapterObject;
      bytes += 2 * (byteLength + chain.addedBytes(key));
    }
    if (!(await scratch.acquire(bytes, signal))) return undefined;
    try {
      return await work();
    } finally {
      scratch.release(bytes);
    }
  }
}

/** Indices of the objects, in groups that are transformed one after the other. */
function groupsOf(objects: readonly AdapterObject[]): number[][] {
  const groups: number[][] = [];
  let bytes = Infinity;
  for (const [i, { byteLength }] of objects.entries()) {
    if (bytes + byteLength > GROUP_BYTES) {
      groups.push([]);
      bytes = 0;
    }
    groups.at(-1)?.push(i);
    bytes += byteLength;
  }
  return groups;
}
