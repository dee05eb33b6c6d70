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

/** A directory in which the pool could be led elsewhere. */
export class UnsafeDirectoryError extends Error {
  /** The name of the class. */
  override readonly name = "UnsafeDirectoryError";
  /** What it has to be. */
  readonly expected: string;
  /** What it is. */
  readonly received: string;

  /** A directory is to be `expected`. */
  constructor(expected: string, received: string) {
    super(`Expected ${expected}: received ${received}`);
    this.expected = expected;
    this.received = received;
  }
}

/** The directory of a pool, for one owner at a time: everything in it but the slots. */
export class PoolDirectory implements AsyncDisposable {
  /** Where it is. */
  readonly path: string;
  /** How its files are opened. */
  readonly files: PoolFileSystem;
  readonly #lock: Disposable;

  private constructor(path: string, files: PoolFileSystem, lock: Disposable) {
    this.path = path;
    this.files = files;
    this.#lock = lock;
  }

  /**
   * Makes the directory if there is none, and takes it.
   *
   * @returns `undefined` if somebody else has it, in this process or another.
   * @throws {UnsafeDirectoryError} If it belongs to another user, others can write to it, or
   * something else lies in the place of its files.
   */
  static async take(
    given: string,
    { allowsForeignOwner }: { readonly allowsForeignOwner: boolean },
  ): Promise<PoolDirectory | undefined> {
    const absolute = resolve(given);
    await Deno.mkdir(absolute, { recursive: true, mode: DIRECTORY_MODE });
    // Links are followed once, so that they cannot be pointed elsewhere meanwhile.
    const path = await Deno.realPath(absolute);
    await checkPrivate(path, allowsForeignOwner);
    await using stack = new AsyncDisposableStack();
    const files = stack.use(await poolFileSystem(path));
    const lock = await files.lock(join(path, "pool.lock"));
    if (lock === undefined) return undefined;
    stack.move();
    return new PoolDirectory(path, files, lock);
  }

  /** A path for a file that is needed for a moment. */
  get temporaryPath(): string {
    return join(this.path, "pool.tmp");
  }

  /** How the pool is laid out; `undefined` if it is not yet. */
  async readGeometry(): Promise<PoolGeometry | undefined> {
    const bytes = await this.#readSmall("pool.geometry", () => PAGE_BYTES);
    return bytes && PoolGeometry.decode(bytes);
  }

  /** Notes that the pool is laid out. */
  async writeGeometry(geometry: PoolGeometry): Promise<void> {
    await this.#replace("pool.geometry", geometry.encode());
  }

  /** What the last owner knew when it stopped; `undefined` if it did not stop cleanly. */
  async readIndex(geometry: PoolGeometry): Promise<PoolIndex | undefined> {
    const maxBytes = (front: Uint8Array) => maxIndexBytes(front, geometry);
    const bytes = await this.#readSmall("pool.index", maxBytes);
    return bytes && decodeIndex(bytes, geometry);
  }

  /** Keeps what this owner knows for the next one. */
  async writeIndex(index: PoolIndex, geometry: PoolGeometry): Promise<void> {
    await this.#replace("pool.index", encodeIndex(index, geometry));
  }

  /** Forgets the index before anything changes that it does not know. */
  async removeIndex(): Promise<void> {
    if (await removeIfThere(join(this.path, "pool.index"))) await this.#sync();
  }

  /** Removes a pool with nothing in it. */
  async removePool(geometry: PoolGeometry): Promise<void> {
    await this.removeIndex();
    await removeIfThere(join(this.path, "pool.geometry"));
    for (const path of poolFiles(this.path, geometry)) await removeIfThere(path);
  }

  /** Removes files of a pool with more files that was never finished, or not removed whole. */
  async removeLeftovers({ files }: PoolGeometry): Promise<void> {
    for await (const { name } of Deno.readDir(this.path)) {
      const number = /^slots-(\d+)\.pool$/.exec(name)?.[1];
      if (number !== undefined && Number(number) >= files) {
        await removeIfThere(join(this.path, name));
      }
    }
  }

  /** Lets somebody else have it. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#lock[Symbol.dispose]();
    await this.files[Symbol.asyncDispose]();
  }

  /**
   * Reads a file whose size is checked before: what is larger was not written by a pool.
   *
   * @param maxBytes The most that it may have, given the first {@linkcode INDEX_HEADER_BYTES} of it.
   * @returns `undefined` if there is none, or it has more.
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

  async #replace(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
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

  /** Makes names survive a power cut, where the system can do that. */
  async #sync(): Promise<void> {
    try {
      await this.files.syncDirectory(this.path);
    } catch {
      // After a power cut, an index may be there that is out of date: the seals tell.
    }
  }
}

/** Others may have put there what they want to be written to or read. */
async function checkPrivate(path: string, allowsForeignOwner: boolean): Promise<void> {
  const { mode: modeOrNull, uid } = await Deno.stat(path);
  const mode = modeOrNull ?? 0;
  if ((mode & 0o022) !== 0) {
    const received = `${path} with mode ${(mode & 0o7777).toString(8).padStart(4, "0")}`;
    throw new UnsafeDirectoryError(
      "a directory that nobody else can write to (chmod go-w)",
      received,
    );
  }
  const received = allowsForeignOwner ? undefined : await foreignOwner(path, uid);
  if (received !== undefined) throw new UnsafeDirectoryError(OWN_DIRECTORY, received);
  for await (const { name, isFile } of Deno.readDir(path)) {
    if (isFile || !/^(?:pool\.(?:lock|tmp|geometry|index)|slots-\d+\.pool)$/.test(name)) continue;
    const received = `${name}, which is a link or no file`;
    throw new UnsafeDirectoryError("a directory where the files of a pool are files", received);
  }
}

/** Removes a file; whether there was one. */
async function removeIfThere(path: string): Promise<boolean> {
  try {
    await Deno.remove(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
