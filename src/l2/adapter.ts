/**
 * What an author of a storage adapter needs: the contract, the declaration of a module, and the
 * types that appear in both.
 *
 * An adapter is a module whose default export is made by {@linkcode defineL2Adapter}. Deadlines,
 * integrity and accounting are the cache's work, so a small adapter stays small:
 *
 * @example The smallest adapter: objects in a Map
 * ```ts
 * import { Bitmap, concatParts, defineL2Adapter, fillParts } from "@kvtier/kvtier/adapter";
 *
 * export default defineL2Adapter({
 *   type: "map",
 *   summary: "Objects in a Map.",
 *   config: {},
 *   create() {
 *     const held = new Map<string, Uint8Array>();
 *     return {
 *       capabilities: {},
 *       async store(objects) {
 *         for (const { key, parts } of objects) held.set(key.id, concatParts(parts));
 *         const bytes = objects.reduce((sum, { byteLength }) => sum + byteLength, 0);
 *         return { stored: new Bitmap(objects.length, objects.length), bytes };
 *       },
 *       async lookupAndLock(keys) {
 *         return Bitmap.from(keys, ({ id }) => held.has(id));
 *       },
 *       async load(objects) {
 *         return Bitmap.from(objects, ({ key, parts }) => fillParts(parts, held.get(key.id)));
 *       },
 *       async [Symbol.asyncDispose]() {},
 *     };
 *   },
 * });
 * ```
 *
 * @module
 */
import type { Bitmap } from "../keys/bitmap.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { Clock } from "../runtime/clock.ts";
import type { ConfigFields, ConfigValues } from "./adapter_config.ts";
import type { AdapterError } from "./adapter_error.ts";
import { payloadParts, type TrailerFault } from "./object_trailer.ts";

export { Bitmap } from "../keys/bitmap.ts";
export { decodeFileName, encodeFileName, isHashedFileName } from "../keys/key_codec.ts";
export { ObjectKey, type ObjectKeyFields } from "../keys/object_key.ts";
export { type Clock, type ScheduleOptions, wait } from "../runtime/clock.ts";
export { type RandomSource, systemRandom } from "../runtime/random.ts";
export { parseAdapterConfig } from "./adapter_config.ts";
export type {
  BooleanField,
  ConfigField,
  ConfigFields,
  Configurable,
  ConfigValue,
  ConfigValues,
  FieldBase,
  NumberField,
  NumberRange,
  NumbersField,
  ObjectField,
  RecordField,
  StringField,
} from "./adapter_config.ts";
export { AdapterError, ConfigError } from "./adapter_error.ts";
export { evictionField, watermarksOf } from "./eviction_field.ts";
export { unmetPath } from "./host_path.ts";
export {
  keyInTail,
  keyTail,
  keyTailBytes,
  MAX_TAIL_BYTES,
  type TrailerFault,
} from "./object_trailer.ts";
export { type Place, UseOrder } from "./use_order.ts";

/**
 * One object in a batch: its key and its bytes, in parts that follow one another. To the adapter
 * they are opaque. The buffers belong to the caller and are valid until the call settles; an
 * adapter never keeps, changes (in `store`) or transfers them.
 */
export interface AdapterObject {
  /** What the object is called. */
  readonly key: ObjectKey;
  /** Its bytes: to be read by `store`, to be filled by `load`. */
  readonly parts: readonly Uint8Array<ArrayBuffer>[];
  /** Bytes in all parts together. */
  readonly byteLength: number;
}

/** Options of every call. */
export interface CallOptions {
  /** Aborts when the caller has stopped waiting; the adapter may stop too. */
  readonly signal: AbortSignal;
}

/** Options of `load`. */
export interface LoadOptions extends CallOptions {
  /**
   * May be called with the index of an object whose parts are filled, before the call settles: then
   * it is verified while others are still on their way. The bit in the answer is what counts.
   *
   * It never throws, whatever the index, and does nothing once the call has settled.
   *
   * With a `fault`, the object is there but not what was stored, as the adapter itself has found
   * out: a miss that counts as damaged. An object of another length has the fault `layout`: it was
   * stored with another layout or `serde`, and stays.
   */
  readonly onLoaded?: (index: number, fault?: TrailerFault) => void;
  /**
   * An object that is shorter than its parts fills the front of them, and is no miss. Only asked of
   * adapters that promise `acceptsShortObjects`.
   *
   * @default {false}
   */
  readonly allowShorter?: boolean;
}

/** Options of `lookupAndLock`. */
export interface LookupOptions extends CallOptions {
  /**
   * The keys are a chain, of which the front is wanted: the answer may stop at the first gap. Where
   * asking is slow, an adapter may search for the end instead of asking for each key, and take a
   * key for present because later ones are; if that turns out wrong, `load` misses it, and it must
   * not be claimed again.
   */
  readonly prefix: boolean;
}

