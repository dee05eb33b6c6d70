import { openOwn } from "./open_own.ts";
import { PAGE_BYTES } from "./pool_geometry.ts";

/** Handles of one file that may be open at a time. */
const MOST_HANDLES = 4;

/** One open file, with room for what is written around an object. */
export class FileHandle implements Disposable {
  /** A page. */
  readonly page: Uint8Array<ArrayBuffer> = new Uint8Array(PAGE_BYTES);
  /** Three pages. */
  readonly end: Uint8Array<ArrayBuffer> = new Uint8Array(3 * PAGE_BYTES);
  readonly #file: Deno.FsFile;

  /** Takes over an open file. */
  constructor(file: Deno.FsFile) {
    this.#file = file;
  }

  /** Continues at `offset`. */
  seek(offset: number): void {
    // Sets a number in the kernel: there is nothing to wait for.
    this.#file.seekSync(offset, Deno.SeekMode.Start);
  }

  /** Cuts the file off. */
  async truncate(length: number): Promise<void> {
    await this.#file.truncate(length);
  }

  /** Writes all of the bytes. */
  async write(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    for (let done = 0; done < bytes.byteLength;) {
      const written = await this.#file.write(done === 0 ? bytes : bytes.subarray(done));
      // A file system that takes nothing and says nothing would be asked for ever.
      if (written === 0) throw new Deno.errors.WriteZero("The file took no more bytes");
      done += written;
    }
  }

  /** Fills all of the bytes; `false` if the file ends before. */
  async read(into: Uint8Array<ArrayBuffer>): Promise<boolean> {
    for (let done = 0; done < into.byteLength;) {
      const count = await this.#file.read(done === 0 ? into : into.subarray(done));
      if (count === null) return false;
      done += count;
    }
    return true;
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.#file.close();
  }
}

/**
 * The handles of one file. Deno does one thing at a time with a handle, and its offset is part of
 * it: so each is lent to one operation.
 */
export class FileHandles implements Disposable {
  /** Where the file is. */
  readonly path: string;
  readonly #idle: FileHandle[] = [];
  readonly #waiters: PromiseWithResolvers<FileHandle>[] = [];
  #opened = 0;

  /** Opens nothing yet. */
  constructor(path: string) {
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
      return new FileHandle(await openOwn(this.path, { read: true, write: true }));
    } catch (error) {
      this.#opened--;
      // Who waits for a handle may wait for this one, which never comes.
      const next = this.#waiters.shift();
      if (next !== undefined) this.#open().then(next.resolve, next.reject);
      throw error;
    }
  }
}
