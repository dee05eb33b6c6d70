import * as nodeFs from "node:fs";
import { AlignedReader, AlignedWriter } from "../_shared/aligned_transfers.ts";
import { AlignedBuffers, DIRECT_ALIGNMENT, O_DIRECT, refusalOf } from "../_shared/direct_access.ts";
import { FileWorker } from "../_shared/file_worker.ts";
import { numberedFiles } from "../_shared/numbered_files.ts";
import type { FileSystem } from "./file_system.ts";

const { O_RDONLY, O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW = 0, O_NONBLOCK = 0 } = nodeFs.constants;

/** The part of {@linkcode DirectFiles} that its users need. */
export type DirectFileSystem = Pick<DirectFiles, "files" | "probe" | "close">;

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
    const readable = numberedFiles(this.#reader);
    const buffers = this.#buffers;
    const worker = this.#writer;
    this.files = {
      ...files,
      async create(path, mode) {
        const flags = O_WRONLY | O_CREAT | O_EXCL | O_DIRECT;
        const file = await worker.ask({ op: "open", path, flags, mode });
        const writer = new AlignedWriter({ worker, file, buffers });
        return {
          write: (bytes) => writer.write(bytes),
          async flush() {
            const length = await writer.flush();
            if (length % DIRECT_ALIGNMENT !== 0) await worker.ask({ op: "truncate", file, length });
          },
          async syncData() {
            await worker.ask({ op: "sync", file });
          },
          [Symbol.dispose]() {
            worker.closeLater(file);
            writer[Symbol.dispose]();
          },
        };
      },
      async open(path, maxBytes) {
        const flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_DIRECT;
        const file = await readable.open(path, flags);
        const reader = new AlignedReader({ files: readable, file, buffers, end: maxBytes });
        return {
          read: (into, position) => reader.read(into, position),
          endsAt: (position) => reader.endsAt(position),
          [Symbol.dispose]() {
            reader[Symbol.dispose]();
            readable.close(file);
          },
        };
      },
    };
  }

  /**
   * Writes and reads a test file the way the adapter does.
   *
   * @returns Why direct I/O does not work, or `undefined`.
   */
  async probe(path: string, mode: number): Promise<string | undefined> {
    const refusal = await refusalOf(DIRECT_ALIGNMENT + 1, async (bytes) => {
      {
        using file = await this.files.create(path, mode);
        await file.write(bytes);
        await file.flush?.();
      }
      using file = await this.files.open(path, bytes.byteLength);
      const read = new Uint8Array(bytes.byteLength);
      const count = await file.read(read, 0);
      return await file.endsAt(count) ? read.subarray(0, count) : undefined;
    });
    await this.files.remove(path).catch(() => {});
    return refusal;
  }

  /** Terminates the workers once they have closed their files, or when `signal` aborts. */
  async close(signal?: AbortSignal): Promise<void> {
    await Promise.all([this.#writer.close(signal), this.#reader?.close(signal)]);
  }
}