/** Options of `list`. */
export interface ListOptions extends CallOptions {
  /** Only objects of this model. */
  readonly model?: string;
}

/** What `store` did. */
export interface StoreResult {
  /** One bit an object: whether it can be loaded now. */
  readonly stored: Bitmap;
  /** Bytes written. */
  readonly bytes: number;
  /** Bytes that each object takes; left out if that is its `byteLength`. */
  readonly sizes?: readonly number[];
}

/** What `delete` did. */
export interface DeleteResult {
  /** One bit a key: whether its object was there and is removed now. */
  readonly deleted: Bitmap;
  /** Bytes of the objects removed. */
  readonly bytes: number;
}

/** One object that `list` found. */
export interface ListedObject {
  /** Its key. */
  readonly key: ObjectKey;
  /** Its size. */
  readonly byteLength: number;
  /** Bytes that `load` is to be asked for; left out if that is its size. */
  readonly loadBytes?: number;
  /** When it was last stored or used, in milliseconds since 1970, where the adapter knows. */
  readonly usedAt?: number;
}

/** How much an adapter holds. */
export interface AdapterUsage {
  /** Bytes used. */
  readonly usedBytes: number;
  /** Most bytes it may use; left out if unknown. */
  readonly capacityBytes?: number;
  /** Number of objects. */
  readonly objectCount: number;
}

/** What an adapter promises beyond the contract. */
export interface AdapterCapabilities {
  /** Other processes with the same configuration see the same objects. @default {false} */
  readonly shared?: boolean;
  /** Objects survive the process. @default {false} */
  readonly durable?: boolean;
  /**
   * Objects are kept without the seal that the cache puts behind them, and come back unverified:
   * only where the user has said that this may be. @default {false}
   */
  readonly unsealed?: boolean;
  /**
   * It bounds itself: the cache removes nothing to make room. What was looked up, loaded or touched
   * last should leave last. @default {false}
   */
  readonly evicts?: boolean;
  /**
   * `load` supports {@linkcode LoadOptions.allowShorter}, so objects that a transform made smaller
   * can be stored. @default {false}
   */
  readonly acceptsShortObjects?: boolean;
  /** @deprecated Use {@linkcode acceptsShortObjects}. */
  readonly loadsShorter?: boolean;
  /** A listing does not show how many bytes to request from `load`. @default {false} */
  readonly variableLength?: boolean;
  /** @deprecated Use {@linkcode variableLength}. */
  readonly hidesLengths?: boolean;
  /** Largest object it takes; left out if there is no limit. */
  readonly maxObjectBytes?: number;
  /** Bytes that a batch should have to be moved at full speed; left out if it does not matter. */
  readonly preferredBytesInFlight?: number;
}

/**
 * A store for objects. Methods take batches of any size, answer with one bit a key and reject only
 * when the adapter is broken: a missing object is a clear bit. A store must be visible entirely or
 * not at all, whatever happens meanwhile. The arrays that a call is given do not change before it
 * settles; afterwards they are not the adapter's to read.
 */
export interface L2Adapter {
  /** What it promises. */
  readonly capabilities: AdapterCapabilities;
  /** Writes objects, replacing those with the same keys. */
  store(objects: readonly AdapterObject[], options: CallOptions): Promise<StoreResult>;
  /**
   * Which objects are there. Where the adapter evicts by itself they stay until they are unlocked:
   * locks are counted, and what two lookups found is free after two unlocks.
   */
  lookupAndLock(keys: readonly ObjectKey[], options: LookupOptions): Promise<Bitmap>;
  /** Gives up one lock of each key; keys that are unknown or not locked are ignored. */
  unlock?(keys: readonly ObjectKey[]): void;
  /**
   * Counts as a use of objects that were read from device memory, so that they do not leave the
   * adapter first although they are used most. Told now and then, in batches, in prefix order;
   * keys that the adapter lacks are ignored. Returns at once and does its work in the background.
   * For adapters that evict by use.
   */
  touch?(keys: readonly ObjectKey[]): void;
  /** Fills the parts of objects. One whose length differs from what is stored is a miss. */
  load(objects: readonly AdapterObject[], options: LoadOptions): Promise<Bitmap>;
  /** Removes objects that are not locked; says which were there, and how many bytes that frees. */
  delete?(keys: readonly ObjectKey[], options: CallOptions): Promise<DeleteResult>;
  /** Enumerates the objects, in no particular order, those of earlier runs too. */
  list?(options: ListOptions): AsyncIterable<ListedObject>;
  /** How much it holds, objects of earlier runs included. */
  usage?(options: CallOptions): Promise<AdapterUsage>;
  /**
   * What else there is to know, as JSON; never secrets. A list of sentences called `problems` says
   * what does not work: the status of the cache shows them, and the adapter is not healthy.
   */
  reportStatus?(): Readonly<Record<string, unknown>>;
  /**
   * Releases everything. A second call does nothing, and calls to other methods afterwards settle,
   * as misses or by rejecting.
   */
  [Symbol.asyncDispose](): Promise<void>;
}

