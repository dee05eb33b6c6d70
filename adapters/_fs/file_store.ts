import { basename, dirname, join } from "@std/path";
import { Limiter } from "../../src/base/limiter.ts";
import {
  AdapterError,
  type AdapterObject,
  type AdapterUsage,
  Bitmap,
  type CallOptions,
  type Clock,
  ConfigError,
  type DeleteResult,
  isHashedFileName,
  keyInTail,
  type L2Adapter,
  type ListedObject,
  type ListOptions,
  type LoadOptions,
  type LookupOptions,
  MAX_TAIL_BYTES,
  type ObjectKey,
  type StoreResult,
  systemRandom,
} from "../../src/adapter/contract.ts";
import { foreignOwner, OWN_DIRECTORY } from "../_shared/directory_owner.ts";
import { isDirectRefused } from "../_shared/direct_access.ts";
import { findChainEnd } from "../_shared/chain_search.ts";
import { DirectFiles, type DirectFileSystem } from "./direct_files.ts";
import { entriesOf, objectDirectories, type ObjectFile, walkObjects } from "./directory_walk.ts";
import { type DiskBounds, DiskSpace } from "./disk_space.ts";
import { isNoObject, isReadOnly } from "../_shared/errno.ts";
import { diskBytesFor, freedBytesOf, sizeOf } from "../_shared/file_info.ts";
import type { FileSystem } from "./file_system.ts";
import { foldsNames } from "./name_folding.ts";
import { LimitedFiles } from "./limited_files.ts";
import { type CallPurpose, OsCalls } from "../_shared/os_calls.ts";
import { untilAborted } from "../../src/base/abort.ts";
import { abortAfter } from "../../src/base/clock.ts";
import { RecentKeys } from "../_shared/recent_keys.ts";
import { LockedObjects } from "./locked_objects.ts";
import type { ObjectPaths } from "./object_paths.ts";
import { type Durability, publishFile } from "./publish_file.ts";
import { type Reading, readObject } from "./read_object.ts";
import { TemporaryFiles } from "./temporary_files.ts";
import { UsageLedger } from "./usage_ledger.ts";
import { UseTimes } from "./use_times.ts";

/** Max keys remembered as missing from the middle of a chain. */
const MAX_SUSPECTS = 4096;
/** Max bytes that may follow an object in its file; a larger file is not read. */
const MAX_TRAILING_BYTES = 65_536;
/** Max time that closing waits for hanging calls, in milliseconds. */
const CLOSE_MS = 5_000;
/** Interval of housekeeping, in milliseconds. */
const HOUSEKEEPING_MS = 600_000;

/** Options of a {@linkcode FileStore}. */
export interface FileStoreOptions {
  readonly files: FileSystem;
  /** Closes the files; stops waiting when `signal` aborts. */
  readonly closeFiles?: (signal: AbortSignal) => Promise<void>;
  readonly paths: ObjectPaths;
  /** Directory of the locks and the ledger. */
  readonly sharedPath: string;
  /** Directory of temporary files; `undefined` if they lie next to the objects. */
  readonly tmpPath: string | undefined;
  /** What is synced before an object counts as stored. */
  readonly durability: Durability;
  /** Whether to bypass the page cache. */
  readonly isDirect: boolean;
  /** Creates the files for direct I/O. @default {DirectFiles} */
  readonly directFiles?: (files: FileSystem) => DirectFileSystem;
  /** Whether the members of a group share the directory. */
  readonly isGroupShared: boolean;
  /** Whether the directory may belong to another user. */
  readonly allowsForeignOwner: boolean;
  /** Max file operations at a time. */
  readonly ioConcurrency: number;
  /** Max bytes that they move at a time. */
  readonly maxBytesInFlight: number;
  /**
   * Size of the first read of an object, which triggers the system's read-ahead; 0 reads all at
   * once.
   */
  readonly readAheadBytes: number;
  /** Whether to count the directory at start. */
  readonly countsOnStart: boolean;
  /** Limits of the directory. */
  readonly bounds: DiskBounds;
  /** Whether objects have no trailer, so that other programs can read them. */
  readonly isUnsealed: boolean;
  readonly clock: Clock;
  /** Called with each failure that affects a key. */
  readonly onError: (error: AdapterError) => void;
  /** Called with the keys of evicted objects. */
  readonly onEvicted?: ((keys: readonly ObjectKey[]) => void) | undefined;
}

