import { join, resolve } from "@std/path";
import { foreignOwner, OWN_DIRECTORY } from "../_shared/directory_owner.ts";
import { errnoOf } from "../_shared/errno.ts";
import { sizeOf } from "../_shared/file_info.ts";
import {
  decodeIndex,
  encodeIndex,
  INDEX_HEADER_BYTES,
  maxIndexBytes,
  type PoolIndex,
} from "./index_file.ts";
import { type PoolFileSystem, poolFileSystem, readAll, writeAll } from "./pool_file.ts";
import { PAGE_BYTES, PoolGeometry } from "./pool_geometry.ts";
import { poolFiles } from "./slot_files.ts";

const DIRECTORY_MODE = 0o700;

/** A directory in which another user could redirect or replace the pool. */
export class UnsafeDirectoryError extends Error {
  override readonly name = "UnsafeDirectoryError";
  /** What the directory has to be. */
  readonly expected: string;
  /** What the directory is. */
  readonly received: string;

  constructor(expected: string, received: string) {
    super(`Expected ${expected}: received ${received}`);
    this.expected = expected;
    this.received = received;
  }
}

/** The directory of a pool, with one owner at a time. Handles all files but the slots. */
export class PoolDirectory implements AsyncDisposable {
  readonly path: string;
  /** Opens the files. */
  readonly files: PoolFileSystem;
  readonly #lock: Disposable;

  private constructor(path: string, files: PoolFileSystem, lock: Disposable) {
    this.path = path;
    this.files = files;
    this.#lock = lock;
  }

  /**
   * Creates the directory if needed, and locks it.
   *
   * @returns `undefined` if another owner holds it, in this process or another.
   * @throws {UnsafeDirectoryError} If it belongs to another user, is writable by others, or
   * contains a link or directory in place of a pool file.
   */
  static async take(
    given: string,
    { allowsForeignOwner }: { readonly allowsForeignOwner: boolean },
  ): Promise<PoolDirectory | undefined> {
    const absolute = resolve(given);
    await Deno.mkdir(absolute, { recursive: true, mode: DIRECTORY_MODE });
    // Links are resolved once, so that they cannot be redirected later.
    const path = await Deno.realPath(absolute);
    await checkPrivate(path, allowsForeignOwner);
    await using stack = new AsyncDisposableStack();
    const files = stack.use(await poolFileSystem(path));
    const lock = await files.lock(join(path, "pool.lock"));
    if (lock === undefined) return undefined;
    stack.move();
    return new PoolDirectory(path, files, lock);
  }

  /** Path of a temporary file. */
  get temporaryPath(): string {
    return join(this.path, "pool.tmp");
  }

  /** Reads the layout of the pool; `undefined` if there is none yet. */
  async readGeometry(): Promise<PoolGeometry | undefined> {
    const bytes = await this.#readSmall("pool.geometry", () => PAGE_BYTES);
    return bytes && PoolGeometry.decode(bytes);
  }

  /** Records that the pool is laid out. */
  async writeGeometry(geometry: PoolGeometry): Promise<void> {
    await this.#replace("pool.geometry", geometry.encode());
  }

  /** Reads the index of the last owner; `undefined` if it did not stop cleanly. */
  async readIndex(geometry: PoolGeometry): Promise<PoolIndex | undefined> {
    const maxBytes = (front: Uint8Array) => maxIndexBytes(front, geometry);
    const bytes = await this.#readSmall("pool.index", maxBytes);
    return bytes && decodeIndex(bytes, geometry);
  }

  /** Writes the index for the next owner. */
  async writeIndex(index: PoolIndex, geometry: PoolGeometry): Promise<void> {
    await this.#replace("pool.index", encodeIndex(index, geometry));
  }

  /** Removes the index before it becomes outdated. */
  async removeIndex(): Promise<void> {
    if (await removeIfThere(join(this.path, "pool.index"))) await this.#sync();
  }

  /** Removes an empty pool. */
  async removePool(geometry: PoolGeometry): Promise<void> {
    await this.removeIndex();
    await removeIfThere(join(this.path, "pool.geometry"));
    for (const path of poolFiles(this.path, geometry)) await removeIfThere(path);
  }

  /** Removes surplus files of a larger pool that was never completed, or only partly removed. */
  async removeLeftovers({ files }: PoolGeometry): Promise<void> {
    for await (const { name } of Deno.readDir(this.path)) {
      const number = /^slots-(\d+)\.pool$/.exec(name)?.[1];
      if (number !== undefined && Number(number) >= files) {
        await removeIfThere(join(this.path, name));
      }
    }
  }

  /** Unlocks the directory. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#lock[Symbol.dispose]();
    await this.files[Symbol.asyncDispose]();
  }

  /**
   * Reads a small file, after checking its size: a larger one was not written by a pool.
   *
   * @param maxBytes Max size, given the first {@linkcode INDEX_HEADER_BYTES} of the file.
   * @returns `undefined` if the file is missing or too large.
   */
  async #readSmall(
    name: string,
    maxBytes: (front: Uint8Array) => number,
  ): Promise<Uint8Array | undefined> {
    const path = join(this.path, name);
    try {
      const size = sizeOf(await Deno.lstat(path));
      const file = await this.files.open(path, "read");
      try {
        const front = new Uint8Array(Math.min(size, INDEX_HEADER_BYTES));
        await readAll(file, front, 0);
        if (size > maxBytes(front)) return undefined;
        const bytes = new Uint8Array(size);
        return bytes.subarray(0, await readAll(file, bytes, 0));
      } finally {
        file.close();
      }
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return undefined;
      throw error;
    }
  }

  async #replace(name: string, bytes: Uint8Array): Promise<void> {
    try {
      await removeIfThere(this.temporaryPath);
      const file = await this.files.open(this.temporaryPath, "create");
      try {
        await writeAll(file, bytes, 0);
        await file.sync();
      } finally {
        file.close();
      }
      await Deno.rename(this.temporaryPath, join(this.path, name));
    } catch (error) {
      await removeIfThere(this.temporaryPath).catch(() => {});
      throw error;
    }
    await this.#sync();
  }

  /** Makes the names survive a power cut, if the system supports that. */
  async #sync(): Promise<void> {
    try {
      await this.files.syncDirectory(this.path);
    } catch {
      // After a power cut the index may be outdated; trailers reveal wrong objects.
    }
  }
}

/**
 * Checks that no other user can write to the directory, and that its pool files are regular files.
 */
async function checkPrivate(path: string, allowsForeignOwner: boolean): Promise<void> {
  const { mode: modeOrNull, uid } = await Deno.stat(path);
  const mode = modeOrNull ?? 0;
  if ((mode & 0o022) !== 0) {
    const received = `${path} with mode ${(mode & 0o7777).toString(8).padStart(4, "0")}`;
    throw new UnsafeDirectoryError(
      "a directory that no other user can write to (chmod go-w)",
      received,
    );
  }
  const received = allowsForeignOwner ? undefined : await foreignOwner(path, uid);
  if (received !== undefined) throw new UnsafeDirectoryError(OWN_DIRECTORY, received);
  for await (const { name, isFile } of Deno.readDir(path)) {
    if (isFile || !/^(?:pool\.(?:lock|tmp|geometry|index)|slots-\d+\.pool)$/.test(name)) continue;
    const received = `${name}, which is not a regular file`;
    const expected = "a directory with only regular files as pool files: move away what lies in " +
      "their place, or name another directory";
    throw new UnsafeDirectoryError(expected, received);
  }
}

/** Removes a file; resolves to whether it existed. */
async function removeIfThere(path: string): Promise<boolean> {
  try {
    await Deno.remove(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
