import type { ObjectParts } from "../_shared/object_parts.ts";

/** Bytes of the longest body whose memory is kept for the next. */
const MOST_KEPT_BYTES = 16 * 2 ** 20;

/**
 * Makes bodies of parts. `fetch` copies a body when it is called, so that the same memory serves
 * for all of them: that it is warm is worth more than the copy costs.
 */
export class BodyComposer {
  #kept = new Uint8Array(0);

  /** The bytes from `start` to `end`, valid until this is called again. */
  compose(parts: ObjectParts, start: number, end: number): Uint8Array<ArrayBuffer> {
    const view = parts.view(start, end);
    if (view !== undefined) return view;
    const body = this.#room(end - start);
    parts.copyTo(body, start);
    return body;
  }

  #room(byteLength: number): Uint8Array<ArrayBuffer> {
    if (byteLength > MOST_KEPT_BYTES) return new Uint8Array(byteLength);
    if (this.#kept.byteLength < byteLength) this.#kept = new Uint8Array(byteLength);
    return this.#kept.subarray(0, byteLength);
  }
}
