import { join } from "@std/path";
import { Limiter } from "../../src/base/limiter.ts";
import {
  type AdapterObject,
  type AdapterUsage,
  Bitmap,
  type CallOptions,
  type DeleteResult,
  isHashedFileName,
  type L2Adapter,
  type ListedObject,
  type ListOptions,
  type LoadOptions,
  type LookupOptions,
  type ObjectKey,
  type StoreResult,
  type SweepResult,
  systemRandom,
} from "../../src/adapter/contract.ts";
import { isDirectRefused } from "../_shared/direct_access.ts";
import { findChainEnd } from "../_shared/chain_search.ts";
import { DirectSwitch } from "../_shared/direct_switch.ts";
import { reportTo } from "../_shared/report.ts";
import { DirectFiles, type DirectFileSystem } from "./direct_files.ts";
import { DiskSpace } from "./disk_space.ts";
import { Housekeeping } from "./housekeeping.ts";
import { ObjectDirectories } from "./object_directories.ts";
import { FileListing } from "./file_listing.ts";
import type { FileStoreOptions, StoreContext } from "./store_context.ts";
import { isNoObject } from "../_shared/errno.ts";
import { diskBytesFor, freedBytesOf, sizeOf } from "../_shared/file_info.ts";
import type { FileSystem } from "./file_system.ts";
import { limitedFiles } from "./limited_files.ts";
import { type CallPurpose, OsCalls } from "../_shared/os_calls.ts";
import { untilAborted } from "../../src/base/abort.ts";
import { abortAfter } from "../../src/base/clock.ts";
import { RecentKeys } from "../_shared/recent_keys.ts";
import { LockedObjects } from "./locked_objects.ts";
import { ObjectWriter } from "./object_writer.ts";
import {
  bytesOf,
  NO_TRAILING_BYTES,
  type SizeMismatchOptions,
  type TrailingBytesOf,
} from "./load_options.ts";
import { type Reading, readObject } from "../../src/base/io/read_object.ts";
import { runLater } from "../../src/base/io/steps.ts";
import { TemporaryFiles } from "./temporary_files.ts";
import { UsageLedger } from "./usage_ledger.ts";
import { UseTimes } from "./use_times.ts";

/** Max keys remembered as missing from the middle of a chain. */
const MAX_SUSPECTS = 4096;
/** Max bytes that may follow an object in its file; a larger file is not read. */
const MAX_TRAILING_BYTES = 65_536;
/** Max time that closing waits for hanging calls, in milliseconds. */
const CLOSE_MS = 5_000;

/**
 * Objects as files. The file system is the index; everything in memory is only a cache, so that any
 * number of processes and hosts can share the directory.
 */
export class FileStore implements L2Adapter {
  /** Files are durable and shared. */
  readonly capabilities: L2Adapter["capabilities"];
  readonly #context: StoreContext;
  readonly #directories: ObjectDirectories;
  readonly #writer: ObjectWriter;
  readonly #listing: FileListing;
  readonly #housekeeping: Housekeeping;
  /** Limits loads and removals; stores have a separate limiter, because they may wait for space. */
  readonly #limiter: Limiter;
  readonly #storeLimiter: Limiter;
  /** Lookups are limited separately: each is cheap, and a chain may need many at once. */
  readonly #lookupLimiter: Limiter;
  /** This adapter's share of Deno's threads. */
  readonly #calls = new OsCalls();
  readonly #direct: DirectSwitch<DirectFileSystem>;
  readonly #temporary: TemporaryFiles;
  readonly #space: DiskSpace;
  readonly #useTimes: UseTimes;
  readonly #locks: LockedObjects;
  /** Keys that a chain search may claim although they are missing. */
  readonly #suspects = new RecentKeys(MAX_SUSPECTS);
  readonly #closing = new AbortController();
  #sweeping: Promise<SweepResult> | undefined;

