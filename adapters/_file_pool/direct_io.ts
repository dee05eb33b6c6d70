import * as nodeFs from "node:fs";
import type { CloseRequest, WriteReply, WriteRequest } from "./direct_writer.ts";
import { PAGE_BYTES, pagesFor } from "./pool_geometry.ts";

/** Bytes of one aligned buffer; more is moved in several steps. */
const BUFFER_BYTES = 4 * 2 ** 20;
const WASM_PAGE_BYTES = 65_536;

const { O_RDONLY, O_NOFOLLOW = 0 } = nodeFs.constants;
const O_DIRECT: number = (nodeFs.constants as { O_DIRECT?: number }).O_DIRECT ?? 0;

/** Whether an error is no failure of the disk, but of the way past the page cache. */
export function isDirectRefused(error: unknown): boolean {
  const code: unknown = error instanceof Error ? Reflect.get(error, "code") : undefined;
  return code === undefined || ["EINVAL", "EOPNOTSUPP", "ENOTSUP"].includes(String(code));
}

/**
 * Reads and writes files past the page cache (`O_DIRECT`), through aligned buffers. Writes run in a
 * worker, one at a time: Deno knows no asynchronous write to such a file.
 */
export class DirectIo implements AsyncDisposable {
  readonly #files = new Map<string, Promise<number>>();
  readonly #idle: AlignedBuffer[] = [];
  readonly #writer = new Writer();

  /**
   * Writes and reads a file as a pool does.
   *
   * @param path A file to make; it is removed again.
   * @returns Why that does not work, or `undefined`.
   */
  async probe(path: string): Promise<string | undefined> {
    if (O_DIRECT === 0) return "this operating system has no O_DIRECT";
    const bytes = new Uint8Array(2 * PAGE_BYTES).map((_, i) => i % 251);
    const into = new Uint8Array(PAGE_BYTES + 1);
    try {
      await Deno.writeFile(path, new Uint8Array(3 * PAGE_BYTES), { mode: 0o600 });
      await this.write(path, PAGE_BYTES, [bytes.subarray(0, 100), bytes.subarray(100)]);
      const isWhole = await this.read(path, PAGE_BYTES, [into]);
      const isSame = isWhole && into.every((byte, i) => bytes[i] === byte);
      return isSame ? undefined : "what was read is not what was written";
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    } finally {
      await this.#close(path);
      this.#writer.forget(path);
      await Deno.remove(path).catch(() => {});
    }
  }

  /** Writes pieces, one after the other; all bytes together, and `offset`, make whole pages. */
  async write(
    path: string,
    offset: number,
    pieces: readonly Uint8Array<ArrayBuffer>[],
  ): Promise<void> {
    const buffer = this.#idle.pop() ?? alignedBuffer();
    try {
      let filled = 0;
      for (const piece of pieces) {
        for (let done = 0; done < piece.byteLength;) {
          const taken = piece.subarray(done, done + BUFFER_BYTES - filled);
          buffer.set(taken, filled);
          done += taken.byteLength;
          filled += taken.byteLength;
          if (filled < BUFFER_BYTES) continue;
          await this.#writer.write(path, buffer, filled, offset);
          offset += filled;
          filled = 0;
        }
      }
      if (filled > 0) await this.#writer.write(path, buffer, filled, offset);
    } finally {
      this.#idle.push(buffer);
    }
  }

