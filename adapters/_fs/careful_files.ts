import { concatParts } from "../../src/adapter/contract.ts";
import { notAFile } from "../_shared/errno.ts";
import { FileWorker } from "../_shared/file_worker.ts";
import {
  type FileSystem,
  hostFileSystem,
  type LockedFile,
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
      create: (path, mode) =>
        Promise.resolve(
          new OffThreadWritableFile(path, mode, async () => {
            await worker.ask({ op: "syncPath", path });
          }),
        ),
      async open(path, maxBytes) {
        const { isFile, size } = await Deno.lstat(path);
        // Deno.readFile() would follow a link, and block on a FIFO.
        if (!isFile) throw notAFile(path);
        return size > maxBytes ? nothing : new WholeFile(await Deno.readFile(path));
      },
      async lock(path, { create, mode }) {
        const lock = await worker.ask({ op: "lock", path, create, mode });
        return lock === 0 ? undefined : new WorkerLockedFile(worker, lock);
      },
    };
  }

  /** Terminates the worker once it has closed its files, or when `signal` aborts. */
  close(signal?: AbortSignal): Promise<void> {
    return this.#worker.close(signal);
  }
}

/** A file that was read completely when it was opened. */
class WholeFile implements ReadableFile {
  readonly #bytes: Uint8Array<ArrayBuffer>;

  constructor(bytes: Uint8Array<ArrayBuffer>) {
    this.#bytes = bytes;
  }

  read(into: Uint8Array<ArrayBuffer>, position: number): Promise<number> {
    const bytes = this.#bytes.subarray(position, position + into.byteLength);
    into.set(bytes);
    return Promise.resolve(bytes.byteLength);
  }

  endsAt(position: number): boolean {
    return this.#bytes.byteLength === position;
  }

  [Symbol.dispose](): void {}
}

const nothing = new WholeFile(new Uint8Array(0));

/**
 * A file that is open only while a call writes to it: only `Deno.writeFile()` closes a file on
 * another thread.
 */
class OffThreadWritableFile implements WritableFile {
  readonly #path: string;
  readonly #mode: number;
  readonly #sync: () => Promise<void>;
  #small: Uint8Array<ArrayBuffer>[] = [];
  #isCreated = false;

  /**
   * @param sync Makes the written bytes survive a power cut.
   */
  constructor(path: string, mode: number, sync: () => Promise<void>) {
    this.#path = path;
    this.#mode = mode;
    this.#sync = sync;
  }

  async write(bytes: Uint8Array<ArrayBuffer>): Promise<number> {
    if (bytes.byteLength < SMALL_PART_BYTES) {
      this.#small.push(bytes);
      if (this.#small.length * SMALL_PART_BYTES >= 2 ** 20) await this.#writeSmall();
    } else {
      await this.#writeSmall();
      await this.#append(bytes);
    }
    return bytes.byteLength;
  }

  async flush(): Promise<void> {
    await this.#writeSmall();
    if (!this.#isCreated) await this.#append(new Uint8Array(0));
  }

  syncData(): Promise<void> {
    return this.#sync();
  }

  [Symbol.dispose](): void {}

  async #writeSmall(): Promise<void> {
    const [first, ...others] = this.#small;
    if (first === undefined) return;
    const together = others.length === 0 ? first : concatParts(this.#small);
    this.#small = [];
    await this.#append(together);
  }

  async #append(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    const how = this.#isCreated
      ? { append: true, create: false }
      : { createNew: true, mode: this.#mode };
    this.#isCreated = true;
    await Deno.writeFile(this.#path, bytes, how);
  }
}

class WorkerLockedFile implements LockedFile {
  readonly #worker: FileWorker;
  readonly #lock: number;

  constructor(worker: FileWorker, lock: number) {
    this.#worker = worker;
    this.#lock = lock;
  }

  async read(maxBytes: number): Promise<Uint8Array> {
    const { bytes } = await this.#worker.request({
      op: "readLocked",
      lock: this.#lock,
      maxBytes,
    });
    return bytes ?? new Uint8Array(0);
  }

  async write(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    await this.#worker.ask({ op: "writeLocked", lock: this.#lock, bytes });
  }

  [Symbol.dispose](): void {
    this.#worker.ask({ op: "unlock", lock: this.#lock }).catch(() => {});
  }
}
