import { join, resolve } from "@std/path";
import { foreignOwner, OWN_DIRECTORY } from "../_shared/directory_owner.ts";
import { decodeIndex, encodeIndex, type PoolIndex } from "./index_file.ts";
import { PoolGeometry } from "./pool_geometry.ts";
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
    const lock = await Deno.open(join(path, "pool.lock"), options);
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
    const bytes = await readIfThere(join(this.path, "pool.geometry"));
    return bytes && PoolGeometry.decode(bytes);
  }

  /** Notes that the pool is laid out. */
  async writeGeometry(geometry: PoolGeometry): Promise<void> {
    await this.#replace("pool.geometry", geometry.encode());
  }

  /** What the last owner knew when it stopped; `undefined` if it did not stop cleanly. */
  async readIndex(geometry: PoolGeometry): Promise<PoolIndex | undefined> {
    const bytes = await readIfThere(join(this.path, "pool.index"));
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
        const options = { write: true, create: true, truncate: true, mode: FILE_MODE };
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

async function readIfThere(path: string): Promise<Uint8Array | undefined> {
  try {
    return await Deno.readFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
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
