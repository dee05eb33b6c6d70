import { concatParts } from "../../src/adapter/contract.ts";
import { notAFile } from "../_shared/errno.ts";
import { FileWorker } from "../_shared/file_worker.ts";
import {
  type FileSystem,
  hostFileSystem,
  type ReadableFile,
  type WritableFile,
} from "./file_system.ts";

/** Smaller parts are written together, in bytes. */
const SMALL_PART_BYTES = 16_384;

/**
 * File operations for file systems where closing a file may block on a hanging server. Deno closes
 * files on the thread that runs the engine. Here, one call on another thread opens, reads and
 * closes a file, or a worker holds it open.
 */
export class OffThreadFiles {
  readonly files: FileSystem;
  /** Holds the locks, and syncs. */
  readonly #worker = new FileWorker();

  /** Uses the page cache. */
  constructor() {
    const worker = this.#worker;
    this.files = {
      ...hostFileSystem,
      create: (path, mode) => Promise.resolve(new OffThreadWritableFile(path, mode, worker)),
      async open(path, maxBytes) {
        const { isFile, size } = await Deno.lstat(path);
        // Deno.readFile() would follow a link, and block on a FIFO.
        if (!isFile) throw notAFile(path);
        return wholeFile(size > maxBytes ? new Uint8Array(0) : await Deno.readFile(path));
      },
      async lock(path, { create, mode }) {
        const lock = await worker.ask({ op: "lock", path, create, mode });
        return lock === 0 ? undefined : {
          async read(maxBytes) {
            const { bytes } = await worker.request({ op: "readLocked", lock, maxBytes });
            return bytes ?? new Uint8Array(0);
          },
          async write(bytes) {
            await worker.ask({ op: "writeLocked", lock, bytes });
          },
          [Symbol.dispose]: () => void worker.ask({ op: "unlock", lock }).catch(() => {}),
        };
      },
    };
  }

  /** Terminates the worker once it has closed its files, or when `signal` aborts. */
  close(signal?: AbortSignal): Promise<void> {
    return this.#worker.close(signal);
  }
}

/** A file that was read completely when it was opened. */
function wholeFile(whole: Uint8Array): ReadableFile {
  return {
    read(into, position) {
      const bytes = whole.subarray(position, position + into.byteLength);
      into.set(bytes);
      return Promise.resolve(bytes.byteLength);
    },
    endsAt: (position) => whole.byteLength === position,
    [Symbol.dispose]() {},
  };
}

/**
 * A file that is open only while a call writes to it: only `Deno.writeFile()` closes a file on
 * another thread.
 */
class OffThreadWritableFile implements WritableFile {
  readonly #path: string;
  readonly #worker: FileWorker;
  /** How the next write opens the file. */
  #how: Deno.WriteFileOptions;
  #small: Uint8Array[] = [];

  constructor(path: string, mode: number, worker: FileWorker) {
    this.#path = path;
    this.#worker = worker;
    this.#how = { createNew: true, mode };
  }

  async write(bytes: Uint8Array): Promise<number> {
    if (bytes.byteLength < SMALL_PART_BYTES) {
      this.#small.push(bytes);
      if (this.#small.length * SMALL_PART_BYTES >= 2 ** 20) await this.flush();
    } else {
      if (this.#small.length > 0) await this.flush();
      await this.#append(bytes);
    }
    return bytes.byteLength;
  }

  async flush(): Promise<void> {
    const [first, ...others] = this.#small;
    if (first === undefined && this.#how.append) return;
    const together = others.length === 0 ? first : concatParts(this.#small);
    this.#small = [];
    await this.#append(together ?? new Uint8Array(0));
  }

  async syncData(): Promise<void> {
    await this.#worker.ask({ op: "syncPath", path: this.#path });
  }

  [Symbol.dispose](): void {}

  async #append(bytes: Uint8Array): Promise<void> {
    const how = this.#how;
    this.#how = { append: true, create: false };
    await Deno.writeFile(this.#path, bytes, how);
  }
}
