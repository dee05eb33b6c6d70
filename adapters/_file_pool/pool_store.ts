import { Limiter } from "../../src/base/limiter.ts";
import {
  type AdapterError,
  type AdapterObject,
  type AdapterUsage,
  Bitmap,
  type CallOptions,
  type Clock,
  ConfigError,
  type DeleteResult,
  type L2Adapter,
  type ListedObject,
  type ListOptions,
  type LoadOptions,
  type LookupOptions,
  type ObjectKey,
  type StoreResult,
} from "../../src/adapter/contract.ts";
import { type CallPurpose, OsCalls } from "../_shared/os_calls.ts";
import { DirectSwitch } from "../_shared/direct_switch.ts";
import { messageOf } from "../_shared/errno.ts";
import { type Report, reportTo } from "../_shared/report.ts";
import { DirectIo } from "./direct_io.ts";
import { PoolDirectory, UnsafeDirectoryError } from "./pool_directory.ts";
import { pagesFor, PoolGeometry } from "./pool_geometry.ts";
import { type OpenedPool, PoolOpener, type RecoverySource } from "./pool_opener.ts";
import { SlotFiles } from "./slot_files.ts";
import { SlotPool } from "./slot_pool.ts";
import type { SlotEntry } from "./slot_table.ts";

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
  readonly #report: Report;
  readonly #direct: DirectSwitch<DirectIo>;
  #pool: SlotPool | undefined;
  #layingOut: Promise<SlotPool> | undefined;
  #layOutFailure: { readonly cause: unknown; readonly timeMs: number } | undefined;
  #recoveredFrom: RecoverySource = "new";
  #isClosed = false;
  #disposal: Promise<void> | undefined;

  private constructor(options: PoolStoreOptions, directory: PoolDirectory) {
    this.#options = options;
    this.#directory = directory;
    const report = this.#report = reportTo("file_pool", options.onError);
    this.#direct = new DirectSwitch((error) => report("open", error));
    this.#opener = new PoolOpener({
      directory,
      filesOf: (geometry) => this.#filesOf(geometry),
      limiter: this.#limiter,
      calls: this.#calls,
      signal: options.signal,
      onError: (cause) => report("recover", cause),
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
      const entry = await this.#inTurn("store", signal, () => pool.write(object, onEvicted));
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
          if (await pool.read(entry, object)) loaded.set(index);
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
          await pool.drop(entry);
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
    const { state } = this.#direct;
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
        path: state.phase === "direct" ? "O_DIRECT" : "page cache",
        ...(state.phase === "refused" && { reason: state.reason }),
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
    if (isDirect) {
      const direct = new DirectIo(this.#directory.files.worker);
      await this.#direct.start(direct, () => direct.probe(this.#directory.temporaryPath));
    }
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

  #begin({ files, index, source }: OpenedPool): SlotPool {
    this.#recoveredFrom = source;
    return this.#pool = new SlotPool(files, index, this.#report);
  }

  #filesOf(geometry: PoolGeometry): SlotFiles {
    return new SlotFiles({
      files: this.#directory.files,
      directory: this.#directory.path,
      geometry,
      direct: this.#direct,
    });
  }

  /** The pool; if it does not exist yet, the first object decides the slot size. */
  async #poolFor(objects: readonly AdapterObject[]): Promise<SlotPool | undefined> {
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

  async #dispose(): Promise<void> {
    await this.#layingOut?.catch(() => {});
    await Promise.all([this.#limiter.idle(), this.#storeLimiter.idle()]);
    const pool = this.#pool;
    this.#pool = undefined;
    if (pool !== undefined) {
      try {
        await this.#directory.writeIndex(pool.index(), pool.files.geometry);
      } catch (cause) {
        this.#report("close", cause);
      }
      pool.files[Symbol.dispose]();
    }
    await this.#close();
  }

  async #close(): Promise<void> {
    this.#pool?.files[Symbol.dispose]();
    await this.#direct.close();
    await this.#directory[Symbol.asyncDispose]();
  }
}

/** An error that says what was needed, with the operating system's code. */
function explained(cause: unknown, needed: string): Error {
  const reason = messageOf(cause);
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
