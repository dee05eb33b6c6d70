import { writeParts } from "../../src/base/byte_parts.ts";
import type { AdapterObject } from "../../src/adapter/contract.ts";

/** Bytes read from a connection at a time. */
const SCRATCH_BYTES = 256 * 1024;
/** Max buffers kept for later bodies. */
const MAX_KEPT = 16;

/**
 * Copies response bodies into parts through a few own buffers. A BYOB reader detaches the buffer
 * that it fills, so it cannot read directly into the caller's parts.
 */
export class BodyReader {
  readonly #kept: Uint8Array<ArrayBuffer>[] = [];

  /**
   * Copies a body to the bytes from `start` to `end`.
   *
   * @returns Whether the body has exactly that length; of a longer one, the remainder is not read.
   * @throws If the connection breaks.
   */
  async copy(
    body: ReadableStream<Uint8Array<ArrayBuffer>> | null,
    parts: AdapterObject["parts"],
    start: number,
    end: number,
  ): Promise<boolean> {
    if (body === null) return start === end;
    const reader = body.getReader({ mode: "byob" });
    let offset = start;
    let scratch = this.#kept.pop() ?? new Uint8Array(SCRATCH_BYTES);
    try {
      for (;;) {
        const { done, value } = await reader.read(scratch);
        if (value !== undefined) scratch = new Uint8Array(value.buffer);
        if (done) return offset === end;
        if (offset + value.byteLength > end) return false;
        writeParts(parts, offset, value);
        offset += value.byteLength;
      }
    } finally {
      reader.releaseLock();
      const isUsable = scratch.byteLength === SCRATCH_BYTES;
      if (isUsable && this.#kept.length < MAX_KEPT) this.#kept.push(scratch);
    }
  }
}
