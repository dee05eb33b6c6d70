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
  frontOfParts,
  type L2Adapter,
  type ListedObject,
  type ListOptions,
  type LoadOptions,
  type LookupOptions,
  type ObjectKey,
  type StoreResult,
  systemRandom,
} from "../../src/adapter/contract.ts";
import { type CallPurpose, OsCalls } from "../_shared/os_calls.ts";
import { DirectIo } from "./direct_io.ts";
import { PoolDirectory, UnsafeDirectoryError } from "./pool_directory.ts";
import { pagesFor, PoolGeometry } from "./pool_geometry.ts";
import { type OpenedPool, PoolOpener, type RecoverySource } from "./pool_opener.ts";
import { SlotFiles } from "./slot_files.ts";
import { RUN_BYTES } from "./slot_format.ts";
import { type SlotEntry, SlotTable } from "./slot_table.ts";

/** Max concurrent loads and removals, and stores. */
const MAX_LOADS = 8;
const MAX_STORES = 6;
/** Pause after a failed attempt to lay out the pool, in milliseconds. */
const LAY_OUT_PAUSE_MS = 30_000;

/** Options of a {@linkcode PoolStore}. */
export interface PoolStoreOptions {
  /** Directory of the pool. */
  readonly path: string;
  /** Number of slots. */
  readonly slots: number;
  /** Number of files. */
  readonly files: number;
  /** Max bytes of an object; if `undefined`, the first object decides. */
  readonly slotBytes: number | undefined;
  /** Whether to use direct I/O. */
  readonly isDirect: boolean;
  /** Whether the directory may belong to another user. */
  readonly allowsForeignOwner: boolean;
  readonly clock: Clock;
  /** Aborts when the cache closes. */
  readonly signal: AbortSignal;
  /** Called with each failure that affects a key. */
  readonly onError: (error: AdapterError) => void;
  /** Called with the keys of evicted objects. */
  readonly onEvicted?: ((keys: readonly ObjectKey[]) => void) | undefined;
}

/** A pool that is laid out. */
interface Pool {
  readonly files: SlotFiles;
  readonly table: SlotTable;
}

/** Objects in slots of one size, in preallocated files. */
export class PoolStore implements L2Adapter {
  readonly #options: PoolStoreOptions;
  readonly #directory: PoolDirectory;
  readonly #opener: PoolOpener;
  /** Limits loads and removals; stores have a separate limiter, because they may wait for slots. */
  readonly #limiter = new Limiter({ operations: MAX_LOADS });
  readonly #storeLimiter = new Limiter({ operations: MAX_STORES });
  /** This adapter's share of Deno's threads. */
  readonly #calls = new OsCalls();
  readonly #run: Uint8Array = systemRandom.bytes(RUN_BYTES);
  #direct: DirectIo | undefined;
  #directRefusal: string | undefined;
  #pool: Pool | undefined;
  #layingOut: Promise<Pool> | undefined;
  #layOutFailure: { readonly cause: unknown; readonly timeMs: number } | undefined;
  #recoveredFrom: RecoverySource = "new";
  #nextSequence = 1;
  #isClosed = false;
  #disposal: Promise<void> | undefined;

