/**
 * API for authors of storage adapters: the contract, the declaration of a module, and the types
 * used by both.
 *
 * An adapter is a module whose default export is created by {@linkcode defineL2Adapter}. The cache
 * takes care of deadlines, integrity and accounting, so a small adapter stays small:
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
import type { Clock } from "../base/clock.ts";
import type {
  AdapterObject,
  AdapterUsage,
  CallOptions,
  DeleteResult,
  ListedObject,
  ListOptions,
  LoadOptions,
  LookupOptions,
  StoreResult,
  SweepResult,
} from "./calls.ts";
import type { ConfigFields, ConfigValues } from "./config.ts";
import type { AdapterError } from "./errors.ts";

export { concatParts, fillParts, frontOfParts } from "../base/byte_parts.ts";
export {
  LruList,
  LruList as UseOrder,
  type LruPlace,
  type LruPlace as Place,
} from "../base/lru_list.ts";
export { Bitmap } from "../keys/bitmap.ts";
export { decodeFileName, encodeFileName, isHashedFileName } from "../keys/key_codec.ts";
export { ObjectKey, type ObjectKeyFields } from "../keys/object_key.ts";
export { type Clock, type ScheduleOptions, wait } from "../base/clock.ts";
export { type RandomSource, systemRandom } from "../base/random.ts";
export type {
  AdapterObject,
  AdapterUsage,
  CallOptions,
  DeleteResult,
  ListedObject,
  ListOptions,
  LoadOptions,
  LookupOptions,
  StoreResult,
  SweepResult,
} from "./calls.ts";
export {
  Capacity,
  type CapacityBounds,
  type CapacityOptions,
  type FoundObject,
  type RemovalResult,
} from "./capacity.ts";
export { parseAdapterConfig } from "./config.ts";
export type {
  BooleanField,
  ConfigField,
  ConfigFields,
  ConfigOf,
  Configurable,
  ConfigValue,
  ConfigValues,
  FieldBase,
  GivenValue,
  GivenValues,
  NumberField,
  NumberRange,
  NumbersField,
  ObjectField,
  RecordField,
  StringField,
} from "./config.ts";
export { ConfigError } from "../base/config_error.ts";
export { AdapterError } from "./errors.ts";
export {
  boundsOf,
  checkCapacity,
  evictionField,
  policyOf,
  watermarksOf,
} from "./eviction_field.ts";
export { unmetPath } from "./host_path.ts";
export {
  keyInTail,
  keyTail,
  keyTailBytes,
  MAX_TAIL_BYTES,
  type TrailerFault,
} from "./object_trailer.ts";

/** What an adapter guarantees beyond the contract. */
export interface AdapterCapabilities {
  /** Other processes with the same configuration see the same objects. @default {false} */
  readonly shared?: boolean;
  /** Objects survive the process. @default {false} */
  readonly durable?: boolean;
  /**
   * Objects are stored without the trailer of the cache and are loaded unverified. Allowed only
   * with the explicit consent of the user. @default {false}
   */
  readonly unsealed?: boolean;
  /**
   * It evicts by itself, so the cache removes nothing to make room. The objects looked up, loaded
   * or touched last should be evicted last. @default {false}
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
  /** Size in bytes of the largest object it accepts; left out if there is no limit. */
  readonly maxObjectBytes?: number;
  /** Bytes that a batch should have to reach full throughput; left out if it does not matter. */
  readonly preferredBytesInFlight?: number;
}

/**
 * A store for objects. Methods take batches of any size, return one bit for each key, and reject
 * only if the adapter fails: a missing object is a cleared bit. An object must become visible
 * completely or not at all, whatever happens meanwhile. The arrays passed to a call do not change
 * before it settles; the adapter must not read them afterwards.
 */
