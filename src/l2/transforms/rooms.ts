import { TRAILER_BYTES } from "../object_trailer.ts";
import { FRAME_HEADER_BYTES } from "./frame_header.ts";

/**
 * Host memory that adapters load into. What was used before is used again: the first use of memory
 * costs more than reading into it.
 */
export class BufferPool {
  readonly #maxIdleBytes: number;
  /** The last one was used last. */
  readonly #idle: Uint8Array<ArrayBuffer>[] = [];
  #idleBytes = 0;

  /** Keeps so many bytes at most that nobody uses. */
  constructor(maxIdleBytes: number) {
    this.#maxIdleBytes = maxIdleBytes;
  }

  /** Bytes that nobody uses. */
  get idleBytes(): number {
    return this.#idleBytes;
  }

  /** Room of this length, in which nothing looks like an object. */
  acquire(byteLength: number): Uint8Array<ArrayBuffer> {
    const index = this.#idle.findLastIndex((buffer) => buffer.byteLength === byteLength);
    const buffer = index < 0 ? undefined : this.#idle.splice(index, 1)[0];
    if (buffer === undefined) return new Uint8Array(byteLength);
    this.#idleBytes -= byteLength;
    // An adapter that fills nothing must not give out what was there before.
    buffer.fill(0, 0, FRAME_HEADER_BYTES);
    buffer.fill(0, Math.max(0, byteLength - TRAILER_BYTES));
    return buffer;
  }

  /** Takes back what nobody reads or writes any more. */
  release(buffer: Uint8Array<ArrayBuffer>): void {
    if (buffer.byteLength > this.#maxIdleBytes) return;
    this.#idle.push(buffer);
    this.#idleBytes += buffer.byteLength;
    while (this.#idleBytes > this.#maxIdleBytes) {
      this.#idleBytes -= this.#idle.shift()?.byteLength ?? 0;
    }
  }

  /** Lets go of all that nobody uses. */
  clear(): void {
    this.#idle.length = 0;
    this.#idleBytes = 0;
  }
}
