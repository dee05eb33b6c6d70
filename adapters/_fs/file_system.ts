import * as nodeFs from "node:fs";
import { statfs } from "node:fs/promises";
import { notAFile } from "../_shared/errno.ts";
import { openNumbered, readNumbered } from "../_shared/numbered_files.ts";

/** A file open for reading. */
export interface ReadableFile extends Disposable {
  /**
   * Reads from `position` on; resolves to the number of bytes, possibly fewer than requested, 0 at
   * the end.
   */
  read(into: Uint8Array<ArrayBuffer>, position: number): Promise<number>;
  /** Whether the file ends at `position`; `undefined` if only a read can tell. */
  endsAt(position: number): boolean | undefined;
}

/** A file that is written sequentially, one call at a time. */
export interface WritableFile extends Disposable {
  /**
   * Appends bytes, which must stay valid until {@linkcode flush}; resolves to the number accepted.
   */
  write(bytes: Uint8Array<ArrayBuffer>): Promise<number>;
  /** Passes all written bytes to the operating system. The file may not exist before. */
  flush(): Promise<void>;
  /** Makes the bytes survive a power cut. */
  syncData(): Promise<void>;
}

/** A small file that only one holder in all processes has open. */
export interface LockedFile extends Disposable {
  /** The content; empty if it exceeds `maxBytes`, because then another program wrote it. */
  read(maxBytes: number): Promise<Uint8Array>;
  /** Replaces the content. */
  write(bytes: Uint8Array<ArrayBuffer>): Promise<void>;
}

/** Space of a file system, in bytes. */
export interface DiskRoom {
  /** Used by all programs. */
  readonly usedBytes: number;
  /** Available to this user. */
  readonly availableBytes: number;
}

/**
 * File operations of the adapter; each takes one or a few system calls. {@linkcode errnoOf} returns
 * the error code of a failure.
 */
export interface FileSystem {
  /** Creates a file that must not exist. */
  create(path: string, mode: number): Promise<WritableFile>;
  /**
   * Opens a file without following a link or blocking on a FIFO. A file of more than `maxBytes` may
   * appear empty.
   */
  open(path: string, maxBytes: number): Promise<ReadableFile>;
  /**
   * Opens a file exclusively; creates it if `create` is set.
   *
   * @returns `undefined` if another holder has it.
   */
  lock(path: string, options: { create: boolean; mode: number }): Promise<LockedFile | undefined>;
  /** Whether a path exists; a third of the cost of {@linkcode lstat}. */
  exists(path: string): Promise<boolean>;
  /** Information about a path, without following links. */
  lstat(path: string): Promise<Deno.FileInfo>;
  readDir(path: string): AsyncIterable<Deno.DirEntry>;
  /** Creates a directory and its ancestors; does nothing if it exists. */
  mkdir(path: string, mode: number): Promise<void>;
  /** Renames a file; replaces an existing one. */
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Sets the modification time, which records the last use. */
  touch(path: string, time: Date): Promise<void>;
  /** Sets the file mode. */
  chmod(path: string, mode: number): Promise<void>;
  /** Makes the names in a directory survive a power cut. */
  syncDirectory(path: string): Promise<void>;
  /** Space of the file system of a path. Requires `--allow-sys=statfs`. */
  room(path: string): Promise<DiskRoom>;
}

const { O_RDONLY, O_NOFOLLOW = 0, O_NONBLOCK = 0 } = nodeFs.constants;

/**
 * The host's file system, through the page cache. Deno closes files on the thread that runs the
 * engine, which takes no time on a local disk; {@linkcode OffThreadFiles} is for other disks.
 */