export interface L2Adapter {
  /** Capabilities of the adapter. */
  readonly capabilities: AdapterCapabilities;
  /** Stores objects, replacing those with the same keys. */
  store(objects: readonly AdapterObject[], options: CallOptions): Promise<StoreResult>;
  /**
   * Finds objects. An adapter that evicts by itself must keep the objects found until they are
   * unlocked. Locks are counted: after two lookups, an object is free after two unlocks.
   */
  lookupAndLock(keys: readonly ObjectKey[], options: LookupOptions): Promise<Bitmap>;
  /** Releases one lock of each key; keys that are unknown or not locked are ignored. */
  unlock?(keys: readonly ObjectKey[]): void;
  /**
   * Marks objects that were served from device memory as used, so that an adapter that evicts by
   * use does not evict them first. Called occasionally, with batches in prefix order; missing keys
   * are ignored. Returns at once and works in the background.
   */
  touch?(keys: readonly ObjectKey[]): void;
  /** Fills the parts of objects. An object whose length differs from the stored one is a miss. */
  load(objects: readonly AdapterObject[], options: LoadOptions): Promise<Bitmap>;
  /** Removes objects that are not locked. Reports which existed and how many bytes were freed. */
  delete?(keys: readonly ObjectKey[], options: CallOptions): Promise<DeleteResult>;
  /** Lists all objects in any order, including those of earlier runs. */
  list?(options: ListOptions): AsyncIterable<ListedObject>;
  /** Reports how much it holds, including objects of earlier runs. */
  usage?(options: CallOptions): Promise<AdapterUsage>;
  /**
   * Removes what writers that no longer run left behind, such as temporary files. Adapters that do
   * so by themselves may have done it when they were opened; the result includes that.
   */
  sweep?(options: CallOptions): Promise<SweepResult>;
  /**
   * Further status as JSON, never with secrets. Strings in a list named `problems` are shown in the
   * status of the cache, and make the adapter unhealthy.
   */
  reportStatus?(): Readonly<Record<string, unknown>>;
  /**
   * Releases all resources. A second call does nothing. Calls to other methods afterwards settle,
   * as misses or by rejecting.
   */
  [Symbol.asyncDispose](): Promise<void>;
}

/** Properties of device memory. */
export interface L1MemoryDescription {
  /** Kind of memory. */
  readonly type: "webgpu" | "host";
  /** Size in bytes of the largest object that it can hold. */
  readonly maxObjectBytes: number;
  /** Alignment of objects in it, in bytes. */
  readonly alignmentBytes: number;
}

/** What an adapter receives in addition to its configuration. */
export interface AdapterEnvironment {
  /** Device memory that objects come from and go to. */
  readonly l1Memory: L1MemoryDescription;
  /** Clock to use for all time. */
  readonly clock: Clock;
  /** Aborts when the cache closes. */
  readonly signal: AbortSignal;
  /** Reports a failure that affected a key but not the whole call. */
  readonly onError: (error: AdapterError) => void;
  /**
   * Reports objects that the adapter removed by itself to make room, so that the cache drops what
   * it knows of them. For adapters that evict.
   */
  readonly onEvicted?: (keys: readonly ObjectKey[]) => void;
  /**
   * Opens an adapter to be wrapped, which the caller must close: of the module, or else of one of
   * the known types. `serde` and `eviction` in its configuration work as at the top; the limits of
   * `eviction` apply to the outer adapter if that has none. Rejects with a `ConfigError` if the
   * configuration is not valid. Left out where no other types are known.
   */
  readonly open?: (config: InnerConfig, module?: L2AdapterModule) => Promise<L2Adapter>;
}

/** Configuration of an adapter that another one wraps: its type and the keys of that type. */
export interface InnerConfig {
  /** Type of the adapter. */
  readonly type: string;
  /** Keys that the type declares. */
  readonly [key: string]: unknown;
}

/** A module that provides one type of adapter; this is its default export. */
export interface L2AdapterModule<Fields extends ConfigFields = ConfigFields> {
  /** Name in configurations: lower-case letters, digits and `_`. */
  readonly type: string;
  /** Summary in one sentence. */
  readonly summary: string;
  /** Configuration keys other than `type`. */
  readonly config: Fields;
  /**
   * Capabilities of its adapters with the default configuration, for listings; left out if they
   * depend on a backend.
   */
  readonly capabilities?: AdapterCapabilities;
  /**
   * Creates an adapter.
   *
   * @throws {ConfigError} If the configuration is not valid. A temporary outage is no reason to
   * throw.
   */
  create(
    config: ConfigValues<Fields>,
    environment: AdapterEnvironment,
  ): L2Adapter | Promise<L2Adapter>;
}

/** Declares an adapter module. The types of its configuration are inferred from the declaration. */
export function defineL2Adapter<const Fields extends ConfigFields>(
  module: L2AdapterModule<Fields>,
): L2AdapterModule<Fields> {
  return module;
}

/**
 * Checks that the default export of an imported module is an adapter module.
 *
 * @param exported A default export.
 * @throws {TypeError} If it was not created by {@linkcode defineL2Adapter}.
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

/**
 * Whether an object of `storedBytes` can be loaded into buffers of `roomBytes`; see
 * {@linkcode LoadOptions.allowShorter}.
 */
export function fitsRoom(storedBytes: number, roomBytes: number, allowShorter = false): boolean {
  return allowShorter ? storedBytes <= roomBytes : storedBytes === roomBytes;
}
