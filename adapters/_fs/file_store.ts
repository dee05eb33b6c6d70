import { pooledMap } from "@std/async";
import { dirname, join } from "@std/path";
import {
  AdapterError,
  type AdapterObject,
  type AdapterUsage,
  Bitmap,
  type CallOptions,
  ConfigError,
  decodeFileName,
  type DeleteResult,
  encodeFileName,
  isHashedFileName,
  type L2Adapter,
  type ListedObject,
  type ListOptions,
  type LookupOptions,
  type ObjectKey,
  type StoreResult,
  systemRandom,
} from "../../src/l2/adapter.ts";
import { publishFile, syncDirectory } from "./publish_file.ts";

/** File operations at a time: Deno has 32 threads for all of them, and other work needs some. */
const CONCURRENCY = 8;
/** Keys whose files a chain lookup asks for before it looks whether there was a gap. */
const LOOKUP_WINDOW = 64;
const DIRECTORY_MODE = 0o700;

/** How a {@linkcode FileStore} is set up. */
export interface FileStoreOptions {
  /** Directory for the objects. */
  readonly basePath: string;
  /** Directory for files that are being written, on the same file system. */
  readonly tmpPath: string;
  /** What is synced before an object counts as stored. */
  readonly durability: "none" | "file" | "full";
  /** Told about failures that cost a key. */
  readonly onError: (error: AdapterError) => void;
}

/**
 * Objects as files, spread over 256 directories by hash. Nothing about them is kept in memory, so
 * that any number of processes and hosts can share the directory: the file system is the index.
 */
export class FileStore implements L2Adapter {
  /** Files outlive the process and are seen by others. */
  readonly capabilities = { shared: true, durable: true } as const;
  readonly #options: FileStoreOptions;
  /** Names this writer's temporary files: no two writers use one. */
  readonly #writerTag = `${Deno.pid}-${systemRandom.bytes(8).toHex()}`;
  #temporaryFiles = 0;

  private constructor(options: FileStoreOptions) {
    this.#options = options;
  }

  /**
   * Opens a directory, creating it where that is possible.
   *
   * @throws {ConfigError} If `basePath` exists and is not a directory.
   */
  static async open(options: FileStoreOptions): Promise<FileStore> {
    const store = new FileStore(options);
    const { basePath, onError } = options;
    try {
      await makeDirectory(basePath);
    } catch (cause) {
      // A disk may come back and permissions may be granted later; a file in the way is a mistake.
      const isFile = await Deno.stat(basePath).then(({ isDirectory }) => !isDirectory, () => false);
      if (isFile) {
        throw new ConfigError({
          adapter: "fs adapter",
          key: "base_path",
          expected: "a directory, or a path where one can be made",
          received: basePath,
          cause,
        });
      }
      onError(new AdapterError({ adapter: "fs", operation: "open", cause }));
    }
    return store;
  }

