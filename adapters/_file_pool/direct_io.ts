import * as nodeFs from "node:fs";
import { lengthOfParts } from "../../src/base/byte_parts.ts";
import { AlignedBuffers, DIRECT_BUFFER_BYTES, O_DIRECT } from "../_shared/direct_access.ts";
import { FileWorker } from "../_shared/file_worker.ts";
import { openNumbered, readNumbered } from "../_shared/numbered_files.ts";
import { PAGE_BYTES, pagesFor } from "./pool_geometry.ts";

const { O_RDONLY, O_WRONLY, O_NOFOLLOW = 0 } = nodeFs.constants;

/**
 * Reads and writes files with direct I/O (`O_DIRECT`) through aligned buffers. Writes run in a
 * worker, one at a time, because Deno has no asynchronous write for such files.
 */
export class DirectIo implements AsyncDisposable {
  readonly #readFiles = new Map<string, Promise<number>>();
  readonly #writtenFiles = new Map<string, Promise<number>>();
  readonly #buffers = new AlignedBuffers();
  readonly #writer: FileWorker;
  /** Also reads and closes, where Deno's own threads must not. */
  readonly #reader: FileWorker | undefined;

  /**
   * @param worker Handles all operations; if left out, a worker only handles writes.
   */
  constructor(worker?: FileWorker) {
    this.#reader = worker;
    this.#writer = worker ?? new FileWorker();
  }

  /**
   * Writes and reads a test file the way a pool does.
   *
   * @param path File to create; it is removed again.
   * @returns Why direct I/O does not work, or `undefined`.
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
      return isSame ? undefined : "the bytes read differ from those written";
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    } finally {
      await this.#close(path);
      await Deno.remove(path).catch(() => {});
    }
  }

  /** Writes parts in sequence. `offset` and the total length must be whole pages. */
  async write(
    path: string,
    offset: number,
    parts: readonly Uint8Array<ArrayBuffer>[],
  ): Promise<void> {
    const opening = () =>
      this.#writer.ask({ op: "open", path, flags: O_WRONLY | O_NOFOLLOW | O_DIRECT });
    const file = await once(this.#writtenFiles, path, opening);
    const buffer = this.#buffers.take();
    try {
      let filled = 0;
      for (const part of parts) {
        for (let done = 0; done < part.byteLength;) {
          const taken = part.subarray(done, done + DIRECT_BUFFER_BYTES - filled);
          buffer.set(taken, filled);
          done += taken.byteLength;
          filled += taken.byteLength;
          if (filled < DIRECT_BUFFER_BYTES) continue;
          await this.#writer.write(file, buffer, filled, offset);
          offset += filled;
          filled = 0;
        }
      }
      if (filled > 0) await this.#writer.write(file, buffer, filled, offset);
    } finally {
      this.#buffers.giveBack(buffer);
    }
  }

  /** Fills the parts from the page at `offset` on; resolves to `false` if the file is too short. */
  async read(
    path: string,
    offset: number,
    parts: readonly Uint8Array<ArrayBuffer>[],
  ): Promise<boolean> {
    const flags = O_RDONLY | O_NOFOLLOW | O_DIRECT;
    const reader = this.#reader;
    const opening = () =>
      reader === undefined ? openNumbered(path, flags) : reader.ask({ op: "open", path, flags });
    const file = await once(this.#readFiles, path, opening);
    const buffer = this.#buffers.take();
    try {
      let left = lengthOfParts(parts);
      let index = 0;
      let done = 0;
      while (left > 0) {
        const wanted = Math.min(DIRECT_BUFFER_BYTES, pagesFor(left));
        const place = { from: 0, length: wanted, position: offset };
        const count = reader === undefined
          ? await readNumbered(file, buffer.subarray(0, wanted), offset)
          : await reader.ask({ op: "read", file, buffer: buffer.buffer, ...place });
        const usable = Math.min(left, count);
        // A read ends within a page only at the end of the file.
        if (count === 0 || (usable < left && usable % PAGE_BYTES !== 0)) return false;
        for (let from = 0; from < usable;) {
          const into = parts[index] as Uint8Array<ArrayBuffer>;
          const length = Math.min(usable - from, into.byteLength - done);
          into.set(buffer.subarray(from, from + length), done);
          from += length;
          done += length;
          if (done < into.byteLength) continue;
          index++;
          done = 0;
        }
        offset += usable;
        left -= usable;
      }
      return true;
    } finally {
      this.#buffers.giveBack(buffer);
    }
  }

  /** Closes all files; none may be in use. */
  async [Symbol.asyncDispose](): Promise<void> {
    const paths = new Set([...this.#readFiles.keys(), ...this.#writtenFiles.keys()]);
    await Promise.all(paths.values().map((path) => this.#close(path)));
    if (this.#reader === undefined) await this.#writer.close();
  }

  async #close(path: string): Promise<void> {
    const [read, written] = [this.#readFiles.get(path), this.#writtenFiles.get(path)];
    this.#readFiles.delete(path);
    this.#writtenFiles.delete(path);
    const readFile = await read?.catch(() => undefined);
    if (readFile !== undefined && this.#reader !== undefined) this.#reader.closeLater(readFile);
    else if (readFile !== undefined) nodeFs.closeSync(readFile);
    const writtenFile = await written?.catch(() => undefined);
    if (writtenFile !== undefined) this.#writer.closeLater(writtenFile);
  }
}

/** Opens a file once and reuses it; a failed attempt is not cached. */
function once(
  files: Map<string, Promise<number>>,
  path: string,
  open: () => Promise<number>,
): Promise<number> {
  const opened = files.get(path);
  if (opened !== undefined) return opened;
  const opening = open();
  files.set(path, opening);
  opening.catch(() => files.delete(path));
  return opening;
}
