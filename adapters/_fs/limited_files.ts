import type { CallPurpose, OsCalls } from "../_shared/os_calls.ts";
import type { FileSystem, LockedFile, ReadableFile, WritableFile } from "./file_system.ts";

type Run = <Value>(call: () => Promise<Value>) => Promise<Value>;

/**
 * File operations within the thread limits of an adapter. Waiting ends when `signal` aborts, except
 * for removals, which clean up.
 */
export class LimitedFiles implements FileSystem {
  readonly #files: FileSystem;
  readonly #calls: OsCalls;
  readonly #purpose: CallPurpose;
  readonly #run: Run;

  constructor(files: FileSystem, calls: OsCalls, purpose: CallPurpose, signal?: AbortSignal) {
    this.#files = files;
    this.#calls = calls;
    this.#purpose = purpose;
    this.#run = (call) => calls.run(purpose, signal, call);
  }

  async create(path: string, mode: number): Promise<WritableFile> {
    return new LimitedWritableFile(
      await this.#run(() => this.#files.create(path, mode)),
      this.#run,
    );
  }

  async open(path: string, maxBytes: number): Promise<ReadableFile> {
    return new LimitedReadableFile(
      await this.#run(() => this.#files.open(path, maxBytes)),
      this.#run,
    );
  }

  async lock(
    path: string,
    options: { create: boolean; mode: number },
  ): Promise<LockedFile | undefined> {
    const file = await this.#run(() => this.#files.lock(path, options));
    return file && new LimitedLockedFile(file, this.#run);
  }

  exists(path: string): Promise<boolean> {
    return this.#run(() => this.#files.exists(path));
  }

  lstat(path: string): Promise<Deno.FileInfo> {
    return this.#run(() => this.#files.lstat(path));
  }

  async *readDir(path: string): AsyncGenerator<Deno.DirEntry, void> {
    const entries = this.#files.readDir(path)[Symbol.asyncIterator]();
    try {
      // Deno reads the whole directory with the first entry.
      let next = await this.#run(() => entries.next());
      while (next.done !== true) {
        yield next.value;
        next = await entries.next();
      }
    } finally {
      await entries.return?.();
    }
  }

  mkdir(path: string, mode: number): Promise<void> {
    return this.#run(() => this.#files.mkdir(path, mode));
  }

  rename(from: string, to: string): Promise<void> {
    return this.#run(() => this.#files.rename(from, to));
  }

  remove(path: string): Promise<void> {
    return this.#calls.run(this.#purpose, undefined, () => this.#files.remove(path));
  }

  touch(path: string, time: Date): Promise<void> {
    return this.#run(() => this.#files.touch(path, time));
  }

  chmod(path: string, mode: number): Promise<void> {
    return this.#run(() => this.#files.chmod(path, mode));
  }

  syncDirectory(path: string): Promise<void> {
    return this.#run(() => this.#files.syncDirectory(path));
  }

  room(path: string): ReturnType<FileSystem["room"]> {
    return this.#run(() => this.#files.room(path));
  }
}

class LimitedReadableFile implements ReadableFile {
  readonly #file: ReadableFile;
  readonly #run: Run;

  constructor(file: ReadableFile, run: Run) {
    this.#file = file;
    this.#run = run;
  }

  read(into: Uint8Array<ArrayBuffer>, position: number): Promise<number> {
    return this.#run(() => this.#file.read(into, position));
  }

  endsAt(position: number): boolean | undefined {
    return this.#file.endsAt(position);
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}

class LimitedWritableFile implements WritableFile {
  readonly #file: WritableFile;
  readonly #run: Run;

  constructor(file: WritableFile, run: Run) {
    this.#file = file;
    this.#run = run;
  }

  write(bytes: Uint8Array<ArrayBuffer>): Promise<number> {
    return this.#run(() => this.#file.write(bytes));
  }

  flush(): Promise<void> {
    return this.#run(() => this.#file.flush());
  }

  syncData(): Promise<void> {
    return this.#run(() => this.#file.syncData());
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}

class LimitedLockedFile implements LockedFile {
  readonly #file: LockedFile;
  readonly #run: Run;

  constructor(file: LockedFile, run: Run) {
    this.#file = file;
    this.#run = run;
  }

  read(maxBytes: number): Promise<Uint8Array> {
    return this.#run(() => this.#file.read(maxBytes));
  }

  write(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    return this.#run(() => this.#file.write(bytes));
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}
