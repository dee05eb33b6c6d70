import { type Clock, type ObjectKey, wait } from "../../src/l2/adapter.ts";
import { isFull, isLockUnsupported } from "../_shared/errno.ts";
import { diskBytesFor, usedAtOf } from "../_shared/file_info.ts";
import type { FileSystem } from "./file_system.ts";
import { lockOwn } from "./lock_own.ts";
import type { OldestFiles, OldFile } from "./oldest_files.ts";
import type { UsageLedger } from "./usage_ledger.ts";

/** Time between two looks at whether another process has made room, in milliseconds. */
const LOOK_MS = 20;
/** Time after which another process that makes no room is not waited for, in milliseconds. */
const PATIENCE_MS = 2_000;

/** What was removed. */
export interface Removed {
  /** Objects. */
  readonly objects: number;
  /** Bytes on disk that this gives back. */
  readonly bytes: number;
}

/** How an {@linkcode Evictor} is set up. */
export interface EvictorOptions {
  /** The file operations. */
  readonly files: FileSystem;
  /** Candidates. */
  readonly oldest: OldestFiles;
  /** Shows whether others make room. */
  readonly ledger: UsageLedger;
  /** File on which the process that removes objects has a lock. */
  readonly lock: { readonly path: string; readonly mode: number };
  /** Whether a file must stay. */
  readonly isLocked: (path: string) => boolean;
  /** Told which objects are removed, if that matters. */
  readonly evicted?: {
    /** The key of a file; `null` if it has none that can be read. */
    readonly keyAt: (path: string, size: number) => Promise<ObjectKey | null>;
    /** Told which objects are gone. */
    readonly onEvicted: (keys: readonly ObjectKey[]) => void;
  };
  /** Source of time. */
  readonly clock: Clock;
  /** Aborts when the adapter closes. */
  readonly signal: AbortSignal;
  /** Told about files that cannot be removed. */
  readonly onError: (cause: unknown) => void;
}

/** Removes objects of a directory, as far as possible in one process at a time. */
export class Evictor {
  readonly #options: EvictorOptions;
  #objects = 0;
  #bytes = 0;
  #isHeld = false;
  /** The last attempt to have the lock: this process must not be in its own way. */
  #attempt: Promise<unknown> = Promise.resolve();

  /** Removes what `oldest` has. */
  constructor(options: EvictorOptions) {
    this.#options = options;
  }

  /** What was removed since the start, in bytes on disk. */
  get removed(): Removed {
    return { objects: this.#objects, bytes: this.#bytes };
  }

  /** Whether another process has the lock and makes no room. */
  get isHeld(): boolean {
    return this.#isHeld;
  }

  /**
   * Makes the file that is locked, so that it is there when the disk is full.
   *
   * @throws If it cannot be made.
   */
  async prepare(): Promise<void> {
    try {
      await this.#inTurn(async () => (await this.#tryLock())?.[Symbol.dispose]());
    } catch (error) {
      if (!isLockUnsupported(error)) throw error;
    }
  }

  /**
   * Has this process be the one that removes objects. A process that has been stopped keeps the
   * lock: without it, objects may be removed by two, which costs some more than needed.
   *
   * @param isEnough Whether others have made the room that is wanted, by what is used now.
   * @returns `undefined` if they have.
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
      await wait(clock, LOOK_MS, signal);
    }
    return undefined;
  }

  /** Removes those files that were not used meanwhile. */
  async remove(victims: readonly OldFile[]): Promise<Removed> {
    const { files, oldest, isLocked, onError, evicted } = this.#options;
    const keys: ObjectKey[] = [];
    let objects = 0;
    let bytes = 0;
    await Promise.all(victims.map(async (victim) => {
      try {
        if (isLocked(victim.path)) return oldest.keep(victim);
        const info = await files.lstat(victim.path);
        if (!info.isFile || usedAtOf(info) !== victim.usedAt) return;
        const key = await evicted?.keyAt(victim.path, victim.size);
        if (isLocked(victim.path)) return oldest.keep(victim);
        await files.remove(victim.path);
        if (key) keys.push(key);
        objects++;
        bytes += Math.min(victim.diskBytes, diskBytesFor(victim.size));
        this.#objects++;
        this.#bytes += victim.diskBytes;
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

  /** The lock, if no other process has it. */
  async #tryLock(): Promise<Disposable | undefined> {
    const { files, ledger, lock: { path, mode } } = this.#options;
    try {
      return await lockOwn(files, path, mode);
    } catch (error) {
      // Where it cannot be made, removing objects is what makes room for it.
      const isMissing = error instanceof Deno.errors.NotFound;
      if (isFull(error) || isMissing || !ledger.isShared) return noLock;
      throw error;
    }
  }
}

const noLock: Disposable = { [Symbol.dispose]: () => {} };
