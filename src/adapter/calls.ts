import type { Bitmap } from "../keys/bitmap.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { TrailerFault } from "./object_trailer.ts";

/**
 * One object of a batch: its key and its bytes in consecutive parts, opaque to the adapter. The
 * buffers belong to the caller and are valid until the call settles. An adapter must not keep,
 * transfer or (in `store`) change them.
 */
export interface AdapterObject {
  /** Key of the object. */
  readonly key: ObjectKey;
  /**
   * Bytes of the object: `store` reads them, `load` fills them. They may lie in a
   * `SharedArrayBuffer`, which a few functions of the host refuse (`fetch`, `crypto.subtle`,
   * transfers to a worker): `concatParts()` and `slice()` copy into an `ArrayBuffer`.
   */
  readonly parts: readonly Uint8Array[];
  /** Total bytes of all parts. */
  readonly byteLength: number;
}

/** Options of every call. */
export interface CallOptions {
  /** Aborts when the caller stops waiting; the adapter may stop as well. */
  readonly signal: AbortSignal;
}

/** Options of `load`. */
export interface LoadOptions extends CallOptions {
  /**
   * May be called, before the call settles, with the index of an object whose parts are filled: the
   * object is then verified while others are still loading. The bit in the result is decisive.
   *
   * Never throws, whatever the index, and does nothing after the call has settled.
   *
   * A `fault` says that the object exists but is not what was stored, as the adapter itself has
   * detected: a miss that counts as damaged. An object of another length has the fault `layout`: it
   * was stored with another layout or `serde`, and is not removed.
   *
   * A `proof` comes from the cache's own threads, which have computed the checksum of the bytes that
   * they read; anything else is ignored. It is passed on only with the parts as they were filled.
   */
  readonly onLoaded?: (index: number, fault?: TrailerFault, proof?: unknown) => void;
  /**
   * An object that is shorter than its parts fills the front of them instead of being a miss.
   * Passed only to adapters that declare `acceptsShortObjects`.
   *
   * @default {false}
   */
  readonly allowShorter?: boolean;
}

/** Options of `lookupAndLock`. */
export interface LookupOptions extends CallOptions {
  /**
   * The keys form a chain of which only the front is wanted, so the answer may stop at the first
   * gap. Where lookups are slow, an adapter may search for the end of the chain instead of checking
   * each key, and take a key for present because later ones are. If that turns out wrong, `load`
   * misses it, and the adapter must not claim it again.
   */
  readonly prefix: boolean;
}

/** Options of `list`. */
export interface ListOptions extends CallOptions {
  /** Restricts the listing to objects of this model. */
  readonly model?: string;
  /** Called for each object that is left out of the listing because its key is unknown. */
  readonly onKeyless?: () => void;
}

/** Result of `store`. */
export interface StoreResult {
  /** One bit for each object: whether it can be loaded now. */
  readonly stored: Bitmap;
  /** Bytes written. */
  readonly bytes: number;
  /** Bytes that each object occupies; may be left out if equal to its `byteLength`. */
  readonly sizes?: readonly number[];
}

/** Result of `delete`. */
export interface DeleteResult {
  /** One bit for each key: whether its object existed and has been removed. */
  readonly deleted: Bitmap;
  /** Bytes of the removed objects. */
  readonly bytes: number;
}

/** An object found by `list`. */
export interface ListedObject {
  /** Key of the object. */
  readonly key: ObjectKey;
  /** Bytes that the object occupies. */
  readonly byteLength: number;
  /** Bytes to request from `load`; left out if equal to `byteLength`. */
  readonly loadBytes?: number;
  /** Time of the last store or use, in milliseconds since 1970; left out if unknown. */
  readonly usedAt?: number;
}

/** What an adapter removed since it was opened because its writer no longer runs. */
export interface SweepResult {
  /** Number of files, or of whatever else was left behind. */
  readonly files: number;
  /** Bytes that they occupied. */
  readonly bytes: number;
}

/** Amount of data that an adapter holds. */
export interface AdapterUsage {
  /** Bytes used. */
  readonly usedBytes: number;
  /** Maximum bytes it may use; left out if unknown. */
  readonly capacityBytes?: number;
  /** Number of objects. */
  readonly objectCount: number;
}