/** The possible numbers of bytes that follow an object of `byteLength` bytes in its file. */
export type TrailingBytesOf = (byteLength: number) => readonly number[];

/** Options of loads from files that other programs write too. */
export interface SizeMismatchOptions {
  /** Called with the index of an object whose file has another length. */
  readonly onSizeMismatch?: (index: number) => void;
}

/**
 * Objects as files. The file system is the index; everything in memory is only a cache, so that any
 * number of processes and hosts can share the directory.
 */
export class FileStore implements L2Adapter {
  /** Files are durable and shared. */
  readonly capabilities: L2Adapter["capabilities"];
  readonly #options: FileStoreOptions;
  /** Limits loads and removals; stores have a separate limiter, because they may wait for space. */
  readonly #limiter: Limiter;
  readonly #storeLimiter: Limiter;
  /** Lookups are limited separately: each is cheap, and a chain may need many at once. */
  readonly #lookupLimiter: Limiter;
  /** This adapter's share of Deno's threads. */
  readonly #calls = new OsCalls();
  /** File operations for background work. */
  readonly #backgroundFiles: FileSystem;
  readonly #temporary: TemporaryFiles;
  readonly #space: DiskSpace;
  readonly #useTimes: UseTimes;
  readonly #locks: LockedObjects;
  /** Keys that a chain search may claim although they are missing. */
  readonly #suspects = new RecentKeys(MAX_SUSPECTS);
  /** Directories that existed recently. */
  readonly #knownDirectories = new Set<string>();
  /** Links in place of shard directories; they are not followed. */
  readonly #linkedShards = new Set<string>();
  readonly #closing = new AbortController();
  /** Read permissions of an LMCache directory, which new entries get too. */
  #readerMode = 0;
  #files: FileSystem;
  #direct: DirectFileSystem | undefined;
  #directRefusal: string | undefined;
  #makingShards: Promise<void> | undefined;
  #housekeeping: Promise<void> = Promise.resolve();
  #cancelHousekeeping = (): void => {};

