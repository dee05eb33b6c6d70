import * as nodeFs from "node:fs";
import { errnoOf } from "./errno.ts";
import {
  type FileSystem,
  openNumbered,
  type ReadableFile,
  readNumbered,
  type WritableFile,
} from "./file_system.ts";
import type { WriteReply, WriteRequest } from "./direct_writer.ts";

/** What addresses, lengths and offsets must be multiples of. */
export const DIRECT_ALIGNMENT = 4096;
/** Bytes of one aligned buffer; more is moved in several steps. */
const BUFFER_BYTES = 4 * 2 ** 20;
const PAGE_BYTES = 65_536;

const { O_RDONLY, O_NOFOLLOW = 0, O_NONBLOCK = 0 } = nodeFs.constants;
const O_DIRECT: number = (nodeFs.constants as { O_DIRECT?: number }).O_DIRECT ?? 0;

/** Whether an error says that this file system, or this file, cannot be used past the cache. */
export function isDirectRefused(error: unknown): boolean {
  return ["EINVAL", "EOPNOTSUPP", "ENOTSUP"].includes(errnoOf(error) ?? "");
}

/** What {@linkcode DirectFiles} are to who uses them. */
export type DirectFileSystem = Pick<DirectFiles, "files" | "probe" | typeof Symbol.asyncDispose>;

/**
 * A file system whose files are read and written past the page cache (`O_DIRECT`), through aligned
 * buffers. Writes run in a worker: Deno knows no asynchronous write to such a file.
 */
export class DirectFiles implements AsyncDisposable {
  /** The file system. */
  readonly files: FileSystem;
  readonly #buffers = new BufferPool();
  readonly #writer = new DirectWriter();

