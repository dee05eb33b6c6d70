import { setImmediate } from "node:timers";
import {
  type FileSystem,
  hostFileSystem,
  type ReadableFile,
  type WritableFile,
} from "../../adapters/_fs/file_system.ts";
import type { LockedFile } from "../../adapters/_shared/locked_file.ts";

/** A pending file operation. */
export interface FileCall {
  /** The method, with a prefix for methods of files: `create`, `file.write`, `lock.read`, … */
  readonly operation: string;
  /** The path. */
  readonly path: string;
  /** Number of operations since the last {@linkcode FaultyFiles.arm}. */
  readonly index: number;
}

/** Returns the error of a call, or `undefined` if it succeeds. */
export type Fault = (call: FileCall) => Error | undefined;

/**
 * The host's file system with injected errors and short reads and writes. Tracks open files.
 */
export class FaultyFiles {
  /** The file system. */
  readonly files: FileSystem;
  /** Operations since the last {@linkcode arm}. */
  calls: FileCall[] = [];
  /** Number of injected errors since then. */
  failed: FileCall[] = [];
  /** Maximum number of bytes per read or write. */
  maxBytes = Infinity;
  /** Whether to perform syncs, which are slow and only matter for power failures. */
  syncs = false;
  /** Paths of open files. */
  readonly open: string[] = [];
  /** Paths of locked files. */
  readonly locked: string[] = [];
  #fault: Fault = () => undefined;
  #inFlight = 0;

  /** Initially no call fails. */
  constructor(files: FileSystem = hostFileSystem) {
    this.files = this.#around(files);
  }

  /** Starts injecting errors. */
  arm(fault: Fault): void {
    this.#fault = fault;
    this.calls = [];
    this.failed = [];
  }

  /** Stops injecting errors. */
  disarm(): void {
    this.#fault = () => undefined;
  }

  /** Resolves when no call is in progress and none follows. */
  async settled(): Promise<void> {
    let seen = -1;
    for (let quiet = 0; quiet < 3;) {
      await new Promise<void>((resolve) => setImmediate(() => resolve()));
      quiet = this.#inFlight === 0 && this.calls.length === seen ? quiet + 1 : 0;
      seen = this.calls.length;
    }
  }

  #check(operation: string, path: string): void {
    const call = { operation, path, index: this.calls.length };
    this.calls.push(call);
    const error = this.#fault(call);
    if (error === undefined) return;
    this.failed.push(call);
    throw error;
  }

  async #do<Value>(operation: string, path: string, work: () => Promise<Value>): Promise<Value> {
    this.#inFlight++;
    try {
      this.#check(operation, path);
      return await work();
    } finally {
      this.#inFlight--;
    }
  }

  #around(files: FileSystem): FileSystem {
    const run = this.#do.bind(this);
    return {
      create: (path, mode) =>
        run("create", path, async () => this.#writable(path, await files.create(path, mode))),
      open: (path, most) =>
        run("open", path, async () => this.#readable(path, await files.open(path, most))),
      lock: (path, options) =>
        run("lock", path, async () => {
          const lock = await files.lock(path, options);
          return lock && this.#locked(path, lock);
        }),
      exists: (path) => run("exists", path, () => files.exists(path)).catch(() => false),
      lstat: (path) => run("lstat", path, () => files.lstat(path)),
      readDir: (path) => this.#entries(path, files),
      mkdir: (path, mode) => run("mkdir", path, () => files.mkdir(path, mode)),
      rename: (from, to) => run("rename", to, () => files.rename(from, to)),
      remove: (path) => run("remove", path, () => files.remove(path)),
      touch: (path, time) => run("touch", path, () => files.touch(path, time)),
      chmod: (path, mode) => run("chmod", path, () => files.chmod(path, mode)),
      syncDirectory: (path) =>
        run("syncDirectory", path, () => this.#sync(() => files.syncDirectory(path))),
      room: (path) => run("room", path, () => files.room(path)),
    };
  }

  async #sync(work: () => Promise<void>): Promise<void> {
    if (this.syncs) await work();
  }

  async *#entries(path: string, files: FileSystem): AsyncGenerator<Deno.DirEntry, void> {
    this.#check("readDir", path);
    const entries = files.readDir(path)[Symbol.asyncIterator]();
    try {
      for (;;) {
        this.#inFlight++;
        const next = await entries.next().finally(() => this.#inFlight--);
        if (next.done) return;
        yield next.value;
      }
    } finally {
      await entries.return?.();
    }
  }

  #writable(path: string, file: WritableFile): WritableFile {
    const run = this.#do.bind(this);
    this.open.push(path);
    return {
      write: (bytes) => run("file.write", path, () => file.write(bytes.subarray(0, this.maxBytes))),
      flush: () => run("file.flush", path, async () => await file.flush?.()),
      syncData: () => run("file.syncData", path, () => this.#sync(() => file.syncData())),
      [Symbol.dispose]: () => this.#closed(this.open, path, file),
    };
  }

  #readable(path: string, file: ReadableFile): ReadableFile {
    this.open.push(path);
    return {
      read: (into, position) =>
        this.#do("file.read", path, () => file.read(into.subarray(0, this.maxBytes), position)),
      endsAt: (position) => {
        this.#check("file.endsAt", path);
        return file.endsAt(position);
      },
      [Symbol.dispose]: () => this.#closed(this.open, path, file),
    };
  }

  #locked(path: string, file: LockedFile): LockedFile {
    const run = this.#do.bind(this);
    this.locked.push(path);
    return {
      read: (most) => run("lock.read", path, () => file.read(most)),
      write: (bytes) => run("lock.write", path, () => file.write(bytes)),
      [Symbol.dispose]: () => this.#closed(this.locked, path, file),
    };
  }

  #closed(paths: string[], path: string, file: Disposable): void {
    paths.splice(paths.indexOf(path), 1);
    file[Symbol.dispose]();
  }
}

/** An error of the operating system, as Deno throws it. */
export function systemError(code: string): Error {
  const message = `${code}: made by a test (os error)`;
  switch (code) {
    case "ENOENT":
      return Object.assign(new Deno.errors.NotFound(message), { code });
    case "EACCES":
      return Object.assign(new Deno.errors.PermissionDenied(message), { code });
    default:
      return Object.assign(new Error(message), { code });
  }
}
