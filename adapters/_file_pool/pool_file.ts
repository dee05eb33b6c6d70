import * as nodeFs from "node:fs";
import { AlignedBuffers, DIRECT_BUFFER_BYTES } from "../_shared/direct_access.ts";
import { FileWorker } from "../_shared/file_worker.ts";
import { isLocalDisk } from "../_shared/local_disk.ts";

const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW = 0 } = nodeFs.constants;
const FILE_MODE = 0o600;

/** How to open a file: `make` creates a missing file, `create` fails if the file exists. */
export type Access = "read" | "write" | "make" | "create";

/** An open file; one call at a time. */
export interface PoolFile {
  /** Reads from `position` on; resolves to the number of bytes, 0 at the end. */
  read(into: Uint8Array, position: number): Promise<number>;
  /** Writes from `position` on; resolves to the number of bytes written. */
  write(bytes: Uint8Array, position: number): Promise<number>;
  /** Sets the length of the file. */
  truncate(length: number): Promise<void>;
  /** Makes the bytes survive a power cut. */
  sync(): Promise<void>;
  close(): void;
}

/** Opens the files of a pool without following links. */
export interface PoolFileSystem extends AsyncDisposable {
  open(path: string, access: Access): Promise<PoolFile>;
  /** Locks a file, creating it if needed; `undefined` if another holder has it. */
  lock(path: string): Promise<Disposable | undefined>;
  /** Makes the names in a directory survive a power cut. */
  syncDirectory(path: string): Promise<void>;
  /** The worker for direct I/O, on file systems where Deno's threads must not block. */
  readonly worker: FileWorker | undefined;
}

/**
 * The file operations for a directory. Deno closes files on the thread that runs the engine, which
 * takes no time on a local disk; for other disks a worker opens, reads, writes and closes them.
 */
export async function poolFileSystem(directory: string): Promise<PoolFileSystem> {
  if (!await FileWorker.isAvailable() || await isLocalDisk(directory)) return new LocalFiles();
  return new WorkerFiles();
}

/** Writes all bytes. */
export async function writeAll(
  file: PoolFile,
  bytes: Uint8Array,
  position: number,
): Promise<void> {
  for (let done = 0; done < bytes.byteLength;) {
    const rest = done === 0 ? bytes : bytes.subarray(done);
    const written = await file.write(rest, position + done);
    // A file system that writes no bytes without an error would loop forever.
    if (written === 0) throw new Deno.errors.WriteZero("The file took no more bytes");
    done += written;
  }
}

/** Fills `into` as far as the file reaches; resolves to the number of bytes. */
export async function readAll(
  file: PoolFile,
  into: Uint8Array,
  position: number,
): Promise<number> {
  for (let done = 0; done < into.byteLength;) {
    const count = await file.read(done === 0 ? into : into.subarray(done), position + done);
    if (count === 0) return done;
    done += count;
  }
  return into.byteLength;
}

class LocalFiles implements PoolFileSystem {
  readonly worker = undefined;

  async open(path: string, access: Access): Promise<PoolFile> {
    return new LocalFile(await this.#open(path, access));
  }

  async lock(path: string): Promise<Disposable | undefined> {
    const file = await this.#open(path, "make");
    try {
      if (await file.tryLock(true)) return file;
    } catch (error) {
      file.close();
      throw error;
    }
    file.close();
    return undefined;
  }

  async syncDirectory(path: string): Promise<void> {
    using directory = await Deno.open(path, { read: true });
    await directory.sync();
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  async #open(path: string, access: Access): Promise<Deno.FsFile> {
    const file = await Deno.open(path, {
      read: true,
      write: access !== "read",
      create: access === "make",
      createNew: access === "create",
      mode: FILE_MODE,
    });
    try {
      const opened = await file.stat();
      const named = await Deno.lstat(path);
      if (named.isFile && opened.ino === named.ino && opened.dev === named.dev) return file;
      throw new Deno.errors.FilesystemLoop(`${path} is a link, or no file`);
    } catch (error) {
      file.close();
      throw error;
    }
  }
}

class LocalFile implements PoolFile {
  readonly #file: Deno.FsFile;

  constructor(file: Deno.FsFile) {
    this.#file = file;
  }

  async read(into: Uint8Array, position: number): Promise<number> {
    this.#seek(position);
    return await this.#file.read(into) ?? 0;
  }

  write(bytes: Uint8Array, position: number): Promise<number> {
    this.#seek(position);
    return this.#file.write(bytes);
  }

  truncate(length: number): Promise<void> {
    return this.#file.truncate(length);
  }

  sync(): Promise<void> {
    return this.#file.syncData();
  }

  close(): void {
    this.#file.close();
  }

  #seek(position: number): void {
    // Only sets the position of the descriptor, so it does not block.
    this.#file.seekSync(position, Deno.SeekMode.Start);
  }
}

class WorkerFiles implements PoolFileSystem {
  readonly worker = new FileWorker();
  readonly #buffers = new AlignedBuffers();

  async open(path: string, access: Access): Promise<PoolFile> {
    const flags = {
      read: O_RDONLY,
      write: O_RDWR,
      make: O_RDWR | O_CREAT,
      create: O_RDWR | O_CREAT | O_EXCL,
    }[access];
    const request = { op: "open", path, flags: flags | O_NOFOLLOW, mode: FILE_MODE } as const;
    return new WorkerFile(this.worker, await this.worker.ask(request), this.#buffers);
  }

  async lock(path: string): Promise<Disposable | undefined> {
    const request = { op: "lock", path, create: true, mode: FILE_MODE } as const;
    const lock = await this.worker.ask(request);
    const unlock = (): void => void this.worker.ask({ op: "unlock", lock }).catch(() => {});
    return lock === 0 ? undefined : { [Symbol.dispose]: unlock };
  }

  async syncDirectory(path: string): Promise<void> {
    await this.worker.ask({ op: "syncPath", path });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.worker.close();
  }
}

class WorkerFile implements PoolFile {
  readonly #worker: FileWorker;
  readonly #file: number;
  readonly #buffers: AlignedBuffers;

  constructor(worker: FileWorker, file: number, buffers: AlignedBuffers) {
    this.#worker = worker;
    this.#file = file;
    this.#buffers = buffers;
  }

  async read(into: Uint8Array, position: number): Promise<number> {
    const shared = this.#buffers.take();
    try {
      const length = Math.min(into.byteLength, DIRECT_BUFFER_BYTES);
      const { buffer } = shared;
      const place = { file: this.#file, buffer, from: 0, length, position };
      const count = await this.#worker.ask({ op: "read", ...place });
      into.set(shared.subarray(0, count));
      return count;
    } finally {
      this.#buffers.giveBack(shared);
    }
  }

  async write(bytes: Uint8Array, position: number): Promise<number> {
    const shared = this.#buffers.take();
    try {
      const length = Math.min(bytes.byteLength, DIRECT_BUFFER_BYTES);
      shared.set(bytes.subarray(0, length));
      const { buffer } = shared;
      const place = { file: this.#file, buffer, from: 0, length, position };
      return await this.#worker.ask({ op: "write", ...place });
    } finally {
      this.#buffers.giveBack(shared);
    }
  }

  async truncate(length: number): Promise<void> {
    await this.#worker.ask({ op: "truncate", file: this.#file, length });
  }

  async sync(): Promise<void> {
    await this.#worker.ask({ op: "sync", file: this.#file });
  }

  close(): void {
    this.#worker.closeLater(this.#file);
  }
}
