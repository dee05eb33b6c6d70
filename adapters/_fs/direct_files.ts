import * as nodeFs from "node:fs";
import {
  type AlignedBuffer,
  AlignedBuffers,
  alignUp,
  DIRECT_ALIGNMENT,
  DIRECT_BUFFER_BYTES,
  DirectWriter,
  O_DIRECT,
} from "../_shared/direct_access.ts";
import { openNumbered, readNumbered } from "../_shared/numbered_files.ts";
import type { FileSystem, ReadableFile, WritableFile } from "./file_system.ts";

const { O_RDONLY, O_NOFOLLOW = 0, O_NONBLOCK = 0 } = nodeFs.constants;

/** What {@linkcode DirectFiles} are to who uses them. */
export type DirectFileSystem = Pick<DirectFiles, "files" | "probe" | typeof Symbol.asyncDispose>;

/**
 * A file system whose files are read and written past the page cache (`O_DIRECT`), through aligned
 * buffers. Writes run in a worker: Deno knows no asynchronous write to such a file.
 */
export class DirectFiles implements AsyncDisposable {
  /** The file system. */
  readonly files: FileSystem;
  readonly #buffers = new AlignedBuffers();
  readonly #writer = new DirectWriter();

  /** Reads and writes past the cache, and leaves everything else to `files`. */
  constructor(files: FileSystem) {
    this.files = {
      ...files,
      create: async (path, mode) => {
        const buffer = this.#buffers.take();
        try {
          const file = await this.#writer.ask({ op: "create", path, mode });
          return new DirectWritableFile(this.#writer, file, buffer, this.#buffers);
        } catch (error) {
          this.#buffers.giveBack(buffer);
          throw error;
        }
      },
      open: async (path) => {
        const flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_DIRECT;
        const file = await openNumbered(path, flags);
        return new DirectReadableFile(file, this.#buffers);
      },
    };
  }

  /**
   * Writes and reads a file as the adapter does.
   *
   * @returns Why that does not work, or `undefined`.
   */
  async probe(path: string, mode: number): Promise<string | undefined> {
    if (O_DIRECT === 0) return "this operating system has no O_DIRECT";
    const bytes = new Uint8Array(DIRECT_ALIGNMENT + 1).map((_, i) => i % 251);
    try {
      {
        using file = await this.files.create(path, mode);
        await file.write(bytes);
        await file.flush();
      }
      using file = await this.files.open(path);
      const read = new Uint8Array(bytes.byteLength);
      const count = await file.read(read, 0);
      const isSame = count === bytes.byteLength && bytes.every((byte, i) => read[i] === byte);
      return isSame && file.endsAt(count) ? undefined : "what was read is not what was written";
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    } finally {
      await this.files.remove(path).catch(() => {});
    }
  }

  /** Ends the worker, when it has closed its files. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#writer.close();
  }
}

class DirectReadableFile implements ReadableFile {
  readonly #file: number;
  readonly #buffers: AlignedBuffers;
  /** Bytes of the file that lie in the buffer, from `#start` on. */
  readonly #buffer: AlignedBuffer;
  #start = 0;
  #count = 0;

  constructor(file: number, buffers: AlignedBuffers) {
    this.#file = file;
    this.#buffers = buffers;
    this.#buffer = buffers.take();
  }

  async read(into: Uint8Array<ArrayBuffer>, position: number): Promise<number> {
    if (position < this.#start || position >= this.#start + this.#count) {
      this.#start = position - position % DIRECT_ALIGNMENT;
      // One block more than is wanted, so that the end of the file shows.
      const wanted = position - this.#start + into.byteLength + 1;
      const length = Math.min(DIRECT_BUFFER_BYTES, alignUp(wanted));
      this.#count = 0;
      this.#count = await readNumbered(this.#file, this.#buffer.subarray(0, length), this.#start);
    }
    const from = position - this.#start;
    const bytes = this.#buffer.subarray(from, Math.min(this.#count, from + into.byteLength));
    into.set(bytes);
    return bytes.byteLength;
  }

  endsAt(position: number): boolean {
    const end = this.#start + this.#count;
    if (position >= this.#start && position < end) return false;
    // A read ends within a block only where the file does.
    if (position === end && position % DIRECT_ALIGNMENT !== 0) return true;
    const known = position === end ? position : position - 1;
    const from = Math.max(0, known - known % DIRECT_ALIGNMENT);
    const blocks = this.#buffer.subarray(0, 2 * DIRECT_ALIGNMENT);
    this.#count = 0;
    return from + nodeFs.readSync(this.#file, blocks, 0, blocks.byteLength, from) === position;
  }

  [Symbol.dispose](): void {
    this.#buffers.giveBack(this.#buffer);
    nodeFs.closeSync(this.#file);
  }
}

class DirectWritableFile implements WritableFile {
  readonly #writer: DirectWriter;
  readonly #file: number;
  readonly #buffer: AlignedBuffer;
  readonly #buffers: AlignedBuffers;
  #filled = 0;
  #written = 0;

  constructor(writer: DirectWriter, file: number, buffer: AlignedBuffer, buffers: AlignedBuffers) {
    this.#writer = writer;
    this.#file = file;
    this.#buffer = buffer;
    this.#buffers = buffers;
  }

  async write(bytes: Uint8Array<ArrayBuffer>): Promise<number> {
    if (this.#filled === DIRECT_BUFFER_BYTES) await this.#writeOut(DIRECT_BUFFER_BYTES);
    const taken = bytes.subarray(0, DIRECT_BUFFER_BYTES - this.#filled);
    this.#buffer.set(taken, this.#filled);
    this.#filled += taken.byteLength;
    return taken.byteLength;
  }

  async flush(): Promise<void> {
    const length = this.#written + this.#filled;
    if (this.#filled > 0) await this.#writeOut(alignUp(this.#filled));
    if (length % DIRECT_ALIGNMENT === 0) return;
    await this.#writer.ask({ op: "truncate", file: this.#file, length });
  }

  async syncData(): Promise<void> {
    await this.#writer.ask({ op: "sync", file: this.#file });
  }

  [Symbol.dispose](): void {
    this.#writer.forget(this.#file);
    this.#buffers.giveBack(this.#buffer);
  }

  async #writeOut(length: number): Promise<void> {
    this.#buffer.fill(0, this.#filled, length);
    await this.#writer.write(this.#file, this.#buffer, length, this.#written);
    this.#written += this.#filled;
    this.#filled = 0;
  }
}
