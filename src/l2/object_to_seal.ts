import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { GuardedObject } from "./adapter_guard.ts";
import { bytesWithTrailer, writeTrailer } from "./object_trailer.ts";

/**
 * An object that is sealed when an adapter first asks for its bytes: by then the bytes of those
 * before it are being written, and its own are in the caches of the processor.
 */
export class ObjectWithTrailer implements GuardedObject {
  /** Its key. */
  readonly key: ObjectKey;
  /** Layout of the payload. */
  readonly layout: ObjectLayout;
  /** Bytes of the payload and of what stands behind it. */
  readonly byteLength: number;
  readonly #parts: readonly Uint8Array<ArrayBuffer>[];
  #isSealed = false;

  /** `parts` hold the payload, and have room for what is to stand behind it. */
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

  /** The payload and the seal. */
  get parts(): readonly Uint8Array<ArrayBuffer>[] {
    if (!this.#isSealed) {
      writeTrailer(this.key, this.layout, this.#parts);
      this.#isSealed = true;
    }
    return this.#parts;
  }
}
