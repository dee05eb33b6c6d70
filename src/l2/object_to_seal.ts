import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { GuardedObject } from "./adapter_guard.ts";
import { bytesWithTrailer, writeTrailer } from "../adapter/object_trailer.ts";

/**
 * An object whose trailer is written when an adapter first reads its parts: by then earlier objects
 * are being stored, and its own bytes are in the CPU caches.
 */
export class ObjectWithTrailer implements GuardedObject {
  readonly key: ObjectKey;
  readonly layout: ObjectLayout;
  /** Bytes of the payload, the inline key and the trailer. */
  readonly byteLength: number;
  readonly #parts: readonly Uint8Array<ArrayBuffer>[];
  #hasTrailer = false;

  /** Takes parts that hold the payload, followed by space for the inline key and the trailer. */
  constructor(
    key: ObjectKey,
    layout: ObjectLayout,
    parts: readonly Uint8Array<ArrayBuffer>[],
  ) {
    this.key = key;
    this.layout = layout;
    this.byteLength = bytesWithTrailer(key, layout);
    this.#parts = parts;
  }

  /** Payload, inline key and trailer. */
  get parts(): readonly Uint8Array<ArrayBuffer>[] {
    if (!this.#hasTrailer) {
      writeTrailer(this.key, this.layout, this.#parts);
      this.#hasTrailer = true;
    }
    return this.#parts;
  }
}
