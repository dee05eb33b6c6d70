import type { ObjectParts } from "../_shared/object_parts.ts";

/** Bytes that are taken from a connection at a time. */
const SCRATCH_BYTES = 256 * 1024;
/** Buffers that are kept for the next body. */
const MOST_KEPT = 16;

/**
 * Copies bodies into the parts that wait for them, through a few buffers of its own: a reader that
 * fills given memory would detach it, and the parts are the caller's.
 */
export class BodyReader {
  readonly #kept: Uint8Array<ArrayBuffer>[] = [];

  /**
   * Copies a body to the bytes from `start` to `end`.
   *
   * @returns Whether it has as many bytes as that; if it has more, the rest is not read.
   * @throws If it breaks off.
   */
  async copy(
    body: ReadableStream<Uint8Array<ArrayBuffer>> | null,
    parts: ObjectParts,
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
        parts.fill(value, offset);
        offset += value.byteLength;
      }
    } finally {
      reader.releaseLock();
      const isUsable = scratch.byteLength === SCRATCH_BYTES;
      if (isUsable && this.#kept.length < MOST_KEPT) this.#kept.push(scratch);
    }
  }
}
