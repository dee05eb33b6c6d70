import { TRAILER_BYTES } from "../../adapter/object_trailer.ts";
import { FRAME_HEADER_BYTES } from "./frame_header.ts";

/**
 * Buffer pool for loads. Reuses buffers, because the first use of memory costs more than reading
 * into it.
 */
export class BufferPool {
  readonly #maxIdleBytes: number;
  /** Idle buffers, most recently used last. */
  readonly #idle: Uint8Array<ArrayBuffer>[] = [];
  #idleBytes = 0;

  /** Keeps at most `maxIdleBytes` of idle buffers. */
  constructor(maxIdleBytes: number) {
    this.#maxIdleBytes = maxIdleBytes;
  }

  get idleBytes(): number {
    return this.#idleBytes;
  }

  /** Returns a buffer of this length that does not contain a valid object. */
  acquire(byteLength: number): Uint8Array<ArrayBuffer> {
    const index = this.#idle.findLastIndex((buffer) => buffer.byteLength === byteLength);
    const buffer = index < 0 ? undefined : this.#idle.splice(index, 1)[0];
    if (buffer === undefined) return new Uint8Array(byteLength);
    this.#idleBytes -= byteLength;
    // An adapter that fills nothing must not expose the previous object.
    buffer.fill(0, 0, FRAME_HEADER_BYTES);
    buffer.fill(0, Math.max(0, byteLength - TRAILER_BYTES));
    return buffer;
  }

  /** Returns a buffer that is no longer read or written. */
  release(buffer: Uint8Array<ArrayBuffer>): void {
    if (buffer.byteLength > this.#maxIdleBytes) return;
    this.#idle.push(buffer);
    this.#idleBytes += buffer.byteLength;
    while (this.#idleBytes > this.#maxIdleBytes) {
      this.#idleBytes -= this.#idle.shift()?.byteLength ?? 0;
    }
  }

  /** Drops all idle buffers. */
  clear(): void {
    this.#idle.length = 0;
    this.#idleBytes = 0;
  }
}