  /** Publishes each object under its name, whole or not at all; replaces what is there. */
  async store(
    objects: readonly AdapterObject[],
    { signal }: CallOptions,
  ): Promise<StoreResult> {
    let bytes = 0;
    const stored = await this.#forEach("store", objects, async (object) => {
      signal.throwIfAborted();
      await this.#publish(object);
      bytes += object.byteLength;
      return true;
    }, ({ key }) => key);
    return { stored, bytes };
  }

  /** Asks the file system for each object; a chain is asked for piece by piece, up to a gap. */
  async lookupAndLock(
    keys: readonly ObjectKey[],
    { prefix, signal }: LookupOptions,
  ): Promise<Bitmap> {
    const found = new Bitmap(keys.length);
    const window = prefix ? LOOKUP_WINDOW : keys.length;
    for (let start = 0; start < keys.length && !signal.aborted; start += window) {
      const part = keys.slice(start, start + window);
      const present = await this.#forEach("lookup", part, async (key) => {
        const { isFile } = await Deno.lstat(this.#pathOf(key));
        return isFile;
      }, (key) => key);
      for (const index of present.indices()) found.set(start + index);
      if (prefix && present.countLeadingOnes() < part.length) break;
    }
    return found;
  }

  /** Reads each object into its parts; a file of another length is a miss. */
  load(objects: readonly AdapterObject[], { signal }: CallOptions): Promise<Bitmap> {
    return this.#forEach("load", objects, async ({ key, parts, byteLength }) => {
      signal.throwIfAborted();
      const path = this.#pathOf(key);
      // Opening a FIFO would wait for its writer, and a link may lead out of the directory.
      const { isFile, size } = await Deno.lstat(path);
      return isFile && size === byteLength && await readFile(path, parts);
    }, ({ key }) => key);
  }

  /** Removes the files of objects; what stands in the place of one and is no file is not ours. */
  async delete(keys: readonly ObjectKey[], { signal }: CallOptions): Promise<DeleteResult> {
    let bytes = 0;
    const deleted = await this.#forEach("delete", keys, async (key) => {
      signal.throwIfAborted();
      const path = this.#pathOf(key);
      const { isFile, size } = await Deno.lstat(path);
      if (!isFile) return false;
      await Deno.remove(path);
      bytes += size;
      return true;
    }, (key) => key);
    return { deleted, bytes };
  }

  /** Enumerates the objects whose names spell their keys. */
  async *list({ model, signal }: ListOptions): AsyncIterable<ListedObject> {
    for await (const { key, size } of this.#files()) {
      if (signal.aborted) return;
      if (key !== null && (model === undefined || key.model === model)) {
        yield { key, byteLength: size };
      }
    }
  }

  /** Counts files and their bytes by walking the directory. */
  async usage({ signal }: CallOptions): Promise<AdapterUsage> {
    let usedBytes = 0;
    let objectCount = 0;
    for await (const { size } of this.#files()) {
      signal.throwIfAborted();
      usedBytes += size;
      objectCount++;
    }
    return { usedBytes, objectCount };
  }

  /** The configuration in use. */
  reportStatus(): Record<string, unknown> {
    const { basePath, tmpPath, durability } = this.#options;
    return { basePath, tmpPath, durability };
  }

  /** Nothing is held open between calls. */
  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }

  async #publish(object: AdapterObject): Promise<void> {
    const { basePath, tmpPath, durability } = this.#options;
    const finalPath = this.#pathOf(object.key);
    const name = `${this.#writerTag}-${(this.#temporaryFiles++).toString(36)}.tmp`;
    const publish = (): Promise<void> =>
      publishFile({ parts: object.parts, tmpPath: join(tmpPath, name), finalPath, durability });
    try {
      await publish();
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      // The first object of a directory, or somebody removed it while we run.
      await makeDirectory(tmpPath);
      await makeDirectory(dirname(finalPath));
      if (durability === "full") await syncDirectory(basePath);
      await publish();
    }
  }

  #pathOf(key: ObjectKey): string {
    return join(this.#options.basePath, key.chunkHashHex.slice(0, 2), encodeFileName(key));
  }

  /** The files of objects; `key` is `null` where the name does not spell it. */
  async *#files(): AsyncGenerator<{ key: ObjectKey | null; size: number }> {
    const { basePath } = this.#options;
    for await (const directory of entriesOf(basePath)) {
      if (!directory.isDirectory || !/^[0-9a-f]{2}$/.test(directory.name)) continue;
      for await (const { name } of entriesOf(join(basePath, directory.name))) {
        const path = join(basePath, directory.name, name);
        const key = decodeFileName(name);
        const isOurs = key === null ? isHashedFileName(name) : path === this.#pathOf(key);
        // Another process may have removed it meanwhile.
        const info = isOurs ? await Deno.lstat(path).catch(() => null) : null;
        if (info?.isFile) yield { key, size: info.size };
      }
    }
  }

  /** Runs an operation on each item, few at a time; what fails is reported and costs its bit. */
  async #forEach<Item>(
    operation: string,
    items: readonly Item[],
    run: (item: Item) => Promise<boolean>,
    keyOf: (item: Item) => ObjectKey,
  ): Promise<Bitmap> {
    const bits = new Bitmap(items.length);
    const runs = pooledMap(CONCURRENCY, items.entries(), async ([index, item]) => {
      try {
        if (await run(item)) bits.set(index);
      } catch (cause) {
        const isAbsent = cause instanceof Deno.errors.NotFound && operation !== "store";
        const isAbort = cause instanceof DOMException;
        if (isAbsent || isAbort) return;
        this.#options.onError(
          new AdapterError({ adapter: "fs", operation, key: keyOf(item), cause }),
        );
      }
    });
    for await (const _ of runs);
    return bits;
  }
}

async function readFile(path: string, parts: readonly Uint8Array[]): Promise<boolean> {
  using file = await Deno.open(path, { read: true });
  for (const part of parts) {
    for (let done = 0; done < part.byteLength;) {
      const read = await file.read(part.subarray(done));
      if (read === null) return false;
      done += read;
    }
  }
  return true;
}

/** The entries of a directory: none if it does not exist, or does not any more. */
async function* entriesOf(path: string): AsyncGenerator<Deno.DirEntry> {
  try {
    yield* Deno.readDir(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

async function makeDirectory(path: string): Promise<void> {
  await Deno.mkdir(path, { recursive: true, mode: DIRECTORY_MODE });
}
