import { turnEventLoop } from "./event_loop.ts";
import type { ByteSink, ByteSource } from "./state_file.ts";

/** Input from memory. The event loop turns with each read. */
export function memorySource(bytes: Uint8Array<ArrayBuffer>): ByteSource {
  return {
    byteLength: bytes.byteLength,
    read: async (offset, into) => {
      into.set(bytes.subarray(offset, offset + into.byteLength));
      await turnEventLoop();
    },
    [Symbol.dispose]: () => {},
  };
}

/** Output to memory. The event loop turns with each write. */
export class MemorySink implements ByteSink {
  readonly #byteLength: number;
  #bytes = new Uint8Array(0);
  #done = 0;

  /**
   * @param byteLength Expected size. Memory is allocated for what is written, because stored data
   * may claim any size.
   */
  constructor(byteLength: number) {
    this.#byteLength = byteLength;
  }

  /** The bytes, after all of them are written. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes;
  }

  async write(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    const end = this.#done + bytes.byteLength;
    if (end > this.#bytes.byteLength) {
      const size = Math.min(this.#byteLength, Math.max(end, 2 * this.#bytes.byteLength));
      this.#bytes = new Uint8Array(this.#bytes.buffer.transfer(size));
    }
    this.#bytes.set(bytes, this.#done);
    this.#done = end;
    await turnEventLoop();
  }

  commit(): Promise<void> {
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}