export const hostFileSystem: FileSystem = {
  async create(path, mode) {
    return new HostWritableFile(await Deno.open(path, { write: true, createNew: true, mode }));
  },
  open(path) {
    return openNumbered(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
      .then((file) => new HostReadableFile(file));
  },
  async lock(path, { create, mode }) {
    const before = await Deno.lstat(path).catch((error: unknown) => {
      if (!create || !(error instanceof Deno.errors.NotFound)) throw error;
    });
    // A link could point anywhere.
    if (before?.isFile === false) throw notAFile(path);
    // Exclusive creation never follows a link created meanwhile. The loser of a race tries again.
    const how = before === undefined ? { createNew: true, mode } : {};
    const raced = before === undefined ? Deno.errors.AlreadyExists : Deno.errors.NotFound;
    const file = await Deno.open(path, { read: true, write: true, ...how })
      .catch((error: unknown) => {
        if (!(error instanceof raced)) throw error;
      });
    if (file === undefined) return undefined;
    try {
      // The umask of the process may have removed group permissions.
      if (before === undefined && (mode & 0o070) !== 0) {
        await Deno.chmod(path, mode).catch(() => {});
      }
      if (await file.tryLock(true)) {
        const [held, named] = await Promise.all([
          file.stat(),
          Deno.lstat(path).catch((error: unknown) => {
            if (!(error instanceof Deno.errors.NotFound)) throw error;
          }),
        ]);
        if (named?.isFile === false) throw notAFile(path);
        // If the file was removed meanwhile, other processes lock its successor.
        if (held.ino === named?.ino && held.dev === named.dev) {
          return new HostLockedFile(file, held.size);
        }
      }
    } catch (error) {
      file.close();
      throw error;
    }
    file.close();
    return undefined;
  },
  exists(path) {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    nodeFs.exists(path, resolve);
    return promise;
  },
  lstat: (path) => Deno.lstat(path),
  readDir: (path) => Deno.readDir(path),
  mkdir: (path, mode) => Deno.mkdir(path, { recursive: true, mode }),
  rename: (from, to) => Deno.rename(from, to),
  remove: (path) => Deno.remove(path),
  touch(path, time) {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    // Unlike Deno.utime(), this does not follow links.
    nodeFs.lutimes(path, time, time, (error) => error ? reject(error) : resolve());
    return promise;
  },
  chmod: (path, mode) => Deno.chmod(path, mode),
  async syncDirectory(path) {
    using directory = await Deno.open(path, { read: true });
    await directory.sync();
    // After a shutdown of XFS, the sync succeeds without writing anything; reading attributes
    // fails.
    await directory.stat();
  },
  async room(path) {
    const { blocks, bfree, bavail, bsize } = await statfs(path);
    return { usedBytes: (blocks - bfree) * bsize, availableBytes: bavail * bsize };
  },
};

const twoBytes = new Uint8Array(2);

class HostReadableFile implements ReadableFile {
  readonly #file: number;

  constructor(file: number) {
    this.#file = file;
  }

  read(into: Uint8Array<ArrayBuffer>, position: number): Promise<number> {
    return readNumbered(this.#file, into, position);
  }

  endsAt(position: number): boolean {
    // The bytes were just read and are cached: a synchronous read costs a tenth of another thread.
    const from = Math.max(0, position - 1);
    return from + nodeFs.readSync(this.#file, twoBytes, 0, 2, from) === position;
  }

  [Symbol.dispose](): void {
    nodeFs.closeSync(this.#file);
  }
}

class HostWritableFile implements WritableFile {
  readonly #file: Deno.FsFile;

  constructor(file: Deno.FsFile) {
    this.#file = file;
  }

  write(bytes: Uint8Array<ArrayBuffer>): Promise<number> {
    return this.#file.write(bytes);
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }

  syncData(): Promise<void> {
    return this.#file.syncData();
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}

class HostLockedFile implements LockedFile {
  readonly #file: Deno.FsFile;
  readonly #size: number;

  constructor(file: Deno.FsFile, size: number) {
    this.#file = file;
    this.#size = size;
  }

  async read(maxBytes: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(this.#size > maxBytes ? 0 : this.#size);
    await this.#file.seek(0, Deno.SeekMode.Start);
    let done = 0;
    while (done < bytes.byteLength) {
      const count = await this.#file.read(bytes.subarray(done));
      if (count === null) break;
      done += count;
    }
    return bytes.subarray(0, done);
  }

  async write(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    await this.#file.seek(0, Deno.SeekMode.Start);
    for (let done = 0; done < bytes.byteLength;) {
      done += await this.#file.write(bytes.subarray(done));
    }
    await this.#file.truncate(bytes.byteLength);
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}
