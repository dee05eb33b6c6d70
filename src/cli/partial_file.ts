import { dirname } from "@std/path";
import { failFor } from "../base/config_error.ts";
import { CommandError } from "./command.ts";
import { ExportFault, type ExportPosition, ExportReader, ExportWriter } from "./export_format.ts";
import { askFor } from "./permissions.ts";

const fail = failFor("kvtier export");

/** Bytes that are collected before they are written. */
const BUFFER_BYTES = 2 ** 20;

/** How to begin an export. */
export interface ExportStart {
  /** The objects that were chosen, in words. */
  readonly selection: string;
  /** Whether an existing export may be replaced. */
  readonly replaces: boolean;
  /** Whether to discard what an interrupted export left. */
  readonly restarts: boolean;
  /** Called with the key of each object that an interrupted export left. */
  readonly onFound: (keyId: Uint8Array) => void;
}

/**
 * An export in the making: a file named `FILE.partial`, which one process at a time writes, and
 * which takes the name `FILE` when it is complete. An interrupted export is continued.
 */
export class PartialFile implements Disposable {
  readonly path: string;
  readonly writer: ExportWriter;
  readonly #file: Deno.FsFile;
  readonly #target: string;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  #buffered = 0;

  private constructor(target: string, file: Deno.FsFile, position: ExportPosition | undefined) {
    this.#target = target;
    this.path = `${target}.partial`;
    this.#file = file;
    this.writer = new ExportWriter((bytes) => this.#write(bytes), position);
  }

  /**
   * Opens the partial file for `target`.
   *
   * @throws {ConfigError} If `target` exists, or an interrupted export chose other objects.
   * @throws {CommandError} If another process is writing it.
   */
  static async open(target: string, start: ExportStart): Promise<PartialFile> {
    const path = `${target}.partial`;
    for (const each of [path, target]) {
      await askFor({ name: "read", path: each }, { name: "write", path: each });
    }
    if (!start.replaces && await exists(target)) {
      fail("FILE", "a file that does not exist yet, or --force", target);
    }
    const file = await openOwn(path);
    try {
      const position = start.restarts ? undefined : await readAll(file, start);
      await file.truncate(position?.byteOffset ?? 0);
      await file.seek(position?.byteOffset ?? 0, Deno.SeekMode.Start);
      const partial = new PartialFile(target, file, position);
      if (position === undefined) await partial.writer.begin({ selection: start.selection });
      return partial;
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** Ends the export and gives it its name. */
  async publish(): Promise<void> {
    await this.writer.end();
    await this.flush();
    await this.#file.sync();
    await Deno.rename(this.path, this.#target);
    await syncDirectory(dirname(this.#target));
  }

  /** Writes what is buffered. */
  async flush(): Promise<void> {
    const bytes = this.#buffer.subarray(0, this.#buffered);
    this.#buffered = 0;
    await writeAll(this.#file, bytes);
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }

  async #write(bytes: Uint8Array): Promise<void> {
    if (this.#buffered + bytes.byteLength > BUFFER_BYTES) await this.flush();
    if (bytes.byteLength >= BUFFER_BYTES) return await writeAll(this.#file, bytes);
    this.#buffer.set(bytes, this.#buffered);
    this.#buffered += bytes.byteLength;
  }
}

/** Opens a file for this process alone. */
async function openOwn(path: string): Promise<Deno.FsFile> {
  const options = { read: true, write: true, create: true, mode: 0o600 };
  const file = await Deno.open(path, options).catch((cause: Error) =>
    fail("FILE", "a file that can be created", cause.message, cause)
  );
  const isOwn = await file.tryLock(true);
  const [held, named] = await Promise.all([file.stat(), Deno.lstat(path).catch(() => undefined)]);
  // The other process may have published or removed the file meanwhile.
  if (isOwn && named?.isFile && held.ino === named.ino && held.dev === named.dev) return file;
  file.close();
  throw new CommandError(`${path} is being written by another process`);
}

/** Reads what an interrupted export left; returns where to continue, `undefined` for the start. */
async function readAll(
  file: Deno.FsFile,
  { selection, onFound }: ExportStart,
): Promise<ExportPosition | undefined> {
  const reader = new ExportReader((target) => file.read(target));
  try {
    const head = await reader.begin();
    if (head.selection !== selection) {
      fail(
        "options",
        `those of the interrupted export (${head.selection}), or --restart`,
        selection,
      );
    }
    let { position } = reader;
    try {
      for await (const { key } of reader.objects()) {
        onFound(key.digest);
        ({ position } = reader);
      }
    } catch (error) {
      // The record that was being written when the export was interrupted.
      if (!(error instanceof ExportFault)) throw error;
    }
    return position;
  } catch (error) {
    if (error instanceof ExportFault) return undefined;
    throw error;
  }
}

/** Writes all bytes. */
async function writeAll(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  try {
    for (let done = 0; done < bytes.byteLength;) done += await file.write(bytes.subarray(done));
  } catch (cause) {
    throw new CommandError(`The export cannot be written: ${(cause as Error).message}`, { cause });
  }
}

async function exists(path: string): Promise<boolean> {
  return await Deno.lstat(path).then(() => true, (error: unknown) => {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  });
}

/** Makes a new name survive a power cut, where the file system can. */
async function syncDirectory(path: string): Promise<void> {
  try {
    using directory = await Deno.open(path);
    await directory.sync();
  } catch {
    // Not every file system syncs directories.
  }
}
