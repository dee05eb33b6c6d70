import { isUnshared, readParts, viewOfParts } from "../../src/base/byte_parts.ts";
import type { AdapterObject } from "../../src/adapter/contract.ts";

/** Max bytes of a body whose buffer is kept for the next one. */
const MAX_KEPT_BYTES = 16 * 2 ** 20;

/**
 * Builds request bodies from parts. `fetch` copies a body when it is called, so one buffer serves
 * all requests; keeping it in the CPU cache outweighs the copy.
 */
export class BodyComposer {
  #kept = new Uint8Array(0);

  /** The bytes from `start` to `end`; valid until the next call. */
  compose(
    parts: AdapterObject["parts"],
    start: number,
    end: number,
  ): Uint8Array<ArrayBuffer> {
    const view = viewOfParts(parts, start, end);
    // fetch() takes no bytes that threads share.
    if (view !== undefined && isUnshared(view)) return view;
    const body = this.#buffer(end - start);
    readParts(parts, start, body);
    return body;
  }

  #buffer(byteLength: number): Uint8Array<ArrayBuffer> {
    if (byteLength > MAX_KEPT_BYTES) return new Uint8Array(byteLength);
    if (this.#kept.byteLength < byteLength) this.#kept = new Uint8Array(byteLength);
    return this.#kept.subarray(0, byteLength);
  }
}
