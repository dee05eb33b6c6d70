import * as nodeFs from "node:fs";
import { lengthOfParts } from "../../src/base/byte_parts.ts";
import { AlignedReader, AlignedWriter } from "../_shared/aligned_transfers.ts";
import { AlignedBuffers, O_DIRECT, refusalOf } from "../_shared/direct_access.ts";
import { FileWorker } from "../_shared/file_worker.ts";
import { type NumberedFiles, numberedFiles } from "../_shared/numbered_files.ts";
import { PAGE_BYTES } from "./pool_geometry.ts";

const { O_RDONLY, O_WRONLY, O_NOFOLLOW = 0 } = nodeFs.constants;

/**
 * Reads and writes files with direct I/O (`O_DIRECT`) through aligned buffers. Writes run in a
 * worker, one at a time, because Deno has no asynchronous write for such files.
 */
export class DirectIo {
  readonly #readFiles = new Map<string, Promise<number>>();
  readonly #writtenFiles = new Map<string, Promise<number>>();
  readonly #buffers = new AlignedBuffers();
  readonly #worker: FileWorker;
  readonly #ownsWorker: boolean;
  readonly #readable: NumberedFiles;

  /**
   * @param worker Handles all operations; if left out, a worker only handles writes.
   */
  constructor(worker?: FileWorker) {
    this.#readable = numberedFiles(worker);
    this.#worker = worker ?? new FileWorker();
    this.#ownsWorker = worker === undefined;
  }

  /**
   * Writes and reads a test file the way a pool does.
   *
   * @param path File to create; it is removed again.
   * @returns Why direct I/O does not work, or `undefined`.
   */
  async probe(path: string): Promise<string | undefined> {
    try {
      return await refusalOf(2 * PAGE_BYTES, async (bytes) => {
        await Deno.writeFile(path, new Uint8Array(3 * PAGE_BYTES), { mode: 0o600 });
        await this.write(path, PAGE_BYTES, [bytes.subarray(0, 100), bytes.subarray(100)]);
        const into = new Uint8Array(bytes.byteLength);
        const parts = [into.subarray(0, PAGE_BYTES + 1), into.subarray(PAGE_BYTES + 1)];
        return await this.read(path, PAGE_BYTES, parts) ? into : undefined;
      });
    } finally {
      await this.#close(path);
      await Deno.remove(path).catch(() => {});
    }
  }

  /** Writes parts in sequence. `offset` and the total length must be whole pages. */
  async write(
    path: string,
    offset: number,
    parts: readonly Uint8Array[],
  ): Promise<void> {
    const worker = this.#worker;
    const opening = () => worker.ask({ op: "open", path, flags: O_WRONLY | O_NOFOLLOW | O_DIRECT });
    const file = await once(this.#writtenFiles, path, opening);
    using writer = new AlignedWriter({ worker, file, buffers: this.#buffers, position: offset });
    for (const part of parts) {
      for (let done = 0; done < part.byteLength;) done += await writer.write(part.subarray(done));
    }
    await writer.flush();
  }

  /** Fills the parts from the page at `offset` on; resolves to `false` if the file is too short. */
  async read(
    path: string,
    offset: number,
    parts: readonly Uint8Array[],
  ): Promise<boolean> {
    const files = this.#readable;
    const opening = () => files.open(path, O_RDONLY | O_NOFOLLOW | O_DIRECT);
    const file = await once(this.#readFiles, path, opening);
    const end = offset + lengthOfParts(parts);
    using reader = new AlignedReader({ files, file, buffers: this.#buffers, end });
    let position = offset;
    for (const part of parts) {
      for (let done = 0; done < part.byteLength;) {
        const count = await reader.read(part.subarray(done), position);
        if (count === 0) return false;
        done += count;
        position += count;
      }
    }
    return true;
  }

  /** Closes all files; none may be in use. */
  async close(): Promise<void> {
    const paths = new Set([...this.#readFiles.keys(), ...this.#writtenFiles.keys()]);
    await Promise.all(paths.values().map((path) => this.#close(path)));
    if (this.#ownsWorker) await this.#worker.close();
  }

  async #close(path: string): Promise<void> {
    const [read, written] = [this.#readFiles.get(path), this.#writtenFiles.get(path)];
    this.#readFiles.delete(path);
    this.#writtenFiles.delete(path);
    const readFile = await read?.catch(() => undefined);
    if (readFile !== undefined) this.#readable.close(readFile);
    const writtenFile = await written?.catch(() => undefined);
    if (writtenFile !== undefined) this.#worker.closeLater(writtenFile);
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
