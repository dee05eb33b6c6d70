import { type Clock, type ObjectKey, wait } from "../../src/adapter/contract.ts";
import { isFull, isLockUnsupported } from "../_shared/errno.ts";
import { diskBytesFor, usedAtOf } from "../_shared/file_info.ts";
import type { FileSystem } from "./file_system.ts";
import { lockOwn } from "./lock_own.ts";
import type { OldestFiles, OldFile } from "./oldest_files.ts";
import type { UsageLedger } from "./usage_ledger.ts";

/** Interval of checks whether another process has freed space, in milliseconds. */
const CHECK_INTERVAL_MS = 20;
/** Max wait for another process that frees nothing, in milliseconds. */
const PATIENCE_MS = 2_000;

/** Removed objects. */
export interface Removed {
  /** Number of objects. */
  readonly objects: number;
  /** Bytes on disk that were freed. */
  readonly bytes: number;
}

/** Options of an {@linkcode Evictor}. */
export interface EvictorOptions {
  readonly files: FileSystem;
  /** The eviction candidates. */
  readonly oldest: OldestFiles;
  /** Shows whether other processes free space. */
  readonly ledger: UsageLedger;
  /** Lock file of the process that evicts. */
  readonly lock: { readonly path: string; readonly mode: number };
  /** Whether a file must not be evicted. */
  readonly isLocked: (path: string) => boolean;
  /** Callbacks for evicted objects, if needed. */
  readonly evicted?: {
    /** The key of a file; `null` if it has no readable key. */
    readonly keyAt: (path: string, size: number) => Promise<ObjectKey | null>;
    /** Called with the keys of evicted objects. */
    readonly onEvicted: (keys: readonly ObjectKey[]) => void;
  };
  readonly clock: Clock;
  /** Aborts when the adapter closes. */
  readonly signal: AbortSignal;
  /** Called when a file cannot be removed. */
  readonly onError: (cause: unknown) => void;
}

/** Evicts objects of a directory, if possible in one process at a time. */
export class Evictor {
  readonly #options: EvictorOptions;
  #objects = 0;
  #bytes = 0;
  #isHeld = false;
  /** The last lock attempt: attempts of this process must not overlap. */
  #attempt: Promise<unknown> = Promise.resolve();

  constructor(options: EvictorOptions) {
    this.#options = options;
  }

  /** Objects and bytes on disk evicted since the start. */
  get removed(): Removed {
    return { objects: this.#objects, bytes: this.#bytes };
  }

  /** Whether another process holds the lock and frees nothing. */
  get isHeld(): boolean {
    return this.#isHeld;
  }

  /**
   * Creates the lock file, so that it exists when the disk is full.
   *
   * @throws If it cannot be created.
   */
  async prepare(): Promise<void> {
    try {
      await this.#inTurn(async () => (await this.#tryLock())?.[Symbol.dispose]());
    } catch (error) {
      if (!isLockUnsupported(error)) throw error;
    }
  }

  /**
   * Waits for the eviction lock. If its holder frees nothing (it may be suspended), continues
   * without the lock: two processes may then evict somewhat more than needed.
   *
   * @param isEnough Whether this many used bytes leave enough space.
   * @returns `undefined` if other processes have freed enough.
   */
  async lock(isEnough: (used: number) => boolean): Promise<Disposable | undefined> {
    const { ledger, clock, signal } = this.#options;
    let credited: number | undefined;
    for (let since = clock.now(); !signal.aborted;) {
      const lock = await this.#inTurn(() => this.#tryLock());
      this.#isHeld &&= lock === undefined;
      if (lock !== undefined) return lock;
      const state = await ledger.peek();
      if (state !== undefined && isEnough(state.used)) return undefined;
      if (state?.credited !== credited) since = clock.now();
      credited = state?.credited;
      if (this.#isHeld || clock.now() - since >= PATIENCE_MS) {
        this.#isHeld = true;
        return noLock;
      }
      await wait(clock, CHECK_INTERVAL_MS, signal);
    }
    return undefined;
  }

  /** Removes the candidates that were not used meanwhile. */
  async remove(candidates: readonly OldFile[]): Promise<Removed> {
    const { files, oldest, isLocked, onError, evicted } = this.#options;
    const keys: ObjectKey[] = [];
    let objects = 0;
    let bytes = 0;
    await Promise.all(candidates.map(async (candidate) => {
      try {
        if (isLocked(candidate.path)) return oldest.keep(candidate);
        const info = await files.lstat(candidate.path);
        if (!info.isFile || usedAtOf(info) !== candidate.usedAt) return;
        const key = await evicted?.keyAt(candidate.path, candidate.size);
        if (isLocked(candidate.path)) return oldest.keep(candidate);
        await files.remove(candidate.path);
        if (key) keys.push(key);
        objects++;
        bytes += Math.min(candidate.diskBytes, diskBytesFor(candidate.size));
        this.#objects++;
        this.#bytes += candidate.diskBytes;
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) onError(error);
      }
    }));
    if (keys.length > 0) evicted?.onEvicted(keys);
    return { objects, bytes };
  }

  #inTurn<Value>(attempt: () => Promise<Value>): Promise<Value> {
    const made = this.#attempt.then(attempt);
    this.#attempt = made.catch(() => {});
    return made;
  }

  /** Takes the lock, unless another process holds it. */
  async #tryLock(): Promise<Disposable | undefined> {
    const { files, ledger, lock: { path, mode } } = this.#options;
    try {
      return await lockOwn(files, path, mode);
    } catch (error) {
      // On a full disk the lock file can only be created after an eviction.
      const isMissing = error instanceof Deno.errors.NotFound;
      if (isFull(error) || isMissing || !ledger.isShared) return noLock;
      throw error;
    }
  }
}

const noLock: Disposable = { [Symbol.dispose]: () => {} };
