import {
  type AlignedBuffer,
  type AlignedBuffers,
  alignUp,
  DIRECT_ALIGNMENT,
  DIRECT_BUFFER_BYTES,
} from "./direct_access.ts";
import type { FileWorker } from "./file_worker.ts";
import type { NumberedFiles } from "./numbered_files.ts";

/** Options of an {@linkcode AlignedReader}. */
export interface AlignedReaderOptions {
  readonly files: NumberedFiles;
  /** Descriptor of the file. */
  readonly file: number;
  readonly buffers: AlignedBuffers;
  /** End of what is going to be read: as much as fits into the buffer is read at once. */
  readonly end: number;
}

/** Reads a file that is open for direct I/O, through an aligned buffer. */
export class AlignedReader implements Disposable {
  readonly #options: AlignedReaderOptions;
  /** Buffered bytes of the file, from `#start` on. */
  readonly #buffer: AlignedBuffer;
  #start = 0;
  #count = 0;

  constructor(options: AlignedReaderOptions) {
    this.#options = options;
    this.#buffer = options.buffers.take();
  }

  /** Reads from `position` on; resolves to the number of bytes, 0 at the end. */
  async read(into: Uint8Array, position: number): Promise<number> {
    if (position < this.#start || position >= this.#start + this.#count) {
      const { files, file, end } = this.#options;
      this.#start = position - position % DIRECT_ALIGNMENT;
      const wanted = Math.max(end, position + into.byteLength) - this.#start;
      const length = Math.min(DIRECT_BUFFER_BYTES, alignUp(wanted));
      this.#count = 0;
      this.#count = await files.read(file, this.#buffer, length, this.#start);
    }
    const from = position - this.#start;
    const bytes = this.#buffer.subarray(from, Math.min(this.#count, from + into.byteLength));
    into.set(bytes);
    return bytes.byteLength;
  }

  /** Whether the file ends at `position`; `undefined` if only a read can tell. */
  endsAt(position: number): boolean | undefined {
    const end = this.#start + this.#count;
    if (position >= this.#start && position < end) return false;
    // A short read within a block only happens at the end of the file.
    return position === end && position % DIRECT_ALIGNMENT !== 0 ? true : undefined;
  }

  [Symbol.dispose](): void {
    this.#options.buffers.giveBack(this.#buffer);
  }
}

/** Options of an {@linkcode AlignedWriter}. */
export interface AlignedWriterOptions {
  readonly worker: FileWorker;
  /** Descriptor of the file in the worker. */
  readonly file: number;
  readonly buffers: AlignedBuffers;
  /** Where the bytes are written; a multiple of the alignment. @default {0} */
  readonly position?: number;
}

/** Writes a file that is open for direct I/O sequentially, through an aligned buffer. */
export class AlignedWriter implements Disposable {
  readonly #options: AlignedWriterOptions;
  readonly #buffer: AlignedBuffer;
  /** Where the bytes in the buffer are written. */
  #position: number;
  #filled = 0;

  constructor(options: AlignedWriterOptions) {
    this.#options = options;
    this.#buffer = options.buffers.take();
    this.#position = options.position ?? 0;
  }

  /** Appends bytes; resolves to the number accepted. */
  async write(bytes: Uint8Array): Promise<number> {
    if (this.#filled === DIRECT_BUFFER_BYTES) await this.flush();
    const taken = bytes.subarray(0, DIRECT_BUFFER_BYTES - this.#filled);
    this.#buffer.set(taken, this.#filled);
    this.#filled += taken.byteLength;
    return taken.byteLength;
  }

  /** Writes the buffered bytes, and zeros up to a whole block; resolves to the end of the bytes. */
  async flush(): Promise<number> {
    const length = alignUp(this.#filled);
    if (length > 0) {
      const { worker, file } = this.#options;
      this.#buffer.fill(0, this.#filled, length);
      await worker.write(file, this.#buffer, length, this.#position);
    }
    this.#position += this.#filled;
    this.#filled = 0;
    return this.#position;
  }

  [Symbol.dispose](): void {
    this.#options.buffers.giveBack(this.#buffer);
  }
}
