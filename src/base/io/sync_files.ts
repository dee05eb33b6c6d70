import * as nodeFs from "node:fs";
import { alignUp, DIRECT_ALIGNMENT, DIRECT_BUFFER_BYTES, O_DIRECT } from "./direct_io.ts";
import type { PublishingFiles, TargetFile } from "./publish_file.ts";
import type { SourceFile } from "./read_object.ts";

const { O_RDONLY, O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW = 0, O_NONBLOCK = 0 } = nodeFs.constants;
const READ = O_RDONLY | O_NOFOLLOW | O_NONBLOCK;
const CREATE = O_WRONLY | O_CREAT | O_EXCL;
const WASM_PAGE_BYTES = 65_536;

/** File operations of a worker thread, which block it. */
export interface SyncFiles extends PublishingFiles {
  /** Opens a file without following a link or blocking on a FIFO. */
  open(path: string, maxBytes: number): SourceFile;
}

/** Through the page cache. */
export const syncFiles: SyncFiles = {
  open: (path) => new BufferedReader(nodeFs.openSync(path, READ)),
  create: (path, mode) => new BufferedWriter(nodeFs.openSync(path, CREATE, mode)),
  chmod: (path, mode) => nodeFs.chmodSync(path, mode),
  rename: (from, to) => nodeFs.renameSync(from, to),
  remove: (path) => nodeFs.unlinkSync(path),
  syncDirectory(path) {
    using directory = Deno.openSync(path, { read: true });
    directory.syncSync();
    // After a shutdown of XFS, the sync succeeds without writing anything; reading attributes
    // fails.
    directory.statSync();
  },
};

/** Past the page cache. */
export const directSyncFiles: SyncFiles = {
  ...syncFiles,
  open: (path, maxBytes) => new DirectReader(nodeFs.openSync(path, READ | O_DIRECT), maxBytes),
  create: (path, mode) => new DirectWriter(nodeFs.openSync(path, CREATE | O_DIRECT, mode)),
};

/** A file that this object closes. */
class OpenFile implements Disposable {
  protected readonly file: number;

  constructor(file: number) {
    this.file = file;
  }

  [Symbol.dispose](): void {
    nodeFs.closeSync(this.file);
  }
}

const twoBytes = new Uint8Array(2);

class BufferedReader extends OpenFile implements SourceFile {
  read(into: Uint8Array, position: number): number {
    return nodeFs.readSync(this.file, into, 0, into.byteLength, position);
  }

  endsAt(position: number): boolean {
    const from = Math.max(0, position - 1);
    return from + nodeFs.readSync(this.file, twoBytes, 0, 2, from) === position;
  }
}

class BufferedWriter extends OpenFile implements TargetFile {
  write(bytes: Uint8Array): number {
    return nodeFs.writeSync(this.file, bytes);
  }

  syncData(): void {
    nodeFs.fdatasyncSync(this.file);
  }
}

let alignedBuffer: Uint8Array | undefined;

/** The aligned memory of this thread, which has one file open at a time. */
function aligned(): Uint8Array {
  const pages = DIRECT_BUFFER_BYTES / WASM_PAGE_BYTES;
  return alignedBuffer ??= new Uint8Array(
    new WebAssembly.Memory({ initial: pages, maximum: pages }).buffer,
  );
}

class DirectReader extends OpenFile implements SourceFile {
  readonly #end: number;
  readonly #buffer = aligned();
  #start = 0;
  #count = 0;

  constructor(file: number, end: number) {
    super(file);
    this.#end = end;
  }

  read(into: Uint8Array, position: number): number {
    if (position < this.#start || position >= this.#start + this.#count) {
      this.#start = position - position % DIRECT_ALIGNMENT;
      const wanted = Math.max(this.#end, position + into.byteLength) - this.#start;
      const length = Math.min(DIRECT_BUFFER_BYTES, alignUp(wanted));
      this.#count = 0;
      this.#count = nodeFs.readSync(this.file, this.#buffer, 0, length, this.#start);
    }
    const from = position - this.#start;
    const bytes = this.#buffer.subarray(from, Math.min(this.#count, from + into.byteLength));
    into.set(bytes);
    return bytes.byteLength;
  }

  endsAt(position: number): boolean | undefined {
    const end = this.#start + this.#count;
    if (position >= this.#start && position < end) return false;
    // A short read within a block only happens at the end of the file.
    return position === end && position % DIRECT_ALIGNMENT !== 0 ? true : undefined;
  }
}

class DirectWriter extends OpenFile implements TargetFile {
  readonly #buffer = aligned();
  #position = 0;
  #filled = 0;

  write(bytes: Uint8Array): number {
    if (this.#filled === DIRECT_BUFFER_BYTES) this.flush();
    const taken = bytes.subarray(0, DIRECT_BUFFER_BYTES - this.#filled);
    this.#buffer.set(taken, this.#filled);
    this.#filled += taken.byteLength;
    return taken.byteLength;
  }

  flush(): void {
    const length = alignUp(this.#filled);
    this.#buffer.fill(0, this.#filled, length);
    for (let from = 0; from < length;) {
      const at = this.#position + from;
      const written = nodeFs.writeSync(this.file, this.#buffer, from, length - from, at);
      // A file system that writes no bytes without an error would loop forever.
      if (written === 0) throw new Deno.errors.WriteZero("The file took no more bytes");
      from += written;
    }
    this.#position += this.#filled;
    this.#filled = 0;
    if (this.#position % DIRECT_ALIGNMENT !== 0) nodeFs.ftruncateSync(this.file, this.#position);
  }

  syncData(): void {
    nodeFs.fdatasyncSync(this.file);
  }
}