  private constructor(options: FileStoreOptions) {
    this.#options = options;
    const { paths, sharedPath, clock, bounds, isUnsealed, onEvicted } = options;
    this.#files = options.files;
    this.#locks = new LockedObjects(paths);
    const files = this.#backgroundFiles = new LimitedFiles(
      options.files,
      this.#calls,
      "housekeeping",
    );
    const limits = { operations: options.ioConcurrency, bytes: options.maxBytesInFlight };
    this.#limiter = new Limiter(limits);
    this.#storeLimiter = new Limiter(limits);
    this.#lookupLimiter = new Limiter({ operations: options.ioConcurrency });
    const mode = this.#fileMode;
    const places = (): AsyncIterable<string> => this.#temporaryPlaces();
    const isForeign = (name: string, place: string): boolean =>
      paths.isForeignTemporary(name, place === sharedPath || place === options.tmpPath);
    this.#temporary = new TemporaryFiles({
      files,
      path: sharedPath,
      mode,
      places,
      isForeign,
      clock,
    });
    this.#useTimes = new UseTimes({
      files,
      paths,
      turnover: () => this.#space.turnover(),
      clock,
    });
    this.#space = new DiskSpace({
      ...bounds,
      files,
      paths,
      ledger: new UsageLedger({
        files,
        path: join(sharedPath, "usage.ledger"),
        mode,
        clock,
        random: systemRandom,
      }),
      evictionLock: { path: join(sharedPath, "eviction.lock"), mode },
      tag: this.#temporary.tag,
      writers: () => this.#temporary.writers(),
      isAlive: (tag) => this.#temporary.isAlive(tag),
      abandonedBytes: (dead, signal) => this.#temporary.abandonedBytes(dead, signal),
      clock,
      isLocked: (path) => this.#locks.hasFile(path),
      flushUseTimes: () => this.#useTimes.flush(),
      signal: this.#closing.signal,
      onError: (cause) => this.#report("evict", cause),
      ...(onEvicted && { evicted: { keyAt: (path, size) => this.#keyAt(path, size), onEvicted } }),
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
    const { paths: { basePath }, isGroupShared, allowsForeignOwner } = options;
    const store = new FileStore(options);
    const files = store.#backgroundFiles;
    try {
      await files.mkdir(basePath, store.#directoryMode);
    } catch (cause) {
      // A disk may be mounted and permissions granted later; a file in the way is a mistake.
      const existing = await files.lstat(basePath).catch((error: unknown) => {
        if (!(error instanceof Deno.errors.NotCapable)) return undefined;
        const use = "a path that this process may use: below /dev, /proc and /sys only --allow-all";
        throw wrongBasePath(`${use} lets it`, basePath);
      });
      if (existing?.isDirectory === false) {
        throw wrongBasePath("a directory, or a path where one can be created", basePath);
      }
      store.#report("open", cause);
    }
    const info = await files.lstat(basePath).catch(() => undefined);
    if (!isGroupShared && ((info?.mode ?? 0) & 0o022) !== 0) {
      throw wrongBasePath(
        "a directory that no other user can write to (chmod go-w), or allow_shared_group: true",
        `${basePath} with mode ${((info?.mode ?? 0) & 0o7777).toString(8).padStart(4, "0")}`,
      );
    }
    // In a shared group directory, most members are not the owner.
    if (info !== undefined && !allowsForeignOwner && !isGroupShared) {
      const received = await foreignOwner(basePath, info.uid);
      if (received !== undefined) throw wrongBasePath(OWN_DIRECTORY, received);
    }
    if (options.isUnsealed) store.#readerMode = (info?.mode ?? 0) & 0o055;
    await store.#findLinkedShards();
    if (await store.#foldsNames()) options.paths.addDigests();
    if (options.isDirect) await store.#startDirect();
    store.#startHousekeeping(options.countsOnStart);
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
    await this.#storeLimiter.forEach(objects, bytesOf, async (object, index) => {
      if (signal.aborted || this.#isClosed) return;
      const diskBytes = diskBytesFor(object.byteLength);
      try {
        if (!(await this.#storeOne(object, batchBytes, signal))) return;
        stored.set(index);
        bytes += object.byteLength;
      } catch (cause) {
        if (cause === signal.reason) return;
        this.#space.failed(cause, diskBytes);
        this.#report("store", cause, object.key);
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
    const { paths } = this.#options;
    const files = this.#limited("lookup", signal);
    const inspect = async (key: ObjectKey): Promise<boolean> => {
      const path = this.#placeOf(key);
      if (path === undefined) return false;
      try {
        return (await files.lstat(path)).isFile;
      } catch (cause) {
        if (!isNoObject(cause) && cause !== signal.reason) this.#report("lookup", cause, key);
        return false;
      }
    };
    const isPresent = (key: ObjectKey): Promise<boolean> =>
      this.#suspects.has(key) || this.#linkedShards.size > 0
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
    return this.loadWithTrailing(noTrailingBytes, objects, options);
  }

  /** Like {@linkcode load}, for files with other bytes after the object. */
  async loadWithTrailing(
    trailingBytesOf: TrailingBytesOf,
    objects: readonly AdapterObject[],
    { signal, onLoaded, allowShorter = false, onSizeMismatch }: LoadOptions & SizeMismatchOptions,
  ): Promise<Bitmap> {
    const loaded = new Bitmap(objects.length);
    const load = async ({ key, parts, byteLength }: AdapterObject, index: number) => {
      try {
        if (signal.aborted || this.#isClosed) return;
        const path = this.#placeOf(key);
        if (path === undefined) return this.#suspects.add(key);
        const trailingBytes = trailingBytesOf(byteLength);
        const isRead = await this.#read(path, {
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
        else if (cause !== signal.reason) this.#report("load", cause, key);
      }
    };
    await this.#limiter.forEach(objects, bytesOf, load, signal);
    return loaded;
  }

  /** Whether the name of an object's file contains a digest instead of the key. */
  isHashed(key: ObjectKey): boolean {
    return isHashedFileName(this.#options.paths.nameOf(key));
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
      const info = await files.lstat(this.#options.paths.pathOf(key)).catch(() => undefined);
      sizes[index] = info?.size;
    };
    await this.#limiter.forEach(objects, () => 0, inspect, signal);
    return sizes;
  }

  /** Removes the file of a damaged object, even if it is locked. */
  async removeDamaged(key: ObjectKey): Promise<void> {
    this.#suspects.add(key);
    try {
      const path = this.#placeOf(key);
      if (path === undefined) return;
      const files = this.#limited("load");
      const info = await files.lstat(path);
      if (!info.isFile) return;
      const { ledgerId } = this.#space;
      await files.remove(path);
      await this.#space.credit(freedBytesOf(info), ledgerId);
    } catch (cause) {
      if (!isNoObject(cause)) this.#report("delete", cause, key);
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
        const path = this.#placeOf(key);
        if (path === undefined || signal.aborted || this.#isClosed || this.#locks.has(key)) return;
        const info = await files.lstat(path);
        if (!info.isFile) return;
        await files.remove(path);
        this.#suspects.add(key);
        deleted.set(index);
        bytes += sizeOf(info);
        diskBytes += freedBytesOf(info);
      } catch (cause) {
        if (!isNoObject(cause) && cause !== signal.reason) this.#report("delete", cause, key);
      }
    }, signal);
    try {
      await this.#space.credit(diskBytes, ledgerId);
    } catch (cause) {
      if (!isNoObject(cause)) this.#report("delete", cause);
    }
    return { deleted, bytes };
  }

  /** Lists the objects. */
  async *list({ model, signal, onKeyless }: ListOptions): AsyncIterable<ListedObject> {
    const files = this.#limited("housekeeping", signal);
    for await (const batch of walkObjects(files, this.#options.paths, signal)) {
      for (const file of batch) {
        const key = await this.#keyOf(file);
        if (signal.aborted) return;
        // An earlier version wrote nothing behind objects of LMCache's layout.
        if (onKeyless && key === null && file.object === "key-in-file") {
          if (await files.exists(file.path)) onKeyless();
        }
        if (key !== null && (model === undefined || key.model === model)) {
          const { size: byteLength, usedAt } = file;
          yield { key, byteLength, ...(usedAt === 0 ? {} : { usedAt }) };
        }
      }
    }
  }

  /** Counts files and their bytes by walking through the directory. */
  async usage({ signal }: CallOptions): Promise<AdapterUsage> {
    let usedBytes = 0;
    let objectCount = 0;
    const files = this.#limited("housekeeping", signal);
    for await (const batch of walkObjects(files, this.#options.paths, signal)) {
      for (const { size } of batch) usedBytes += size;
      objectCount += batch.length;
    }
    signal.throwIfAborted();
    const { capacityBytes } = this.#space.reportStatus();
    return { usedBytes, objectCount, ...(capacityBytes === undefined ? {} : { capacityBytes }) };
  }

  /** Settings in use, and the fill level of the directory. */
  reportStatus(): Record<string, unknown> {
    const { paths: { basePath }, durability, isDirect } = this.#options;
    return {
      basePath,
      durability,
      io: !isDirect
        ? "buffered"
        : this.#directRefusal === undefined
        ? "direct"
        : `buffered: O_DIRECT was refused: ${this.#directRefusal}`,
      space: this.#space.reportStatus(),
      reclaimedTemporaryFiles: this.#temporary.reclaimed,
      problems: this.#space.problems(),
    };
  }

  /**
   * Stops background work and returns the unused lease. Hanging calls are abandoned after a while.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    this.#cancelHousekeeping();
    using tooLate = abortAfter(this.#options.clock, CLOSE_MS);
    await untilAborted(tooLate.signal, this.#close(), () => {
      const count = this.#calls.running;
      const cause = new Error(`${count} file system calls hang and were abandoned`);
      this.#report("close", cause);
    });
    await this.#direct?.close(tooLate.signal);
    await this.#options.closeFiles?.(tooLate.signal);
  }

  async #close(): Promise<void> {
    await Promise.all([this.#limiter.idle(), this.#storeLimiter.idle()]);
    await this.#housekeeping;
    await this.#makingShards;
    await this.#useTimes.close();
    try {
      await this.#space.close();
    } catch (cause) {
      if (!isNoObject(cause)) this.#report("close", cause);
    }
    await this.#temporary.close();
  }

  /** File operations within this adapter's thread limits, with direct I/O if possible. */
  #limited(purpose: CallPurpose, signal?: AbortSignal): FileSystem {
    return new LimitedFiles(this.#files, this.#calls, purpose, signal);
  }

  get #isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  get #directoryMode(): number {
    return this.#options.isGroupShared ? 0o2770 : 0o700;
  }

  get #fileMode(): number {
    return this.#options.isGroupShared ? 0o660 : 0o600;
  }

  /** File mode of objects. */
  get #objectMode(): number {
    return this.#fileMode | (this.#readerMode & 0o044);
  }

  /** Stores an object; resolves to whether there was space. */
  async #storeOne(
    object: AdapterObject,
    batchBytes: number,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { paths, sharedPath, tmpPath, durability } = this.#options;
    const directory = paths.directoryOf(object.key);
    const finalPath = `${directory}/${paths.nameOf(object.key)}`;
    const diskBytes = diskBytesFor(object.byteLength);
    for (let attempt = 0;; attempt++) {
      const files = this.#limited("store", signal);
      try {
        if (!this.#knownDirectories.has(sharedPath)) await this.#makeTemporary(files);
        if (!this.#knownDirectories.has(directory)) {
          await this.#makeShard(directory, files);
          this.#makingShards ??= this.#makeShards();
        }
        if (!this.#space.tryReserve(diskBytes)) {
          if (!(await this.#space.reserve(diskBytes, batchBytes, signal))) return false;
        }
        const ownPath = this.#temporary.next(tmpPath ?? directory);
        const mode = this.#objectMode;
        const { parts } = object;
        let isPublished = false;
        const onPublished = (): void => void (isPublished = true);
        const target = { tmpPath: ownPath, finalPath, mode, durability };
        try {
          await publishFile({ files, parts, ...target, onPublished });
        } catch (error) {
          // A published file takes its space even if the store counts as failed.
          if (!isPublished) this.#space.release(diskBytes);
          throw error;
        } finally {
          this.#space.settled(diskBytes);
        }
        if (!this.#useTimes.wasMissing(object.key)) this.#space.noteReplaced(diskBytes);
        this.#space.succeeded();
        this.#suspects.delete(object.key);
        return true;
      } catch (error) {
        if (attempt > 0) throw error;
        if (error instanceof Deno.errors.NotFound) this.#knownDirectories.clear();
        else if (this.#direct !== undefined && isDirectRefused(error)) this.#stopDirect(error);
        else throw error;
      }
    }
  }

  /**
   * Loads an object from a file; resolves to whether the file has the right length, including one
   * of the `trailingBytes`. With `allowShorter`, the object may be shorter.
   */
  async #read(
    path: string,
    reading: Omit<Reading, "readAheadBytes"> & CallOptions & { readonly byteLength: number },
  ): Promise<boolean> {
    for (let attempt = 0;; attempt++) {
      try {
        const files = this.#limited("load", reading.signal);
        using file = await files.open(path, reading.byteLength + MAX_TRAILING_BYTES);
        return await readObject(file, { ...reading, readAheadBytes: this.#options.readAheadBytes });
      } catch (error) {
        if (attempt > 0 || this.#direct === undefined || !isDirectRefused(error)) throw error;
        // A directory also refuses direct I/O, which says nothing about files.
        if (!(await this.#limited("load", reading.signal).lstat(path)).isFile) return false;
        this.#stopDirect(error);
      }
    }
  }

  async #keyOf(
    { path, size, object }: Pick<ObjectFile, "path" | "size" | "object">,
  ): Promise<ObjectKey | null> {
    if (object === "no-key") return null;
    if (object !== "key-in-file") return object.key;
    const end = new Uint8Array(Math.min(size, MAX_TAIL_BYTES));
    try {
      using file = await this.#backgroundFiles.open(path, size);
      if (await file.read(end, size - end.byteLength) < end.byteLength) return null;
    } catch (cause) {
      if (!isNoObject(cause)) this.#report("list", cause);
      return null;
    }
    const key = keyInTail(end, size);
    return key !== null && this.#options.paths.pathOf(key) === path ? key : null;
  }

  /** The key of a file that is about to be evicted, if it has one. */
  async #keyAt(path: string, size: number): Promise<ObjectKey | null> {
    const object = this.#options.paths.objectNamed(dirname(path), basename(path));
    return object === null ? null : await this.#keyOf({ path, size, object });
  }

  /** Directories that may contain temporary files, whatever their writers' configuration. */
  async *#temporaryPlaces(): AsyncGenerator<string, void> {
    const { paths, sharedPath, tmpPath } = this.#options;
    yield sharedPath;
    if (tmpPath !== undefined && tmpPath !== sharedPath) yield tmpPath;
    yield* objectDirectories(this.#backgroundFiles, paths);
  }

  async #makeTemporary(files: FileSystem): Promise<void> {
    const { sharedPath, tmpPath } = this.#options;
    await this.#makeDirectory(sharedPath, this.#directoryMode, files);
    if (tmpPath !== undefined) await this.#makeDirectory(tmpPath, this.#directoryMode, files);
    await this.#temporary.announce();
    await this.#space.prepare();
    this.#knownDirectories.add(sharedPath);
  }

  async #makeShard(path: string, files: FileSystem): Promise<void> {
    const { durability } = this.#options;
    const made = await this.#makeDirectory(path, this.#directoryMode | this.#readerMode, files);
    if (durability === "full") {
      for (const step of made) await files.syncDirectory(dirname(step));
    }
    this.#knownDirectories.add(path);
    this.#linkedShards.delete(path.slice(0, this.#options.paths.basePath.length + 3));
  }

  /** Creates all shard directories, so that later stores do not wait for them. */
  async #makeShards(): Promise<void> {
    for (const path of this.#options.paths.shards()) {
      if (this.#isClosed) return;
      try {
        if (!this.#knownDirectories.has(path)) await this.#makeShard(path, this.#backgroundFiles);
      } catch {
        // The store that needs the directory reports the error.
        return;
      }
    }
  }

  /** Creates a directory below the base directory; returns the directories on that path. */
  async #makeDirectory(
    path: string,
    mode: number,
    files: FileSystem,
  ): Promise<readonly string[]> {
    const { paths: { basePath }, isGroupShared } = this.#options;
    const steps: string[] = [];
    for (let at = path; at.length > basePath.length; at = dirname(at)) steps.unshift(at);
    for (const step of steps) {
      await files.mkdir(step, mode);
      const info = await files.lstat(step);
      // A link could point anywhere.
      if (!info.isDirectory) {
        throw new Deno.errors.NotADirectory(`${step} is a link, or no directory`);
      }
      // The umask of the process may have removed group permissions.
      if (isGroupShared) await files.chmod(step, mode).catch(() => {});
      // The directory may have been shared before.
      else if (((info.mode ?? 0) & 0o022) !== 0) await files.chmod(step, mode);
    }
    return steps;
  }

  /** Finds links in place of first-level shard directories. */
  async #findLinkedShards(): Promise<void> {
    const { paths } = this.#options;
    if (paths.levels === 0) return;
    try {
      for await (const { name, isSymlink } of entriesOf(this.#backgroundFiles, paths.basePath)) {
        if (!isSymlink || !paths.isShard(0, name)) continue;
        const path = `${paths.basePath}/${name}`;
        this.#linkedShards.add(path);
        this.#report("open", new Error(`${path} is a link, which is not followed: remove it`));
      }
    } catch (cause) {
      this.#report("open", cause);
    }
  }

  /** Path of an object; `undefined` if its shard directory is a link. */
  #placeOf(key: ObjectKey): string | undefined {
    const { paths } = this.#options;
    const path = paths.pathOf(key);
    // The base directory is followed by a separator and two digits.
    const isLinked = this.#linkedShards.size > 0 &&
      this.#linkedShards.has(path.slice(0, paths.basePath.length + 3));
    return isLinked ? undefined : path;
  }

  /** Whether the file system treats names as equal that differ in case or in Unicode form. */
  async #foldsNames(): Promise<boolean> {
    const { sharedPath } = this.#options;
    const files = this.#backgroundFiles;
    // In a read-only directory, an existing name is used for the test.
    const shared = await files.lstat(sharedPath).catch(() => undefined);
    const other = await files.lstat(join(dirname(sharedPath), basename(sharedPath).toUpperCase()))
      .catch(() => undefined);
    if (shared !== undefined && shared.ino === other?.ino && shared.dev === other.dev) return true;
    try {
      await this.#makeDirectory(sharedPath, this.#directoryMode, files);
      return await foldsNames(files, (name) => `${this.#temporary.next()}${name}`, this.#fileMode);
    } catch {
      // Stores that fail for the same reason report it.
      return false;
    }
  }

  async #startDirect(): Promise<void> {
    const { files, directFiles = (files) => new DirectFiles(files) } = this.#options;
    const direct = directFiles(files);
    let refusal: unknown;
    try {
      await this.#makeTemporary(this.#backgroundFiles);
      refusal = await direct.probe(this.#temporary.next(), this.#fileMode);
    } catch (error) {
      refusal = error;
    }
    this.#direct = direct;
    this.#files = direct.files;
    if (refusal !== undefined) this.#stopDirect(refusal);
  }

  /** Switches to the page cache. */
  #stopDirect(refusal: unknown): void {
    if (this.#files === this.#options.files) return;
    this.#files = this.#options.files;
    this.#directRefusal = refusal instanceof Error ? refusal.message : String(refusal);
    const message = `O_DIRECT is refused, so the page cache is used: ${this.#directRefusal}`;
    this.#report("open", new Error(message));
  }

  #startHousekeeping(counts: boolean): void {
    const { clock } = this.#options;
    const { signal } = this.#closing;
    const steps = [
      async () => {
        const { ledgerId } = this.#space;
        await this.#space.credit(await this.#temporary.sweep(signal), ledgerId);
      },
      ...(counts ? [() => this.#space.recover()] : []),
    ];
    const work = async (): Promise<void> => {
      for (const step of steps) {
        try {
          await step();
        } catch (cause) {
          // A read-only directory needs no cleanup, and a missing one no count.
          const isNothingToDo = isReadOnly(cause) || cause instanceof Deno.errors.NotFound;
          if (!isNothingToDo) this.#report("recover", cause);
        }
      }
    };
    this.#housekeeping = work().then(() => {
      if (signal.aborted) return;
      this.#cancelHousekeeping = clock.schedule(
        () => this.#startHousekeeping(true),
        HOUSEKEEPING_MS,
        {
          background: true,
        },
      );
    });
  }

  #report(operation: string, cause: unknown, key?: ObjectKey): void {
    const about = key === undefined ? {} : { key };
    this.#options.onError(new AdapterError({ adapter: "fs", operation, cause, ...about }));
  }
}

const NOTHING = [0];

function noTrailingBytes(): readonly number[] {
  return NOTHING;
}

function bytesOf({ byteLength }: AdapterObject): number {
  return byteLength;
}

function wrongBasePath(expected: string, received: string): ConfigError {
  return new ConfigError({ subject: "fs adapter", key: "base_path", expected, received });
}