  private constructor(options: FileStoreOptions) {
    const { paths, sharedPath, tmpPath, clock, bounds, isUnsealed, onEvicted } = options;
    const report = reportTo("fs", options.onError);
    const { signal } = this.#closing;
    const files = limitedFiles(options.files, this.#calls, "housekeeping");
    const mode = options.isGroupShared ? 0o660 : 0o600;
    const context: StoreContext = this.#context = {
      ...options,
      background: files,
      limited: (purpose, signal) => this.#limited(purpose, signal),
      fileMode: mode,
      signal,
      report,
    };
    this.#direct = new DirectSwitch((error) => report("open", error));
    this.#listing = new FileListing(context);
    this.#housekeeping = new Housekeeping(context);
    this.#directories = new ObjectDirectories(context, async () => {
      await this.#temporary.announce();
      await this.#space.prepare();
    });
    this.#locks = new LockedObjects(paths);
    const limits = { operations: options.ioConcurrency, bytes: options.maxBytesInFlight };
    this.#limiter = new Limiter(limits);
    this.#storeLimiter = new Limiter(limits);
    this.#lookupLimiter = new Limiter({ operations: options.ioConcurrency });
    this.#temporary = new TemporaryFiles({
      files,
      path: sharedPath,
      mode,
      places: () => this.#directories.temporaryPlaces(),
      isForeign: (name, place) =>
        paths.isForeignTemporary(name, place === sharedPath || place === tmpPath),
      clock,
    });
    this.#useTimes = new UseTimes({ files, paths, turnover: () => this.#space.turnover(), clock });
    const path = join(sharedPath, "usage.ledger");
    this.#space = new DiskSpace({
      ...bounds,
      files,
      paths,
      ledger: new UsageLedger({ files, path, mode, clock, random: systemRandom }),
      evictionLock: { path: join(sharedPath, "eviction.lock"), mode },
      tag: this.#temporary.tag,
      writers: () => this.#temporary.writers(),
      isAlive: (tag) => this.#temporary.isAlive(tag),
      abandonedBytes: (dead, signal) => this.#temporary.abandonedBytes(dead, signal),
      clock,
      isLocked: (path) => this.#locks.hasFile(path),
      flushUseTimes: () => this.#useTimes.flush(),
      signal,
      onError: (cause) => report("evict", cause),
      ...(onEvicted && {
        evicted: { keyAt: (path, size) => this.#listing.keyAt(path, size), onEvicted },
      }),
    });
    this.#writer = new ObjectWriter({
      ...context,
      directories: this.#directories,
      direct: this.#direct,
      temporary: this.#temporary,
      space: this.#space,
      useTimes: this.#useTimes,
    });
    this.capabilities = {
      shared: true,
      durable: true,
      evicts: this.#space.isBounded,
      ...(isUnsealed ? { unsealed: true } : { acceptsShortObjects: true }),
    };
  }

  /**
   * Opens a directory; creates it if possible. Its objects can be loaded at once; counting and
   * cleanup run in the background.
   *
   * @throws {ConfigError} If the path is no directory, belongs to another user, is writable by
   * others, or may not be used by this process.
   */
  static async open(options: FileStoreOptions): Promise<FileStore> {
    const store = new FileStore(options);
    const directories = store.#directories;
    await directories.open();
    const folds = await directories.foldsNames((name) => `${store.#temporary.next()}${name}`);
    if (folds) options.paths.addDigests();
    if (options.isDirect) {
      const { files, directFiles = (files) => new DirectFiles(files) } = options;
      await store.#direct.start(directFiles(files), async (direct) => {
        await directories.makeShared(store.#context.background);
        return await direct.probe(store.#temporary.next(), store.#context.fileMode);
      });
    }
    const sweep = () => store.sweep();
    const all = [sweep, () => store.#space.recover()];
    store.#housekeeping.start(options.countsOnStart ? all : [sweep], all);
    return store;
  }

  /** Stores each object under its name, completely or not at all; replaces existing files. */
  async store(
    objects: readonly AdapterObject[],
    { signal }: CallOptions,
  ): Promise<StoreResult> {
    const stored = new Bitmap(objects.length);
    let bytes = 0;
    let batchBytes = objects.reduce((sum, { byteLength }) => sum + diskBytesFor(byteLength), 0);
    const files = this.#limited("store", signal);
    await this.#storeLimiter.forEach(objects, bytesOf, async (object, index) => {
      if (signal.aborted || this.#isClosed) return;
      const diskBytes = diskBytesFor(object.byteLength);
      try {
        if (!(await this.#writer.write(object, { batchBytes, signal, files }))) return;
        this.#suspects.delete(object.key);
        stored.set(index);
        bytes += object.byteLength;
      } catch (cause) {
        if (cause === signal.reason) return;
        this.#space.failed(cause, diskBytes);
        this.#context.report("store", cause, object.key);
      } finally {
        batchBytes -= diskBytes;
      }
    }, signal);
    if (this.#space.isBounded) {
      this.#useTimes.stored(stored.gather(objects).map(({ key }) => key));
    }
    return { stored, bytes };
  }

  /**
   * Looks up each object; of a chain, only as many as it takes to find its end. Found objects are
   * not evicted until they are unlocked.
   */
  async lookupAndLock(
    keys: readonly ObjectKey[],
    { prefix, signal }: LookupOptions,
  ): Promise<Bitmap> {
    if (signal.aborted) return new Bitmap(keys.length);
    const { paths } = this.#context;
    const files = this.#limited("lookup", signal);
    const inspect = async (key: ObjectKey): Promise<boolean> => {
      const path = this.#directories.placeOf(key);
      if (path === undefined) return false;
      try {
        return (await files.lstat(path)).isFile;
      } catch (cause) {
        if (!isNoObject(cause) && cause !== signal.reason) {
          this.#context.report("lookup", cause, key);
        }
        return false;
      }
    };
    const isPresent = (key: ObjectKey): Promise<boolean> =>
      this.#suspects.has(key) || this.#directories.hasLinks
        ? inspect(key)
        : files.exists(paths.pathOf(key)).catch(() => false);
    const isPresentInTurn = async (key: ObjectKey): Promise<boolean> => {
      if (!await this.#lookupLimiter.acquire(0, signal)) return false;
      return await isPresent(key).finally(() => this.#lookupLimiter.release(0));
    };
    let found: Bitmap;
    if (prefix) {
      const end = await findChainEnd(
        keys.length,
        (place) => isPresentInTurn(keys[place] as ObjectKey),
        this.#suspects.placesIn(keys),
      );
      found = new Bitmap(keys.length, end);
    } else {
      found = new Bitmap(keys.length);
      await this.#lookupLimiter.forEach(keys, () => 0, async (key, index) => {
        if (await isPresent(key)) found.set(index);
      }, signal);
    }
    const [first] = keys;
    // An unreadable directory looks empty; one full lookup reports the error.
    if (first !== undefined && found.popcount() === 0 && !signal.aborted) await inspect(first);
    if (this.#space.isBounded) {
      if (!signal.aborted) this.#useTimes.lookedUp(keys, found);
      for (const index of found.indices()) this.#locks.lock(keys[index] as ObjectKey);
    }
    return found;
  }

  /** Records uses of objects in device memory. */
  touch(keys: readonly ObjectKey[]): void {
    if (this.#space.isBounded) this.#useTimes.used(keys);
  }

  /** Releases the locks of a lookup. */
  unlock(keys: readonly ObjectKey[]): void {
    for (const key of keys) this.#locks.unlock(key);
  }

  /** Loads each object into its parts; a file of another length is a miss. */
  load(objects: readonly AdapterObject[], options: LoadOptions): Promise<Bitmap> {
    return this.loadWithTrailing(NO_TRAILING_BYTES, objects, options);
  }

  /** Like {@linkcode load}, for files with other bytes after the object. */
  async loadWithTrailing(
    trailingBytesOf: TrailingBytesOf,
    objects: readonly AdapterObject[],
    { signal, onLoaded, allowShorter = false, onSizeMismatch }: LoadOptions & SizeMismatchOptions,
  ): Promise<Bitmap> {
    const loaded = new Bitmap(objects.length);
    const files = this.#limited("load", signal);
    const load = async ({ key, parts, byteLength }: AdapterObject, index: number) => {
      try {
        if (signal.aborted || this.#isClosed) return;
        const path = this.#directories.placeOf(key);
        if (path === undefined) return this.#suspects.add(key);
        const trailingBytes = trailingBytesOf(byteLength);
        const isRead = await this.#read(path, files, {
          parts,
          byteLength,
          trailingBytes,
          allowShorter,
          signal,
        });
        if (!isRead) {
          this.#suspects.add(key);
          if (onSizeMismatch === undefined) onLoaded?.(index, "layout");
          else onSizeMismatch(index);
          return;
        }
        loaded.set(index);
        onLoaded?.(index);
      } catch (cause) {
        if (isNoObject(cause)) this.#suspects.add(key);
        else if (cause !== signal.reason) this.#context.report("load", cause, key);
      }
    };
    await this.#limiter.forEach(objects, bytesOf, load, signal);
    return loaded;
  }

  /** Whether the name of an object's file contains a digest instead of the key. */
  isHashed(key: ObjectKey): boolean {
    return isHashedFileName(this.#context.paths.nameOf(key));
  }

  /** Sizes of the objects' files; `undefined` for a file that cannot be accessed. */
  async fileBytesOf(
    objects: readonly AdapterObject[],
    { signal }: CallOptions,
  ): Promise<readonly (number | undefined)[]> {
    const sizes = new Array<number | undefined>(objects.length);
    const files = this.#limited("load", signal);
    const inspect = async ({ key }: AdapterObject, index: number) => {
      if (signal.aborted || this.#isClosed) return;
      const info = await files.lstat(this.#context.paths.pathOf(key)).catch(() => undefined);
      sizes[index] = info?.size;
    };
    await this.#limiter.forEach(objects, () => 0, inspect, signal);
    return sizes;
  }

  /** Removes the file of a damaged object, even if it is locked. */
  async removeDamaged(key: ObjectKey): Promise<void> {
    this.#suspects.add(key);
    try {
      const path = this.#directories.placeOf(key);
      if (path === undefined) return;
      const files = this.#limited("load");
      const info = await files.lstat(path);
      if (!info.isFile) return;
      const { ledgerId } = this.#space;
      await files.remove(path);
      await this.#space.credit(freedBytesOf(info), ledgerId);
    } catch (cause) {
      if (!isNoObject(cause)) this.#context.report("delete", cause, key);
    }
  }

  /** Removes the files of objects; links and directories are left alone. */
  async delete(keys: readonly ObjectKey[], { signal }: CallOptions): Promise<DeleteResult> {
    const deleted = new Bitmap(keys.length);
    let bytes = 0;
    let diskBytes = 0;
    const files = this.#limited("load", signal);
    const { ledgerId } = this.#space;
    await this.#limiter.forEach(keys, () => 0, async (key, index) => {
      try {
        const path = this.#directories.placeOf(key);
        if (path === undefined || signal.aborted || this.#isClosed || this.#locks.has(key)) return;
        const info = await files.lstat(path);
        if (!info.isFile) return;
        await files.remove(path);
        this.#suspects.add(key);
        deleted.set(index);
        bytes += sizeOf(info);
        diskBytes += freedBytesOf(info);
      } catch (cause) {
        if (!isNoObject(cause) && cause !== signal.reason) {
          this.#context.report("delete", cause, key);
        }
      }
    }, signal);
    try {
      await this.#space.credit(diskBytes, ledgerId);
    } catch (cause) {
      if (!isNoObject(cause)) this.#context.report("delete", cause);
    }
    return { deleted, bytes };
  }

  /** Lists the objects. */
  list(options: ListOptions): AsyncIterable<ListedObject> {
    return this.#listing.list(options);
  }

  /** Counts files and their bytes by walking through the directory. */
  async usage(options: CallOptions): Promise<AdapterUsage> {
    const counted = await this.#listing.count(options);
    const { capacityBytes } = this.#space.reportStatus();
    return { ...counted, ...(capacityBytes === undefined ? {} : { capacityBytes }) };
  }

  /** Removes abandoned temporary files. */
  sweep(): Promise<SweepResult> {
    return this.#sweeping ??= this.#sweep().finally(() => this.#sweeping = undefined);
  }

  /** Settings in use, and the fill level of the directory. */
  reportStatus(): Record<string, unknown> {
    const { paths: { basePath }, durability } = this.#context;
    const { state } = this.#direct;
    return {
      basePath,
      durability,
      io: state.phase === "refused"
        ? `buffered: O_DIRECT was refused: ${state.reason}`
        : state.phase,
      space: this.#space.reportStatus(),
      reclaimedTemporaryFiles: this.#temporary.reclaimed.files,
      problems: this.#space.problems(),
    };
  }

  /**
   * Stops background work and returns the unused lease. Hanging calls are abandoned after a while.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    const { clock, report, closeFiles } = this.#context;
    using tooLate = abortAfter(clock, CLOSE_MS);
    await untilAborted(tooLate.signal, this.#close(), () => {
      const cause = new Error(
        `${this.#calls.running} file system calls hang and were abandoned`,
      );
      report("close", cause);
    });
    await this.#direct.close(tooLate.signal);
    await closeFiles?.(tooLate.signal);
  }

  async #close(): Promise<void> {
    const stopped = this.#housekeeping.close();
    await Promise.all([this.#limiter.idle(), this.#storeLimiter.idle(), stopped]);
    await this.#directories.close();
    await this.#useTimes.close();
    try {
      await this.#space.close();
    } catch (cause) {
      if (!isNoObject(cause)) this.#context.report("close", cause);
    }
    await this.#temporary.close();
  }

  /** File operations within this adapter's thread limits, with direct I/O if possible. */
  #limited(purpose: CallPurpose, signal?: AbortSignal): FileSystem {
    const { state } = this.#direct;
    const files = state.phase === "direct" ? state.io.files : this.#context.files;
    return limitedFiles(files, this.#calls, purpose, signal);
  }

  get #isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  /**
   * Loads an object from a file; resolves to whether the file has the right length, including one
   * of the `trailingBytes`. With `allowShorter`, the object may be shorter.
   */
  async #read(
    path: string,
    files: FileSystem,
    reading: Omit<Reading, "readAheadBytes"> & CallOptions & { readonly byteLength: number },
  ): Promise<boolean> {
    for (let attempt = 0;; attempt++) {
      try {
        using file = await files.open(path, reading.byteLength + MAX_TRAILING_BYTES);
        const { readAheadBytes } = this.#context;
        return await runLater(readObject(file, { ...reading, readAheadBytes }));
      } catch (error) {
        if (attempt > 0 || !this.#direct.wasTried || !isDirectRefused(error)) throw error;
        // A directory also refuses direct I/O, which says nothing about files.
        if (!(await files.lstat(path)).isFile) return false;
        this.#direct.refuse(error);
        files = this.#limited("load", reading.signal);
      }
    }
  }

  async #sweep(): Promise<SweepResult> {
    const { ledgerId } = this.#space;
    await this.#space.credit(await this.#temporary.sweep(this.#closing.signal), ledgerId);
    return this.#temporary.reclaimed;
  }
}