  /** Fills the parts from a multiple of a page on; `false` if the file ends before. */
  async read(
    path: string,
    offset: number,
    parts: readonly Uint8Array<ArrayBuffer>[],
  ): Promise<boolean> {
    const file = await this.#open(path);
    const buffer = this.#idle.pop() ?? alignedBuffer();
    try {
      let left = parts.reduce((sum, part) => sum + part.byteLength, 0);
      let part = 0;
      let done = 0;
      while (left > 0) {
        const wanted = Math.min(BUFFER_BYTES, pagesFor(left));
        const count = await readNumbered(file, buffer.subarray(0, wanted), offset);
        const usable = Math.min(left, count);
        // Within a page there is only the end of the file.
        if (count === 0 || (usable < left && usable % PAGE_BYTES !== 0)) return false;
        for (let from = 0; from < usable;) {
          const into = parts[part] as Uint8Array<ArrayBuffer>;
          const length = Math.min(usable - from, into.byteLength - done);
          into.set(buffer.subarray(from, from + length), done);
          from += length;
          done += length;
          if (done < into.byteLength) continue;
          part++;
          done = 0;
        }
        offset += usable;
        left -= usable;
      }
      return true;
    } finally {
      this.#idle.push(buffer);
    }
  }

  /** Closes all files; none may be in use. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close();
    await Promise.all([...this.#files.keys()].map((path) => this.#close(path)));
  }

  #open(path: string): Promise<number> {
    const opened = this.#files.get(path);
    if (opened !== undefined) return opened;
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    this.#files.set(path, promise);
    nodeFs.open(path, O_RDONLY | O_NOFOLLOW | O_DIRECT, (error, file) => {
      if (error === null) return resolve(file);
      this.#files.delete(path);
      reject(error);
    });
    return promise;
  }

  async #close(path: string): Promise<void> {
    const opened = this.#files.get(path);
    this.#files.delete(path);
    const file = await opened?.catch(() => undefined);
    if (file !== undefined) nodeFs.closeSync(file);
  }
}

type AlignedBuffer = Uint8Array<SharedArrayBuffer>;

function alignedBuffer(): AlignedBuffer {
  // The memory of WebAssembly starts at a page, which no other buffer of JavaScript promises.
  const pages = BUFFER_BYTES / WASM_PAGE_BYTES;
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  return new Uint8Array(memory.buffer as unknown as SharedArrayBuffer);
}

/** Asks the worker that writes; it runs from the first write on. */
class Writer {
  readonly #answers = new Map<number, PromiseWithResolvers<void>>();
  #worker: Worker | undefined;
  #closed: PromiseWithResolvers<void> | undefined;
  #asked = 0;

  write(path: string, bytes: AlignedBuffer, length: number, position: number): Promise<void> {
    const answer = Promise.withResolvers<void>();
    const id = this.#asked++;
    this.#answers.set(id, answer);
    const request: WriteRequest = { id, path, buffer: bytes.buffer, length, position };
    this.#start().postMessage(request);
    return answer.promise;
  }

  forget(path: string): void {
    const request: CloseRequest = { close: path };
    this.#worker?.postMessage(request);
  }

  async close(): Promise<void> {
    const worker = this.#worker;
    this.#worker = undefined;
    if (worker === undefined) return;
    this.#closed = Promise.withResolvers();
    const request: CloseRequest = { close: null };
    worker.postMessage(request);
    await this.#closed.promise;
    worker.terminate();
  }

  #start(): Worker {
    if (this.#worker !== undefined) return this.#worker;
    const url = new URL("./direct_writer.ts", import.meta.url);
    const worker = new Worker(url, { type: "module", name: "kvtier pool writer" });
    worker.onmessage = ({ data }: MessageEvent<WriteReply | "closed">) => {
      if (data === "closed") return this.#closed?.resolve();
      const { id, error, code } = data;
      const answer = this.#answers.get(id);
      this.#answers.delete(id);
      if (error === undefined) answer?.resolve();
      else answer?.reject(Object.assign(new Error(error), { code }));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      worker.terminate();
      this.#worker = undefined;
      this.#closed?.resolve();
      for (const answer of this.#answers.values()) answer.reject(new Error(event.message));
      this.#answers.clear();
    };
    return this.#worker = worker;
  }
}

function readNumbered(
  file: number,
  into: AlignedBuffer,
  position: number,
): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  nodeFs.read(file, into, 0, into.byteLength, position, (error, count) => {
    if (error === null) resolve(count);
    else reject(error);
  });
  return promise;
}
