import * as nodeFs from "node:fs";
import { statfs } from "node:fs/promises";
import { notAFile } from "../_shared/errno.ts";
import { openNumbered, readNumbered } from "../_shared/numbered_files.ts";

/** A file that is being read. */
export interface ReadableFile extends Disposable {
  /** Reads bytes from `position` on; returns how many, maybe fewer than asked for, 0 at the end. */
  read(into: Uint8Array<ArrayBuffer>, position: number): Promise<number>;
  /** Whether the file ends at `position`; `undefined` if only reading there would tell. */
  endsAt(position: number): boolean | undefined;
}

/** A file that is being written from its beginning, by one call at a time. */
export interface WritableFile extends Disposable {
  /** Appends bytes, which must stay until the next {@linkcode flush}; returns how many it took. */
  write(bytes: Uint8Array<ArrayBuffer>): Promise<number>;
  /** Hands everything written so far to the operating system. Only now the file exists for sure. */
  flush(): Promise<void>;
  /** Makes the bytes survive a power cut. */
  syncData(): Promise<void>;
}

/** A small file that one holder at a time has open, in all processes. */
export interface LockedFile extends Disposable {
  /** The content; empty if it is larger than `mostBytes`: then it is not ours. */
  read(mostBytes: number): Promise<Uint8Array>;
  /** Replaces the content. */
  write(bytes: Uint8Array<ArrayBuffer>): Promise<void>;
}

/** Room on a file system, in bytes. */
export interface DiskRoom {
  /** Used by anybody. */
  readonly usedBytes: number;
  /** Left for this user. */
  readonly availableBytes: number;
}

/**
 * The file operations that the adapter is made of; each is one call of the operating system, or a
 * few. {@linkcode errnoOf} knows the code of the operating system in their failures.
 */
export interface FileSystem {
  /** Creates a file that must not exist, for this user alone, or for the group. */
  create(path: string, mode: number): Promise<WritableFile>;
  /**
   * Opens a file; neither follows a link nor waits for the writer of a FIFO. One of more than
   * `mostBytes` may look as if it were empty.
   */
  open(path: string, mostBytes: number): Promise<ReadableFile>;
  /**
   * Opens a file for this holder alone, creating it if `create` is set.
   *
   * @returns `undefined` if somebody else has it.
   */
  lock(path: string, options: { create: boolean; mode: number }): Promise<LockedFile | undefined>;
  /** Whether anything can be found at a path; a third of the cost of {@linkcode lstat}. */
  exists(path: string): Promise<boolean>;
  /** What is at a path, links not followed. */
  lstat(path: string): Promise<Deno.FileInfo>;
  /** The entries of a directory. */
  readDir(path: string): AsyncIterable<Deno.DirEntry>;
  /** Creates a directory and those above it; does nothing if it exists. */
  mkdir(path: string, mode: number): Promise<void>;
  /** Gives a file another name, in place of what has that name. */
  rename(from: string, to: string): Promise<void>;
  /** Removes a file. */
  remove(path: string): Promise<void>;
  /** Sets the time of the last use. */
  touch(path: string, time: Date): Promise<void>;
  /** Sets who may do what. */
  chmod(path: string, mode: number): Promise<void>;
  /** Makes the names in a directory survive a power cut. */
  syncDirectory(path: string): Promise<void>;
  /** How full the file system of a path is. Requires `--allow-sys=statfs`. */
  room(path: string): Promise<DiskRoom>;
}

const { O_RDONLY, O_NOFOLLOW = 0, O_NONBLOCK = 0 } = nodeFs.constants;

/**
 * The host's file system, through the page cache. Deno closes files on the thread that runs the
 * engine, which takes no time on a disk of this host; see {@linkcode CarefulFiles} for others.
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
    // A link could lead anywhere.
    if (before?.isFile === false) throw notAFile(path);
    // Creating never follows a link that was put there meanwhile. Who loses a race tries again.
    const how = before === undefined ? { createNew: true, mode } : {};
    const raced = before === undefined ? Deno.errors.AlreadyExists : Deno.errors.NotFound;
    const file = await Deno.open(path, { read: true, write: true, ...how })
      .catch((error: unknown) => {
        if (!(error instanceof raced)) throw error;
      });
    if (file === undefined) return undefined;
    try {
      // What the group may do, the process may have been told to deny (umask).
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
        // If it was removed meanwhile, others lock another file by now.
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
    // Unlike `Deno.utime()`, this leaves alone what a link leads to.
    nodeFs.lutimes(path, time, time, (error) => error ? reject(error) : resolve());
    return promise;
  },
  chmod: (path, mode) => Deno.chmod(path, mode),
  async syncDirectory(path) {
    using directory = await Deno.open(path, { read: true });
    await directory.sync();
    // On XFS this succeeds after the file system was shut down, although nothing is written then;
    // asking for attributes does not.
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
    // What was read a moment ago is in memory: another thread would cost ten times as much.
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

  async read(mostBytes: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(this.#size > mostBytes ? 0 : this.#size);
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
