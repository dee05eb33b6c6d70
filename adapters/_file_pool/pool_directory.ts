import { join, resolve } from "@std/path";
import { foreignOwner, OWN_DIRECTORY } from "../_shared/directory_owner.ts";
import { sizeOf } from "../_shared/file_info.ts";
import {
  decodeIndex,
  encodeIndex,
  INDEX_HEADER_BYTES,
  maxIndexBytes,
  type PoolIndex,
} from "./index_file.ts";
import { openOwn } from "./open_own.ts";
import { PAGE_BYTES, PoolGeometry } from "./pool_geometry.ts";
import { poolFiles } from "./slot_files.ts";

const DIRECTORY_MODE = 0o700;
const FILE_MODE = 0o600;

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
export class PoolDirectory implements Disposable {
  /** Where it is. */
  readonly path: string;
  readonly #lock: Deno.FsFile;

  private constructor(path: string, lock: Deno.FsFile) {
    this.path = path;
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
    const options = { read: true, write: true, create: true, mode: FILE_MODE };
    const lock = await openOwn(join(path, "pool.lock"), options);
    try {
      if (await lock.tryLock(true)) return new PoolDirectory(path, lock);
    } catch (error) {
      lock.close();
      throw error;
    }
    lock.close();
    return undefined;
  }

  /** A path for a file that is needed for a moment. */
  get temporaryPath(): string {
    return join(this.path, "pool.tmp");
  }

  /** How the pool is laid out; `undefined` if it is not yet. */
  async readGeometry(): Promise<PoolGeometry | undefined> {
    const bytes = await readSmall(join(this.path, "pool.geometry"), () => PAGE_BYTES);
    return bytes && PoolGeometry.decode(bytes);
  }

  /** Notes that the pool is laid out. */
  async writeGeometry(geometry: PoolGeometry): Promise<void> {
    await this.#replace("pool.geometry", geometry.encode());
  }

  /** What the last owner knew when it stopped; `undefined` if it did not stop cleanly. */
  async readIndex(geometry: PoolGeometry): Promise<PoolIndex | undefined> {
    const path = join(this.path, "pool.index");
    const bytes = await readSmall(path, (front) => maxIndexBytes(front, geometry));
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
  [Symbol.dispose](): void {
    this.#lock.close();
  }

  async #replace(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    try {
      {
        await removeIfThere(this.temporaryPath);
        const options = { write: true, createNew: true, mode: FILE_MODE };
        using file = await Deno.open(this.temporaryPath, options);
        for (let done = 0; done < bytes.byteLength;) {
          done += await file.write(bytes.subarray(done));
        }
        await file.syncData();
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
      using directory = await Deno.open(this.path, { read: true });
      await directory.sync();
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

/**
 * Reads a file whose size is checked before: what is larger was not written by a pool.
 *
 * @param maxBytes The most that it may have, given the first {@linkcode INDEX_HEADER_BYTES} of it.
 * @returns `undefined` if there is none, or it has more.
 */
async function readSmall(
  path: string,
  maxBytes: (front: Uint8Array) => number,
): Promise<Uint8Array | undefined> {
  try {
    using file = await openOwn(path, { read: true });
    const size = sizeOf(await file.stat());
    const front = await readFront(file, Math.min(size, INDEX_HEADER_BYTES));
    if (size > maxBytes(front)) return undefined;
    const rest = await readFront(file, size - front.byteLength);
    const bytes = new Uint8Array(front.byteLength + rest.byteLength);
    bytes.set(front);
    bytes.set(rest, front.byteLength);
    return bytes;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Reads the next bytes of a file; fewer only if it ends before. */
async function readFront(file: Deno.FsFile, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const count = await file.read(bytes.subarray(done));
    if (count === null) break;
    done += count;
  }
  return bytes.subarray(0, done);
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
