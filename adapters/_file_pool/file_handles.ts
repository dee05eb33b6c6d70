import { Limiter } from "../../src/base/limiter.ts";
import { type PoolFile, type PoolFileSystem, readAll, writeAll } from "./pool_file.ts";
import { PAGE_BYTES } from "./pool_geometry.ts";

/** Max handles of one file. */
const MAX_HANDLES = 4;

/** An open file, with buffers for the data around an object. */
export class FileHandle implements Disposable {
  /** Buffer of one page. */
  readonly page: Uint8Array<ArrayBuffer> = new Uint8Array(PAGE_BYTES);
  /** Buffer of three pages. */
  readonly end: Uint8Array = new Uint8Array(3 * PAGE_BYTES);
  readonly #file: PoolFile;
  #position = 0;

  constructor(file: PoolFile) {
    this.#file = file;
  }

  /** Sets the position of the next read or write. */
  seek(offset: number): void {
    this.#position = offset;
  }

  /** Writes all of the bytes. */
  async write(bytes: Uint8Array): Promise<void> {
    await writeAll(this.#file, bytes, this.#position);
    this.#position += bytes.byteLength;
  }

  /** Fills `into`; resolves to `false` if the file is too short. */
  async read(into: Uint8Array): Promise<boolean> {
    const count = await readAll(this.#file, into, this.#position);
    this.#position += count;
    return count === into.byteLength;
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}

/**
 * The handles of one file. Deno runs one operation at a time per handle, so each handle has one
 * user.
 */
export class FileHandles implements Disposable {
  readonly path: string;
  readonly #files: PoolFileSystem;
  readonly #idle: FileHandle[] = [];
  readonly #limiter = new Limiter({ operations: MAX_HANDLES });

  constructor(files: PoolFileSystem, path: string) {
    this.#files = files;
    this.path = path;
  }

  /** Runs `work` with a handle. */
  async use<T>(work: (handle: FileHandle) => Promise<T>): Promise<T> {
    if (!this.#limiter.tryAcquire(0)) await this.#limiter.acquire(0);
    try {
      const handle = this.#idle.pop() ??
        new FileHandle(await this.#files.open(this.path, "write"));
      try {
        return await work(handle);
      } finally {
        this.#idle.push(handle);
      }
    } finally {
      this.#limiter.release(0);
    }
  }

  /** Closes all handles; none may be in use. */
  [Symbol.dispose](): void {
    for (const handle of this.#idle.splice(0)) handle[Symbol.dispose]();
  }
}
