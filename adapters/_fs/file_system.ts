import * as nodeFs from "node:fs";
import { statfs } from "node:fs/promises";
import { type LockedFile, lockFile } from "../_shared/locked_file.ts";
import { openNumbered, readNumbered } from "../_shared/numbered_files.ts";

/** A file open for reading. */
export interface ReadableFile extends Disposable {
  /**
   * Reads from `position` on; resolves to the number of bytes, possibly fewer than requested, 0 at
   * the end.
   */
  read(into: Uint8Array, position: number): Promise<number>;
  /** Whether the file ends at `position`; `undefined` if only a read can tell. */
  endsAt(position: number): boolean | undefined;
}

/** A file that is written sequentially, one call at a time. */
export interface WritableFile extends Disposable {
  /**
   * Appends bytes, which must stay valid until {@linkcode flush}; resolves to the number accepted.
   */
  write(bytes: Uint8Array): Promise<number>;
  /**
   * Passes all written bytes to the operating system, and creates the file if it was not before;
   * left out if each write does so.
   */
  flush?(): Promise<void>;
  /** Makes the bytes survive a power cut. */
  syncData(): Promise<void>;
}

/** Space of a file system, in bytes. */
export interface DiskRoom {
  /** Used by all programs. */
  readonly usedBytes: number;
  /** Available to this user. */
  readonly availableBytes: number;
}

/**
 * File operations of the adapter, none of which uses `this`; each takes one or a few system calls. {@linkcode errnoOf} returns
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
  create: (path, mode) => Deno.open(path, { write: true, createNew: true, mode }),
  async open(path) {
    return new HostReadableFile(await openNumbered(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
  },
  lock: lockFile,
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

  read(into: Uint8Array, position: number): Promise<number> {
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