/** Device memory as far as an adapter may want to know it. */
export interface L1MemoryDescription {
  /** Kind of memory. */
  readonly type: "webgpu" | "host";
  /** Largest object that it can hold. */
  readonly maxObjectBytes: number;
  /** Alignment of objects in it, in bytes. */
  readonly alignmentBytes: number;
}

/** What an adapter gets beside its configuration. */
export interface AdapterEnvironment {
  /** Where the objects come from and go to. */
  readonly l1Memory: L1MemoryDescription;
  /** Source of time. */
  readonly clock: Clock;
  /** Aborts when the cache closes. */
  readonly signal: AbortSignal;
  /** Tells the cache about a failure that cost a key but not the call. */
  readonly onError: (error: AdapterError) => void;
  /**
   * Tells the cache which objects the adapter removed on its own, to make room: whatever the cache
   * keeps of them is dropped. For adapters that evict.
   */
  readonly onEvicted?: (keys: readonly ObjectKey[]) => void;
  /**
   * Opens another adapter, for one that wraps it and closes it. Rejects with a `ConfigError` if the
   * configuration cannot work. Left out where no other types are known.
   */
  readonly open?: (config: InnerConfig) => Promise<L2Adapter>;
}

/** Configuration of an adapter that another one wraps: its type, and the keys of that type. */
export interface InnerConfig {
  /** Which adapter. */
  readonly type: string;
  /** The keys of that adapter. */
  readonly [key: string]: unknown;
}

/** A module that provides one type of adapter; its default export. */
export interface L2AdapterModule<Fields extends ConfigFields = ConfigFields> {
  /** The name in configurations: lower-case letters, digits and `_`. */
  readonly type: string;
  /** One sentence. */
  readonly summary: string;
  /** The configuration keys, beside `type`. */
  readonly config: Fields;
  /**
   * What its adapters promise unless they are configured otherwise, for lists of adapters; left
   * out if that depends on what is behind them.
   */
  readonly capabilities?: AdapterCapabilities;
  /**
   * Makes an adapter.
   *
   * @throws {ConfigError} If the configuration cannot work; an outage that can pass is no reason.
   */
  create(
    config: ConfigValues<Fields>,
    environment: AdapterEnvironment,
  ): L2Adapter | Promise<L2Adapter>;
}

/** Declares an adapter module; the types of its configuration follow from the declaration. */
export function defineL2Adapter<const Fields extends ConfigFields>(
  module: L2AdapterModule<Fields>,
): L2AdapterModule<Fields> {
  return module;
}

/**
 * The adapter module that an imported module exports.
 *
 * @param exported A default export.
 * @throws {TypeError} If it was not made by {@linkcode defineL2Adapter}.
 */
export function asAdapterModule(exported: unknown): L2AdapterModule {
  if (isAdapterModule(exported)) return exported;
  const received = exported === undefined ? "none" : typeof exported;
  throw new TypeError(
    `Default export must be made by defineL2Adapter(), with type, summary, config and create: received ${received}`,
  );
}

function isAdapterModule(value: unknown): value is L2AdapterModule {
  if (typeof value !== "object" || value === null) return false;
  const { type, summary, config, create } = value as Partial<Record<string, unknown>>;
  return typeof type === "string" && /^[a-z][a-z0-9_]*$/.test(type) &&
    typeof summary === "string" && typeof config === "object" && config !== null &&
    typeof create === "function";
}

/** The bytes of an object in one new array. */
export function concatParts(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.byteLength;
  }
  return bytes;
}

/** The first `byteLength` bytes of parts, where they lie. */
export function frontOfParts(
  parts: readonly Uint8Array<ArrayBuffer>[],
  byteLength: number,
): Uint8Array<ArrayBuffer>[] {
  return payloadParts(byteLength, parts);
}

/**
 * Whether an object with `storedBytes` can be loaded into `roomBytes`; see
 * {@linkcode LoadOptions.allowShorter}.
 */
export function fitsRoom(storedBytes: number, roomBytes: number, allowShorter = false): boolean {
  return allowShorter ? storedBytes <= roomBytes : storedBytes === roomBytes;
}

/**
 * Copies `bytes` into the parts of an object.
 *
 * @returns Whether they fit exactly; if not, or if there are no bytes, nothing is copied.
 */
export function fillParts(parts: readonly Uint8Array[], bytes: Uint8Array | undefined): boolean {
  const wanted = parts.reduce((sum, part) => sum + part.byteLength, 0);
  if (bytes?.byteLength !== wanted) return false;
  const [only] = parts;
  if (only?.byteLength === wanted) {
    only.set(bytes);
    return true;
  }
  let offset = 0;
  for (const part of parts) {
    part.set(bytes.subarray(offset, offset + part.byteLength));
    offset += part.byteLength;
  }
  return true;
}
