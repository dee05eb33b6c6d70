import { TRAILER_BYTES } from "../object_trailer.ts";
import { FRAME_HEADER_BYTES } from "./frame_header.ts";

/**
 * Host memory that adapters load into. What was used before is used again: the first use of memory
 * costs more than reading into it.
 */
export class Rooms {
  readonly #mostIdleBytes: number;
  /** The last one was used last. */
  readonly #idle: Uint8Array<ArrayBuffer>[] = [];
  #idleBytes = 0;

  /** Keeps so many bytes at most that nobody uses. */
  constructor(mostIdleBytes: number) {
    this.#mostIdleBytes = mostIdleBytes;
  }

  /** Bytes that nobody uses. */
  get idleBytes(): number {
    return this.#idleBytes;
  }

  /** Room of this length, in which nothing looks like an object. */
  take(byteLength: number): Uint8Array<ArrayBuffer> {
    const index = this.#idle.findLastIndex((room) => room.byteLength === byteLength);
    const room = index < 0 ? undefined : this.#idle.splice(index, 1)[0];
    if (room === undefined) return new Uint8Array(byteLength);
    this.#idleBytes -= byteLength;
    // An adapter that fills nothing must not give out what was there before.
    room.fill(0, 0, FRAME_HEADER_BYTES);
    room.fill(0, Math.max(0, byteLength - TRAILER_BYTES));
    return room;
  }

  /** Takes back what nobody reads or writes any more. */
  give(room: Uint8Array<ArrayBuffer>): void {
    if (room.byteLength > this.#mostIdleBytes) return;
    this.#idle.push(room);
    this.#idleBytes += room.byteLength;
    while (this.#idleBytes > this.#mostIdleBytes) {
      this.#idleBytes -= this.#idle.shift()?.byteLength ?? 0;
    }
  }

  /** Lets go of all that nobody uses. */
  clear(): void {
    this.#idle.length = 0;
    this.#idleBytes = 0;
  }
}