  private constructor(options: PoolStoreOptions, directory: PoolDirectory) {
    this.#options = options;
    this.#directory = directory;
    this.#opener = new PoolOpener({
      directory,
      filesOf: (geometry) => this.#filesOf(geometry),
      limiter: this.#limiter,
      calls: this.#calls,
      signal: options.signal,
      onError: (cause) => this.#report("recover", cause),
    });
  }

  /**
   * Locks a directory and opens its pool, or lays one out if the slot size is known.
   *
   * @throws {ConfigError} If the directory cannot be used, is in use by another process, contains
   * objects in a pool of another shape, or has no space for the pool.
   */
  static async open(options: PoolStoreOptions): Promise<PoolStore> {
    const { path, allowsForeignOwner } = options;
    const directory = await PoolDirectory.take(path, { allowsForeignOwner }).catch((cause) => {
      if (cause instanceof UnsafeDirectoryError) {
        throw wrongParameter("file_path", cause.expected, cause.received);
      }
      const expected = "a directory where files can be created and locked";
      throw wrongParameter("file_path", expected, path, cause);
    });
    if (directory === undefined) {
      const expected =
        "a directory of its own for each cache: this one is in use by another process";
      throw wrongParameter("file_path", expected, path);
    }
    const store = new PoolStore(options, directory);
    try {
      await store.#open();
    } catch (error) {
      await store.#close();
      throw error;
    }
    return store;
  }

  /** Files are durable, but not shared. */
  get capabilities(): L2Adapter["capabilities"] {
    const slotBytes = this.#slotBytes;
    // Without `slot_bytes`, a short first object would make the slots too small for others.
    const limit = slotBytes === undefined
      ? {}
      : { maxObjectBytes: slotBytes, acceptsShortObjects: true };
    return { durable: true, shared: false, evicts: true, ...limit };
  }

  /**
   * Writes each object into a free slot, or into that of the least recently used object; then frees
   * the slot of an older object with the same key.
   */
  async store(objects: readonly AdapterObject[], { signal }: CallOptions): Promise<StoreResult> {
    const stored = new Bitmap(objects.length);
    let bytes = 0;
    const pool = signal.aborted || this.#isClosed ? undefined : await this.#poolFor(objects);
    if (pool === undefined) return { stored, bytes };
    const entries: SlotEntry[] = [];
    const evicted: ObjectKey[] = [];
    const onEvicted = (key: ObjectKey): void => void evicted.push(key);
    await this.#storeLimiter.forEach(objects, () => 0, async (object, index) => {
      if (signal.aborted || this.#isClosed) return;
      const entry = await this.#inTurn(
        "store",
        signal,
        () => this.#storeOne(pool, object, onEvicted),
      );
      if (entry === undefined) return;
      entries.push(entry);
      stored.set(index);
      bytes += object.byteLength;
    }, signal);
    pool.table.touch(stored.gather(objects).map(({ key }) => key));
    // Until here the entries were in use, so that no object of the batch evicted another.
    for (const entry of entries) pool.table.release(entry);
    // An evicted object may have been stored again meanwhile.
    const gone = evicted.filter((key) => pool.table.get(key) === undefined);
    if (gone.length > 0) this.#options.onEvicted?.(gone);
    return { stored, bytes };
  }

  /** Looks up objects in the index; those found are not evicted until they are unlocked. */
  lookupAndLock(
    keys: readonly ObjectKey[],
    { prefix, signal }: LookupOptions,
  ): Promise<Bitmap> {
    const found = new Bitmap(keys.length);
    const table = this.#pool?.table;
    if (table === undefined || signal.aborted) return Promise.resolve(found);
    for (const [index, key] of keys.entries()) {
      const entry = table.get(key);
      if (entry !== undefined) {
        entry.locks++;
        found.set(index);
      } else if (prefix) break;
    }
    table.touch(found.gather(keys));
    return Promise.resolve(found);
  }

  /** Releases the locks of a lookup. */
  unlock(keys: readonly ObjectKey[]): void {
    for (const key of keys) {
      const entry = this.#pool?.table.get(key);
      if (entry !== undefined && entry.locks > 0) entry.locks--;
    }
  }

  /** Records uses of objects. */
  touch(keys: readonly ObjectKey[]): void {
    this.#pool?.table.touch(keys);
  }

  /** Loads each object into its parts. */
  async load(
    objects: readonly AdapterObject[],
    { signal, onLoaded, allowShorter = false }: LoadOptions,
  ): Promise<Bitmap> {
    const loaded = new Bitmap(objects.length);
    const pool = this.#pool;
    if (pool === undefined || signal.aborted || this.#isClosed) return loaded;
    const { table } = pool;
    // Marked as in use now, so that no object is evicted while it waits.
    const entries = objects.map(({ key, byteLength }, index) => {
      const entry = table.get(key);
      if (entry === undefined) return undefined;
      const fits = entry.byteLength === byteLength ||
        (allowShorter && entry.byteLength < byteLength);
      if (!fits) onLoaded?.(index, "layout");
      return fits ? table.use(entry) : undefined;
    });
    table.touch(objects.map(({ key }) => key));
    await this.#limiter.forEach(objects, () => 0, async (object, index) => {
      const entry = entries[index];
      if (entry === undefined || signal.aborted || this.#isClosed) return;
      const load = async (): Promise<void> => {
        entries[index] = undefined;
        try {
          if (await this.#loadOne(pool, entry, object)) loaded.set(index);
        } finally {
          table.release(entry);
        }
      };
      await this.#inTurn("load", signal, load);
    }, signal);
    // Objects not loaded before the abort.
    for (const entry of entries) if (entry !== undefined) table.release(entry);
    return loaded;
  }

  /** Frees the slots of objects. */
  async delete(keys: readonly ObjectKey[], { signal }: CallOptions): Promise<DeleteResult> {
    const deleted = new Bitmap(keys.length);
    let bytes = 0;
    const pool = this.#pool;
    if (pool === undefined) return { deleted, bytes };
    await this.#limiter.forEach(keys, () => 0, async (key, index) => {
      await this.#inTurn("load", signal, async () => {
        const entry = pool.table.get(key);
        if (signal.aborted || this.#isClosed || entry === undefined || entry.locks > 0) return;
        try {
          await this.#drop(pool, entry);
          deleted.set(index);
          bytes += entry.byteLength;
        } catch (cause) {
          this.#report("delete", cause, key);
        }
      });
    }, signal);
    return { deleted, bytes };
  }

  /** Lists the objects. */
  async *list({ model, signal }: ListOptions): AsyncIterable<ListedObject> {
    for (const { key, byteLength } of this.#pool?.table.entries() ?? []) {
      if (signal.aborted) return;
      if (model === undefined || key.model === model) yield { key, byteLength };
    }
  }

  /** Bytes of the objects, and the capacity of the slots. */
  usage(): Promise<AdapterUsage> {
    const slotBytes = this.#slotBytes;
    return Promise.resolve({
      usedBytes: this.#pool?.table.usedBytes ?? 0,
      objectCount: this.#pool?.table.size ?? 0,
      ...(slotBytes === undefined ? {} : { capacityBytes: this.#options.slots * slotBytes }),
    });
  }

  /** Settings and usage of the pool. */
  reportStatus(): Readonly<Record<string, unknown>> {
    const { path, slots, files, isDirect } = this.#options;
    const table = this.#pool?.table;
    const isUsed = this.#direct !== undefined && this.#directRefusal === undefined;
    return {
      directory: path,
      slots,
      slotBytes: this.#slotBytes ?? null,
      files: this.#pool?.files.geometry.files ?? files,
      usedSlots: table?.size ?? 0,
      freeSlots: table?.freeSlots ?? slots,
      lockedObjects: table?.lockedCount ?? 0,
      evictedObjects: table?.evictedCount ?? 0,
      recoveredFrom: this.#recoveredFrom,
      directIo: {
        isRequested: isDirect,
        path: isUsed ? "O_DIRECT" : "page cache",
        ...(this.#directRefusal === undefined ? {} : { reason: this.#directRefusal }),
      },
    };
  }

  /** Waits for running calls, writes the index for the next owner, and unlocks the directory. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    return this.#disposal ??= this.#dispose();
  }

  get #slotBytes(): number | undefined {
    return this.#pool?.files.geometry.slotBytes ?? this.#options.slotBytes;
  }

  async #open(): Promise<void> {
    const { path, slots, files, slotBytes, isDirect } = this.#options;
    if (isDirect) await this.#startDirect();
    const existing = await this.#directory.readGeometry();
    if (existing !== undefined) {
      const wanted = new PoolGeometry({ slots, files, slotBytes: slotBytes ?? existing.slotBytes });
      if (existing.equals(wanted)) {
        this.#begin(await this.#opener.open(existing));
        return;
      }
      if ((await this.#opener.contentOf(existing)).objects.length > 0) {
        throw new ConfigError({
          subject: "file_pool adapter",
          expected:
            `the layout of the existing pool in ${path} (${existing}), or another file_path, ` +
            "or a pool with its files removed",
          received: String(wanted),
        });
      }
      await this.#directory.removePool(existing);
    }
    if (slotBytes === undefined) return;
    const geometry = new PoolGeometry({ slots, files, slotBytes });
    try {
      this.#begin(await this.#opener.layOut(geometry));
    } catch (cause) {
      if (this.#options.signal.aborted) throw cause;
      const expected = `a directory with room for ${geometry.diskBytes} bytes (${geometry})`;
      throw wrongParameter("file_path", expected, path, cause);
    }
  }

  #begin({ files, index, source }: OpenedPool): Pool {
    const { objects, nextSequence } = index;
    this.#recoveredFrom = source;
    this.#nextSequence = nextSequence;
    return this.#pool = { files, table: new SlotTable(files.geometry.slots, objects) };
  }

  #filesOf(geometry: PoolGeometry): SlotFiles {
    return new SlotFiles({
      files: this.#directory.files,
      directory: this.#directory.path,
      geometry,
      direct: this.#directRefusal === undefined ? this.#direct : undefined,
      onRefusal: (error) => this.#refuseDirect(error),
    });
  }

  /** The pool; if it does not exist yet, the first object decides the slot size. */
  async #poolFor(objects: readonly AdapterObject[]): Promise<Pool | undefined> {
    if (this.#pool !== undefined) return this.#pool;
    const { slots, files, clock } = this.#options;
    const [first] = objects;
    if (first === undefined) return undefined;
    const geometry = new PoolGeometry({ slots, files, slotBytes: pagesFor(first.byteLength || 1) });
    try {
      const failure = this.#layOutFailure;
      if (failure !== undefined && clock.now() - failure.timeMs < LAY_OUT_PAUSE_MS) {
        throw failure.cause;
      }
      return await (this.#layingOut ??= this.#calls.run(
        "housekeeping",
        this.#options.signal,
        async () => this.#begin(await this.#opener.layOut(geometry)),
      ));
    } catch (cause) {
      if (this.#layingOut !== undefined) {
        const needed = `The pool needs ${geometry.diskBytes} bytes (${geometry})`;
        this.#layOutFailure = { cause: explained(cause, needed), timeMs: clock.now() };
      }
      for (const { key } of objects) this.#report("store", this.#layOutFailure?.cause, key);
      return undefined;
    } finally {
      this.#layingOut = undefined;
    }
  }

  /**
   * Runs `work` within this adapter's thread limits; `undefined` if `signal` aborts before it
   * starts.
   */
  async #inTurn<Value>(
    purpose: CallPurpose,
    signal: AbortSignal,
    work: () => Promise<Value>,
  ): Promise<Value | undefined> {
    let hasBegun = false;
    try {
      return await this.#calls.run(purpose, signal, () => {
        hasBegun = true;
        return work();
      });
    } catch (error) {
      if (hasBegun) throw error;
      return undefined;
    }
  }

  /** Loads an object into its parts; resolves to whether that succeeded. */
  async #loadOne(pool: Pool, entry: SlotEntry, object: AdapterObject): Promise<boolean> {
    const { key, parts, byteLength } = object;
    const filled = entry.byteLength < byteLength ? frontOfParts(parts, entry.byteLength) : parts;
    try {
      if (await pool.files.read(entry.slot, filled)) return true;
      if (!entry.isRetired) await this.#drop(pool, entry);
      throw new Deno.errors.UnexpectedEof("The file ends before the object does");
    } catch (cause) {
      this.#report("load", cause, key);
      return false;
    }
  }

  /** Stores an object; its entry stays in use. Resolves to `undefined` on failure. */
  async #storeOne(
    { files, table }: Pool,
    object: AdapterObject,
    onEvicted: (key: ObjectKey) => void,
  ): Promise<SlotEntry | undefined> {
    const { key, byteLength } = object;
    const { slotBytes } = files.geometry;
    if (byteLength > slotBytes) {
      const reason = `An object of ${byteLength} bytes must fit into a slot of ${slotBytes} bytes`;
      this.#report("store", new RangeError(`${reason}: see backend_params.slot_bytes`), key);
      return undefined;
    }
    const slot = table.takeSlot(onEvicted);
    if (slot === undefined) {
      this.#report("store", new Error("All slots are locked or in use: see pool_size"), key);
      return undefined;
    }
    const sequence = this.#nextSequence++;
    try {
      await files.write({ slot, slotBytes, sequence, run: this.#run, key, byteLength }, object);
    } catch (cause) {
      this.#report("store", cause, key);
      await this.#clear(files, slot);
      table.giveBack(slot);
      return undefined;
    }
    const { entry, retired } = table.commit({ key, slot, byteLength, sequence });
    if (retired !== undefined) {
      await this.#clear(files, retired.slot);
      table.release(retired);
    }
    return entry;
  }

  /**
   * Clears a slot whose object must not reappear after a crash. A failure is reported without a
   * key.
   */
  async #clear(files: SlotFiles, slot: number): Promise<void> {
    try {
      await files.clear(slot);
    } catch (cause) {
      this.#report("clear", cause);
    }
  }

  /** Removes an object from the pool. */
  async #drop({ files, table }: Pool, entry: SlotEntry): Promise<void> {
    table.retire(entry);
    try {
      await files.clear(entry.slot);
    } finally {
      table.release(entry);
    }
  }

  async #startDirect(): Promise<void> {
    this.#direct = new DirectIo(this.#directory.files.worker);
    const refusal = await this.#direct.probe(this.#directory.temporaryPath);
    if (refusal !== undefined) this.#refuseDirect(refusal);
  }

  #refuseDirect(error: unknown): void {
    this.#directRefusal = error instanceof Error ? error.message : String(error);
    const message = `O_DIRECT is refused, so the page cache is used: ${this.#directRefusal}`;
    this.#report("open", new Error(message));
  }

  async #dispose(): Promise<void> {
    await this.#layingOut?.catch(() => {});
    await Promise.all([this.#limiter.idle(), this.#storeLimiter.idle()]);
    const pool = this.#pool;
    this.#pool = undefined;
    if (pool !== undefined) {
      try {
        const index = { objects: pool.table.entries(), nextSequence: this.#nextSequence };
        await this.#directory.writeIndex(index, pool.files.geometry);
      } catch (cause) {
        this.#report("close", cause);
      }
      pool.files[Symbol.dispose]();
    }
    await this.#close();
  }

  async #close(): Promise<void> {
    this.#pool?.files[Symbol.dispose]();
    await this.#direct?.[Symbol.asyncDispose]();
    await this.#directory[Symbol.asyncDispose]();
  }

  #report(operation: string, cause: unknown, key?: ObjectKey): void {
    const about = key === undefined ? {} : { key };
    this.#options.onError(new AdapterError({ adapter: "file_pool", operation, cause, ...about }));
  }
}

/** An error that says what was needed, with the operating system's code. */
function explained(cause: unknown, needed: string): Error {
  const reason = cause instanceof Error ? cause.message : String(cause);
  const code: unknown = cause instanceof Error ? Reflect.get(cause, "code") : undefined;
  const error = new Error(`${needed}: ${reason}`, { cause });
  return typeof code === "string" ? Object.assign(error, { code }) : error;
}

function wrongParameter(
  key: string,
  expected: string,
  received: unknown,
  cause?: unknown,
): ConfigError {
  return new ConfigError({
    subject: "file_pool adapter",
    key: `backend_params.${key}`,
    expected,
    received: cause instanceof Error ? `${received} (${cause.message})` : received,
    ...(cause === undefined ? {} : { cause }),
  });
}
