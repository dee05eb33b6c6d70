import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { SealTask } from "../base/io/io_batch.ts";
import type { AdapterObject } from "./calls.ts";
import { bytesWithTrailer, tailWithoutChecksums, writeTrailer } from "./object_trailer.ts";

/** The bytes of an object, and what completes them; `undefined` if they are complete. */
export interface PartsToSeal {
  readonly parts: AdapterObject["parts"];
  readonly seal: SealTask | undefined;
}

/**
 * An object whose trailer is written when an adapter first reads its parts: by then earlier objects
 * are being stored, and its own bytes are in the CPU caches. Threads write the trailer of an object
 * themselves; whatever writes it writes the same bytes.
 */
export class ObjectWithTrailer implements AdapterObject {
  readonly key: ObjectKey;
  readonly layout: ObjectLayout;
  /** Bytes of the payload, the inline key and the trailer. */
  readonly byteLength: number;
  readonly #parts: readonly Uint8Array[];
  #hasTrailer = false;

  /** Takes parts that hold the payload, followed by space for the inline key and the trailer. */
  constructor(
    key: ObjectKey,
    layout: ObjectLayout,
    parts: readonly Uint8Array[],
  ) {
    this.key = key;
    this.layout = layout;
    this.byteLength = bytesWithTrailer(key, layout);
    this.#parts = parts;
  }

  /**
   * Parts of any object, for threads of the cache that complete them: the trailer need not be
   * written yet.
   */
  static partsToSeal(object: AdapterObject): PartsToSeal {
    if (!(#hasTrailer in object) || object.#hasTrailer) {
      return { parts: object.parts, seal: undefined };
    }
    const { key, layout } = object;
    const tail = tailWithoutChecksums(key, layout);
    return { parts: object.#parts, seal: { payloadBytes: layout.byteLength, tail } };
  }

  /** Payload, inline key and trailer. */
  get parts(): readonly Uint8Array[] {
    if (!this.#hasTrailer) {
      writeTrailer(this.key, this.layout, this.#parts);
      this.#hasTrailer = true;
    }
    return this.#parts;
  }
}
