import * as nodeFs from "node:fs";
import {
  type AlignedBuffer,
  AlignedBuffers,
  alignUp,
  DIRECT_ALIGNMENT,
  DIRECT_BUFFER_BYTES,
  O_DIRECT,
} from "../_shared/direct_access.ts";
import { FileWorker } from "../_shared/file_worker.ts";
import { openNumbered, readNumbered } from "../_shared/numbered_files.ts";
import type { FileSystem, ReadableFile, WritableFile } from "./file_system.ts";

const { O_RDONLY, O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW = 0, O_NONBLOCK = 0 } = nodeFs.constants;

/** The part of {@linkcode DirectFiles} that its users need. */
export type DirectFileSystem = Pick<DirectFiles, "files" | "probe" | "close">;

/** Reads and closes files by descriptor. */
interface NumberedReader {
  open(path: string, flags: number): Promise<number>;
  read(file: number, into: AlignedBuffer, length: number, position: number): Promise<number>;
  close(file: number): void;
}

/**
 * A file system that bypasses the page cache (`O_DIRECT`) through aligned buffers. Writes run in a
 * worker, because Deno has no asynchronous write for such files.
 */
export class DirectFiles {
  readonly files: FileSystem;
  readonly #buffers = new AlignedBuffers();
  readonly #writer = new FileWorker();
  readonly #reader: FileWorker | undefined;

  /**
   * Handles reads and writes; everything else goes to `files`.
   *
   * @param closesInPlace Whether the thread that runs the engine may close files, which takes no
   * time on a local disk.
   */
  constructor(files: FileSystem, closesInPlace = true) {
    if (!closesInPlace) this.#reader = new FileWorker();
    const reader = this.#reader === undefined ? hostReader : workerReader(this.#reader);
    this.files = {
      ...files,
      create: async (path, mode) => {
        const buffer = this.#buffers.take();
        try {
          const flags = O_WRONLY | O_CREAT | O_EXCL | O_DIRECT;
          const file = await this.#writer.ask({ op: "open", path, flags, mode });
          return new DirectWritableFile(this.#writer, file, buffer, this.#buffers);
        } catch (error) {
          this.#buffers.giveBack(buffer);
          throw error;
        }
      },
      open: async (path) => {
        const flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_DIRECT;
        return new DirectReadableFile(await reader.open(path, flags), reader, this.#buffers);
      },
    };
  }

  /**
   * Writes and reads a test file the way the adapter does.
   *
   * @returns Why direct I/O does not work, or `undefined`.
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
      using file = await this.files.open(path, Infinity);
      const read = new Uint8Array(bytes.byteLength);
      const count = await file.read(read, 0);
      const isSame = count === bytes.byteLength && bytes.every((byte, i) => read[i] === byte);
      return isSame && await file.endsAt(count)
        ? undefined
        : "the bytes read differ from those written";
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    } finally {
      await this.files.remove(path).catch(() => {});
    }
  }

  /** Terminates the workers once they have closed their files, or when `signal` aborts. */
  async close(signal?: AbortSignal): Promise<void> {
    await Promise.all([this.#writer.close(signal), this.#reader?.close(signal)]);
  }
}

const hostReader: NumberedReader = {
  open: openNumbered,
  read: (file, into, length, position) => readNumbered(file, into.subarray(0, length), position),
  close: (file) => nodeFs.closeSync(file),
};

function workerReader(worker: FileWorker): NumberedReader {
  return {
    open: (path, flags) => worker.ask({ op: "open", path, flags }),
    read: (file, { buffer }, length, position) =>
      worker.ask({ op: "read", file, buffer, from: 0, length, position }),
    close: (file) => worker.closeLater(file),
  };
}

class DirectReadableFile implements ReadableFile {
  readonly #file: number;
  readonly #reader: NumberedReader;
  readonly #buffers: AlignedBuffers;
  /** Buffered bytes of the file, from `#start` on. */
  readonly #buffer: AlignedBuffer;
  #start = 0;
  #count = 0;

  constructor(file: number, reader: NumberedReader, buffers: AlignedBuffers) {
    this.#file = file;
    this.#reader = reader;
    this.#buffers = buffers;
    this.#buffer = buffers.take();
  }

  async read(into: Uint8Array<ArrayBuffer>, position: number): Promise<number> {
    if (position < this.#start || position >= this.#start + this.#count) {
      this.#start = position - position % DIRECT_ALIGNMENT;
      // One byte more than needed, so that the end of the file is detected.
      const wanted = position - this.#start + into.byteLength + 1;
      const length = Math.min(DIRECT_BUFFER_BYTES, alignUp(wanted));
      this.#count = 0;
      this.#count = await this.#reader.read(this.#file, this.#buffer, length, this.#start);
    }
    const from = position - this.#start;
    const bytes = this.#buffer.subarray(from, Math.min(this.#count, from + into.byteLength));
    into.set(bytes);
    return bytes.byteLength;
  }

  endsAt(position: number): boolean | undefined {
    const end = this.#start + this.#count;
    if (position >= this.#start && position < end) return false;
    // A short read within a block only happens at the end of the file.
    return position === end && position % DIRECT_ALIGNMENT !== 0 ? true : undefined;
  }

  [Symbol.dispose](): void {
    this.#buffers.giveBack(this.#buffer);
    this.#reader.close(this.#file);
  }
}

class DirectWritableFile implements WritableFile {
  readonly #writer: FileWorker;
  readonly #file: number;
  readonly #buffer: AlignedBuffer;
  readonly #buffers: AlignedBuffers;
  #filled = 0;
  #written = 0;

  constructor(writer: FileWorker, file: number, buffer: AlignedBuffer, buffers: AlignedBuffers) {
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
    this.#writer.closeLater(this.#file);
    this.#buffers.giveBack(this.#buffer);
  }

  async #writeOut(length: number): Promise<void> {
    this.#buffer.fill(0, this.#filled, length);
    await this.#writer.write(this.#file, this.#buffer, length, this.#written);
    this.#written += this.#filled;
    this.#filled = 0;
  }
}