  /** Reads and writes past the cache, and leaves everything else to `files`. */
  constructor(files: FileSystem) {
    this.files = {
      ...files,
      create: async (path, mode) => {
        const buffer = await this.#buffers.take();
        try {
          const file = await this.#writer.open(path, mode);
          return new DirectWritableFile(this.#writer, file, buffer, this.#buffers);
        } catch (error) {
          this.#buffers.giveBack(buffer);
          throw error;
        }
      },
      open: async (path) => {
        const flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_DIRECT;
        const file = await openNumbered(path, flags);
        return new DirectReadableFile(file, this.#buffers);
      },
    };
  }

  /**
   * Writes and reads a file as the adapter does.
   *
   * @returns Why that does not work, or `undefined`.
   */
  async probe(path: string, mode: number): Promise<string | undefined> {
    if (O_DIRECT === 0) return "this operating system has no O_DIRECT";
    const bytes = new Uint8Array(DIRECT_ALIGNMENT + 1).map((_, i) => i % 251);
    try {
      {
        using file = await this.files.create(path, mode);
        await file.write(bytes);
        await file.flush();
      }
      using file = await this.files.open(path);
      const read = new Uint8Array(bytes.byteLength);
      const count = await file.read(read, 0);
      const isSame = count === bytes.byteLength && bytes.every((byte, i) => read[i] === byte);
      return isSame && file.endsAt(count) ? undefined : "what was read is not what was written";
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    } finally {
      await this.files.remove(path).catch(() => {});
    }
  }

  /** Ends the worker, when it has closed its files. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#writer.close();
  }
}

type AlignedBuffer = Uint8Array<SharedArrayBuffer>;

/** Aligned buffers, as many as files are open at a time. */
class BufferPool {
  readonly #idle: AlignedBuffer[] = [];

  take(): AlignedBuffer {
    const idle = this.#idle.pop();
    if (idle !== undefined) return idle;
    const pages = BUFFER_BYTES / PAGE_BYTES;
    // The memory of WebAssembly starts at a page, which no other buffer of JavaScript promises.
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    return new Uint8Array(memory.buffer as unknown as SharedArrayBuffer);
  }

  giveBack(buffer: AlignedBuffer): void {
    this.#idle.push(buffer);
  }
}

class DirectReadableFile implements ReadableFile {
  readonly #file: number;
  readonly #buffers: BufferPool;
  /** Bytes of the file that lie in the buffer, from `#start` on. */
  readonly #buffer: AlignedBuffer;
  #start = 0;
  #count = 0;

  constructor(file: number, buffers: BufferPool) {
    this.#file = file;
    this.#buffers = buffers;
    this.#buffer = buffers.take();
  }

  async read(into: Uint8Array<ArrayBuffer>, position: number): Promise<number> {
    if (position < this.#start || position >= this.#start + this.#count) {
      this.#start = position - position % DIRECT_ALIGNMENT;
      // One block more than is wanted, so that the end of the file shows.
      const wanted = position - this.#start + into.byteLength + 1;
      const length = Math.min(BUFFER_BYTES, alignUp(wanted));
      this.#count = 0;
      this.#count = await readNumbered(this.#file, this.#buffer.subarray(0, length), this.#start);
    }
    const from = position - this.#start;
    const bytes = this.#buffer.subarray(from, Math.min(this.#count, from + into.byteLength));
    into.set(bytes);
    return bytes.byteLength;
  }

  endsAt(position: number): boolean {
    const end = this.#start + this.#count;
    if (position >= this.#start && position < end) return false;
    // A read ends within a block only where the file does.
    if (position === end && position % DIRECT_ALIGNMENT !== 0) return true;
    const known = position === end ? position : position - 1;
    const from = Math.max(0, known - known % DIRECT_ALIGNMENT);
    const blocks = this.#buffer.subarray(0, 2 * DIRECT_ALIGNMENT);
    this.#count = 0;
    return from + nodeFs.readSync(this.#file, blocks, 0, blocks.byteLength, from) === position;
  }

  [Symbol.dispose](): void {
    this.#buffers.giveBack(this.#buffer);
    nodeFs.closeSync(this.#file);
  }
}

class DirectWritableFile implements WritableFile {
  readonly #writer: DirectWriter;
  readonly #file: number;
  readonly #buffer: AlignedBuffer;
  readonly #buffers: BufferPool;
  #filled = 0;
  #written = 0;

  constructor(writer: DirectWriter, file: number, buffer: AlignedBuffer, buffers: BufferPool) {
    this.#writer = writer;
    this.#file = file;
    this.#buffer = buffer;
    this.#buffers = buffers;
  }

  async write(bytes: Uint8Array<ArrayBuffer>): Promise<number> {
    if (this.#filled === BUFFER_BYTES) await this.#writeOut(BUFFER_BYTES);
    const taken = bytes.subarray(0, BUFFER_BYTES - this.#filled);
    this.#buffer.set(taken, this.#filled);
    this.#filled += taken.byteLength;
    return taken.byteLength;
  }

  async flush(): Promise<void> {
    const length = this.#written + this.#filled;
    if (this.#filled > 0) await this.#writeOut(alignUp(this.#filled));
    if (length % DIRECT_ALIGNMENT === 0) return;
    await this.#writer.ask({ op: "truncate", file: this.#file, length });
  }

  async syncData(): Promise<void> {
    await this.#writer.ask({ op: "sync", file: this.#file });
  }

  [Symbol.dispose](): void {
    this.#writer.forget(this.#file);
    this.#buffers.giveBack(this.#buffer);
  }

  async #writeOut(length: number): Promise<void> {
    const { buffer } = this.#buffer;
    this.#buffer.fill(0, this.#filled, length);
    for (let done = 0; done < length;) {
      const position = this.#written + done;
      const request = {
        op: "write",
        file: this.#file,
        buffer,
        from: done,
        length,
        position,
      } as const;
      const written = await this.#writer.ask(request);
      if (written === 0) throw new Deno.errors.WriteZero("The file took no more bytes");
      done += written;
    }
    this.#written += this.#filled;
    this.#filled = 0;
  }
}

/** Asks the worker that writes. */
class DirectWriter {
  #worker: Worker | undefined;
  #asked = 0;
  readonly #answers = new Map<number, PromiseWithResolvers<number>>();

  open(path: string, mode: number): Promise<number> {
    return this.ask({ op: "open", path, mode });
  }

  ask(request: WriteRequest): Promise<number> {
    const answer = Promise.withResolvers<number>();
    const id = this.#asked++;
    this.#answers.set(id, answer);
    this.#start().postMessage({ id, request });
    return answer.promise;
  }

  forget(file: number): void {
    this.ask({ op: "close", file }).catch(() => {});
  }

  async close(): Promise<void> {
    await Promise.allSettled([...this.#answers.values()].map(({ promise }) => promise));
    this.#worker?.terminate();
    this.#worker = undefined;
  }

  #start(): Worker {
    if (this.#worker !== undefined) return this.#worker;
    const url = new URL("./direct_writer.ts", import.meta.url);
    const worker = this.#worker = new Worker(url, { type: "module", name: "kvtier direct writer" });
    worker.onmessage = ({ data: { id, ...reply } }: MessageEvent<{ id: number } & WriteReply>) => {
      const answer = this.#answers.get(id);
      this.#answers.delete(id);
      if (reply.error === undefined) answer?.resolve(reply.value);
      else answer?.reject(Object.assign(new Error(reply.error), { code: reply.code }));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      for (const answer of this.#answers.values()) answer.reject(new Error(event.message));
      this.#answers.clear();
    };
    return worker;
  }
}

function alignUp(length: number): number {
  return Math.ceil(length / DIRECT_ALIGNMENT) * DIRECT_ALIGNMENT;
}
