import { type PoolFile, type PoolFileSystem, readAll, writeAll } from "./pool_file.ts";
import { PAGE_BYTES } from "./pool_geometry.ts";

/** Handles of one file that may be open at a time. */
const MOST_HANDLES = 4;

/** One open file, with room for what is written around an object. */
export class FileHandle implements Disposable {
  /** A page. */
  readonly page: Uint8Array<ArrayBuffer> = new Uint8Array(PAGE_BYTES);
  /** Three pages. */
  readonly end: Uint8Array<ArrayBuffer> = new Uint8Array(3 * PAGE_BYTES);
  readonly #file: PoolFile;
  #position = 0;

  /** Takes over an open file. */
  constructor(file: PoolFile) {
    this.#file = file;
  }

  /** Continues at `offset`. */
  seek(offset: number): void {
    this.#position = offset;
  }

  /** Writes all of the bytes. */
  async write(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    await writeAll(this.#file, bytes, this.#position);
    this.#position += bytes.byteLength;
  }

  /** Fills all of the bytes; `false` if the file ends before. */
  async read(into: Uint8Array<ArrayBuffer>): Promise<boolean> {
    const count = await readAll(this.#file, into, this.#position);
    this.#position += count;
    return count === into.byteLength;
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.#file.close();
  }
}

/** The handles of one file. Deno does one thing at a time with each, so one operation has it. */
export class FileHandles implements Disposable {
  /** Where the file is. */
  readonly path: string;
  readonly #files: PoolFileSystem;
  readonly #idle: FileHandle[] = [];
  readonly #waiters: PromiseWithResolvers<FileHandle>[] = [];
  #opened = 0;

  /** Opens nothing yet. */
  constructor(files: PoolFileSystem, path: string) {
    this.#files = files;
    this.path = path;
  }

  /** Lends a handle to `work`. */
  async use<T>(work: (handle: FileHandle) => Promise<T>): Promise<T> {
    const handle = this.#idle.pop() ?? await this.#open();
    try {
      return await work(handle);
    } finally {
      const next = this.#waiters.shift();
      if (next === undefined) this.#idle.push(handle);
      else next.resolve(handle);
    }
  }

  /** Closes all handles; none may be lent. */
  [Symbol.dispose](): void {
    for (const handle of this.#idle.splice(0)) handle[Symbol.dispose]();
    this.#opened = 0;
  }

  async #open(): Promise<FileHandle> {
    if (this.#opened >= MOST_HANDLES) {
      const waiter = Promise.withResolvers<FileHandle>();
      this.#waiters.push(waiter);
      return waiter.promise;
    }
    this.#opened++;
    try {
      return new FileHandle(await this.#files.open(this.path, "write"));
    } catch (error) {
      this.#opened--;
      // Who waits for a handle may wait for this one, which never comes.
      const next = this.#waiters.shift();
      if (next !== undefined) this.#open().then(next.resolve, next.reject);
      throw error;
    }
  }
}
