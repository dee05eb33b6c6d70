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
import { HostIo } from "./host_io.ts";
import type { ObjectIo } from "./object_io.ts";
import { ObjectLoads } from "./object_loads.ts";
import { ObjectLookups } from "./object_lookups.ts";
import { ObjectWriter } from "./object_writer.ts";
import {
  bytesOf,
  NO_TRAILING_BYTES,
  type SizeMismatchOptions,
  type TrailingBytesOf,
} from "./load_options.ts";
import { ThreadIo } from "./thread_io.ts";
import { TemporaryFiles } from "./temporary_files.ts";
import { UsageLedger } from "./usage_ledger.ts";
import { UseTimes } from "./use_times.ts";

/** Max keys remembered as missing from the middle of a chain. */
const MAX_SUSPECTS = 4096;
/** Max time that closing waits for hanging calls, in milliseconds. */
const CLOSE_MS = 5_000;
/** Threads start so long after the adapter has opened, in milliseconds. */
const START_THREADS_MS = 200;

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
  readonly #hostIo: HostIo;
  readonly #threadIo: ThreadIo | undefined;
  readonly #lookups: ObjectLookups;
  readonly #loads: ObjectLoads;
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
  #cancelStart = (): void => {};

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
    this.#hostIo = new HostIo({ ...options, files: context.limited });
    const { threads } = options;
    if (threads !== undefined) {
      const background = files;
      this.#threadIo = new ThreadIo({ ...options, background, threads, host: this.#hostIo });
    }
    const parts = {
      ...context,
      io: () => this.#io,
      directories: this.#directories,
      direct: this.#direct,
      limiter: this.#limiter,
      suspects: this.#suspects,
    };
    this.#lookups = new ObjectLookups(parts);
    this.#loads = new ObjectLoads(parts);
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
    store.#startThreads();
    return store;
  }

  /** Stores each object under its name, completely or not at all; replaces existing files. */
  async store(
    objects: readonly AdapterObject[],
    { signal }: CallOptions,
  ): Promise<StoreResult> {
    const stored = new Bitmap(objects.length);
    let bytes = 0;
    let batchBytes = diskBytesOf(objects);
    const io = this.#io;
    const groups = io.takesBatches ? [objects.slice()] : objects.map((object) => [object]);
    let first = 0;
    const write = async (group: readonly AdapterObject[]): Promise<void> => {
      const start = first;
      first += group.length;
      let left = diskBytesOf(group);
      await this.#writer.write({
        objects: group,
        signal,
        batchBytes: () => batchBytes,
        onStored: (index) => {
          const { key, byteLength } = group[index] as AdapterObject;
          this.#suspects.delete(key);
          stored.set(start + index);
          bytes += byteLength;
          batchBytes -= diskBytesFor(byteLength);
          left -= diskBytesFor(byteLength);
        },
      }, io);
      batchBytes -= left;
    };
    await this.#storeLimiter.forEach(groups, bytesOf, write, signal);
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
    options: LookupOptions,
  ): Promise<Bitmap> {
    const found = await this.#lookups.find(keys, options);
    if (this.#space.isBounded) {
      if (!options.signal.aborted) this.#useTimes.lookedUp(keys, found);
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
    return this.#loads.load(objects, NO_TRAILING_BYTES, options);
  }

  /** Like {@linkcode load}, for files with other bytes after the object. */
  loadWithTrailing(
    trailingBytesOf: TrailingBytesOf,
    objects: readonly AdapterObject[],
    options: LoadOptions & SizeMismatchOptions,
  ): Promise<Bitmap> {
    return this.#loads.load(objects, trailingBytesOf, options);
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
      threads: this.#context.threads?.status ?? "off: io_workers is 0",
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
    await this.#context.threads?.close();
    await this.#direct.close(tooLate.signal);
    await closeFiles?.(tooLate.signal);
  }

  /** Starts the threads soon: each start keeps the thread that runs the engine busy for a while. */
  #startThreads(): void {
    const { threads, clock } = this.#context;
    if (threads === undefined) return;
    const start = (): void => void threads.start();
    this.#cancelStart = clock.schedule(start, START_THREADS_MS, { background: true });
  }

  async #close(): Promise<void> {
    this.#cancelStart();
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

  /** How objects are moved now. */
  get #io(): ObjectIo {
    const { threads } = this.#context;
    return this.#threadIo !== undefined && threads?.isReady ? this.#threadIo : this.#hostIo;
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

  async #sweep(): Promise<SweepResult> {
    const { ledgerId } = this.#space;
    await this.#space.credit(await this.#temporary.sweep(this.#closing.signal), ledgerId);
    return this.#temporary.reclaimed;
  }
}

function diskBytesOf(objects: readonly AdapterObject[]): number {
  return objects.reduce((sum, { byteLength }) => sum + diskBytesFor(byteLength), 0);
}
