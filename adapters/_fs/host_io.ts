import { publishFile } from "../../src/base/io/publish_file.ts";
import { readObject } from "../../src/base/io/read_object.ts";
import { runLater } from "../../src/base/io/steps.ts";
import { Limiter } from "../../src/base/limiter.ts";
import type { CallPurpose } from "../_shared/os_calls.ts";
import type { FileSystem } from "./file_system.ts";
import type { FileLookup, FileRead, FileWrite, IoOptions, ObjectIo } from "./object_io.ts";
import type { StoreContext } from "./store_context.ts";

/** Max bytes that may follow an object in its file; a larger file is not read. */
const MAX_TRAILING_BYTES = 65_536;

/** Options of a {@linkcode HostIo}. */
export interface HostIoOptions
  extends Pick<StoreContext, "ioConcurrency" | "durability" | "readAheadBytes"> {
  /** File operations for a purpose, past the page cache if possible and wanted. */
  readonly files: (purpose: CallPurpose, signal: AbortSignal) => FileSystem;
}

/** Objects through asynchronous calls of the host, one file at a time for each call. */
export class HostIo implements ObjectIo {
  readonly takesBatches = false;
  readonly #options: HostIoOptions;
  /** Lookups are limited separately: each is cheap, and a chain may need many at once. */
  readonly #lookupLimiter: Limiter;

  constructor(options: HostIoOptions) {
    this.#options = options;
    this.#lookupLimiter = new Limiter({ operations: options.ioConcurrency });
  }

  /** See {@linkcode ObjectIo.find}. */
  async find(
    lookups: readonly FileLookup[],
    { signal, onOutcome }: Omit<IoOptions, "isDirect">,
  ): Promise<void> {
    const files = this.#options.files("lookup", signal);
    await this.#lookupLimiter.forEach(lookups, () => 0, async ({ path, isStrict }, index) => {
      try {
        const isThere = isStrict
          ? (await files.lstat(path)).isFile
          : await files.exists(path).catch(() => false);
        onOutcome(index, { status: isThere ? "done" : "absent" });
      } catch (error) {
        if (error !== signal.reason) onOutcome(index, { status: "failed", error });
      }
    }, signal);
  }

  /** See {@linkcode ObjectIo.read}. */
  async read(reads: readonly FileRead[], { signal, onOutcome }: IoOptions): Promise<void> {
    const files = this.#options.files("load", signal);
    const { readAheadBytes } = this.#options;
    for (const [index, read] of reads.entries()) {
      if (signal.aborted) return;
      try {
        using file = await files.open(read.path, read.byteLength + MAX_TRAILING_BYTES);
        const isRead = await runLater(readObject(file, { ...read, readAheadBytes }));
        onOutcome(index, { status: isRead ? "done" : "other-size" });
      } catch (error) {
        if (error !== signal.reason) onOutcome(index, { status: "failed", error });
      }
    }
  }

  /** See {@linkcode ObjectIo.publish}. */
  async publish(
    writes: readonly FileWrite[],
    { signal, mode, onOutcome }: IoOptions & { readonly mode: number },
  ): Promise<void> {
    const files = this.#options.files("store", signal);
    const { durability } = this.#options;
    for (const [index, { object, tmpPath, finalPath }] of writes.entries()) {
      if (signal.aborted) return;
      let isPublished = false;
      const onPublished = (): void => void (isPublished = true);
      try {
        const { parts } = object;
        const options = { files, parts, tmpPath, finalPath, mode, durability, onPublished };
        await runLater(publishFile(options));
        onOutcome(index, { status: "done" });
      } catch (error) {
        onOutcome(index, { status: "failed", error, isPublished });
      }
    }
  }
}
