import { join } from "@std/path";
import { type Clock, type SweepResult, systemRandom, wait } from "../../src/adapter/contract.ts";
import { entriesOf } from "./directory_walk.ts";
import { isFull, isLockUnsupported, isReadOnly } from "../_shared/errno.ts";
import { diskBytesOf, knownTime } from "../_shared/file_info.ts";
import type { LockedFile } from "../_shared/locked_file.ts";
import type { FileSystem } from "./file_system.ts";
import { lockOwn } from "./lock_own.ts";

/** Younger lock files stay, because their writer may be about to lock them, in milliseconds. */
const GRACE_MS = 60_000;
/** Older files have no living writer, even if no lock proves it, in milliseconds. */
const ABANDONED_MS = 3_600_000;
/** Max attempts to lock the own lock file, which other processes lock briefly to test it. */
const LOCK_ATTEMPTS = 100;
/** Pause between two attempts, in milliseconds. */
const LOCK_PAUSE_MS = 10;

const TEMPORARY = /^([0-9]+-[0-9a-f]{16})-[0-9a-z]+\.tmp$/;
const LOCK = /^([0-9]+-[0-9a-f]{16})\.lock$/;

/** Options of {@linkcode TemporaryFiles}. */
export interface TemporaryFilesOptions {
  readonly files: FileSystem;
  /** Directory of the lock files. */
  readonly path: string;
  /** File mode. */
  readonly mode: number;
  /** Directories that may contain temporary files. */
  readonly places: () => AsyncIterable<string>;
  /** Whether a name in such a directory is a temporary file of LMCache. */
  readonly isForeign: (name: string, place: string) => boolean;
  readonly clock: Clock;
}

/**
 * Temporary files of one writer, and leftovers of dead writers, including LMCache's. The names
 * contain the writer's tag. A writer holds a lock on a file with its tag as long as it lives; the
 * operating system releases the lock with the process, however it ends.
 */
export class TemporaryFiles {
  /** Identifies this writer. */
  readonly tag = `${Deno.pid}-${systemRandom.bytes(8).toHex()}`;
  readonly #options: TemporaryFilesOptions;
  #count = 0;
  #lock: LockedFile | undefined;
  /** Whether the file system supports locks. */
  #hasLocks = true;
  #announcing: Promise<void> | undefined;
  #reclaimed: SweepResult = { files: 0, bytes: 0 };

  constructor(options: TemporaryFilesOptions) {
    this.#options = options;
  }

  /** Removed files of other writers, and their bytes on disk. */
  get reclaimed(): SweepResult {
    return this.#reclaimed;
  }

  /** A new path in a directory, unique to this writer. */
  next(directory = this.#options.path): string {
    return `${directory}/${this.tag}-${(this.#count++).toString(36)}.tmp`;
  }

  /**
   * Locks this writer's lock file, which shows others that it lives. Without lock support, other
   * processes decide by age.
   *
   * @throws If the directory is missing or not writable, or another process holds the lock.
   */
  announce(): Promise<void> {
    return this.#announcing ??= this.#announce().finally(() => this.#announcing = undefined);
  }

  /** Whether the writer with a tag lives, by its lock; `undefined` if it has none. */
  async isAlive(tag: string): Promise<boolean | undefined> {
    if (tag === this.tag) return true;
    const { files, path, mode } = this.#options;
    try {
      const lock = await files.lock(join(path, `${tag}.lock`), { create: false, mode });
      lock?.[Symbol.dispose]();
      return lock === undefined;
    } catch {
      return undefined;
    }
  }

  /** Tags of all writers with a lock file, living or killed. */
  async writers(): Promise<readonly string[]> {
    const { files, path } = this.#options;
    const tags: string[] = [];
    for await (const { name } of entriesOf(files, path)) {
      const tag = LOCK.exec(name)?.[1];
      if (tag !== undefined) tags.push(tag);
    }
    return tags;
  }

  /**
   * Bytes on disk of temporary files of LMCache and of writers not known to be alive.
   *
   * @param dead Tags of writers known to be dead.
   */
  async abandonedBytes(dead: ReadonlySet<string>, signal: AbortSignal): Promise<number> {
    const { files } = this.#options;
    const alive = new Map<string, boolean>();
    let bytes = 0;
    for await (const { path, name, isFile, isForeign } of this.#entries()) {
      const tag = TEMPORARY.exec(name)?.[1];
      if (!isFile || (tag === undefined && !isForeign) || signal.aborted) continue;
      if (tag !== undefined) {
        if (!alive.has(tag)) alive.set(tag, !dead.has(tag) && await this.isAlive(tag) === true);
        if (alive.get(tag)) continue;
      }
      // Another process may have removed the file meanwhile.
      const info = await files.lstat(path).catch(() => undefined);
      if (info !== undefined) bytes += diskBytesOf(info);
    }
    return bytes;
  }

  /**
   * Removes the leftovers of dead writers.
   *
   * @returns Bytes on disk that were freed.
   */
  async sweep(signal: AbortSignal): Promise<number> {
    const { files } = this.#options;
    let freed = 0;
    const found: { path: string; tag: string | undefined; isLock: boolean }[] = [];
    for await (const { path, name, isFile, isForeign } of this.#entries()) {
      const tag = (TEMPORARY.exec(name) ?? LOCK.exec(name))?.[1];
      if (!isFile || (tag === undefined && !isForeign) || tag === this.tag) continue;
      found.push({ path, tag, isLock: LOCK.test(name) });
    }
    if (found.length === 0 || signal.aborted) return freed;
    const now = await this.#serverTime();
    const alive = new Map<string, boolean | undefined>();
    // Lock files last: without one, only age shows that a writer is dead.
    found.sort((a, b) => Number(a.isLock) - Number(b.isLock));
    for (const file of found) {
      if (signal.aborted) return freed;
      try {
        const info = await files.lstat(file.path);
        // A file with an invalid time counts as old.
        const age = now === undefined ? 0 : now - (knownTime(info.mtime, now) ?? -Infinity);
        // Between creating and locking its file, a writer has no temporary files.
        if (file.isLock && age < GRACE_MS) continue;
        const { tag } = file;
        if (tag !== undefined && !alive.has(tag)) alive.set(tag, await this.isAlive(tag));
        const isAlive = tag === undefined ? undefined : alive.get(tag);
        // LMCache's writers have no lock files: only age tells.
        const isGone = isAlive === false || (isAlive === undefined && age >= ABANDONED_MS);
        if (!isGone) continue;
        await files.remove(file.path);
        if (file.isLock) continue;
        const bytes = diskBytesOf(info);
        this.#reclaimed = {
          files: this.#reclaimed.files + 1,
          bytes: this.#reclaimed.bytes + bytes,
        };
        freed += bytes;
      } catch (error) {
        // Another process may sweep too, and files of other users must not stop the sweep.
        if (!(error instanceof Deno.errors.NotFound) && !isReadOnly(error)) throw error;
      }
    }
    return freed;
  }

  /** Releases the lock, and removes its file. */
  async close(): Promise<void> {
    await this.#announcing?.catch(() => {});
    const lock = this.#lock;
    this.#lock = undefined;
    if (lock === undefined) return;
    await this.#options.files.remove(this.#lockPath).catch(() => {});
    lock[Symbol.dispose]();
  }

  async *#entries(): AsyncGenerator<Deno.DirEntry & { path: string; isForeign: boolean }, void> {
    const { files, places, isForeign } = this.#options;
    for await (const place of places()) {
      for await (const entry of entriesOf(files, place)) {
        const { name } = entry;
        yield { ...entry, path: `${place}/${name}`, isForeign: isForeign(name, place) };
      }
    }
  }

  async #announce(): Promise<void> {
    const { files, mode, clock } = this.#options;
    if (!this.#hasLocks) return;
    if (this.#lock !== undefined) {
      const exists = await files.lstat(this.#lockPath).then(() => true, () => false);
      if (exists) return;
      // The directory was removed and created again.
      this.#lock[Symbol.dispose]();
      this.#lock = undefined;
    }
    for (let attempt = 0; attempt < LOCK_ATTEMPTS; attempt++) {
      if (attempt > 0) await wait(clock, LOCK_PAUSE_MS);
      try {
        this.#lock = await lockOwn(files, this.#lockPath, mode);
      } catch (error) {
        if (!isLockUnsupported(error)) throw error;
        this.#hasLocks = false;
        return;
      }
      if (this.#lock !== undefined) return;
    }
    throw new Error(
      `${this.#lockPath} is locked by another process: without it others take this writer for dead`,
    );
  }

  get #lockPath(): string {
    return join(this.#options.path, `${this.tag}.lock`);
  }

  /**
   * Current time of the file server, because the clocks of hosts that share a directory differ;
   * `undefined` if it does not tell.
   */
  async #serverTime(): Promise<number | undefined> {
    const { files, mode } = this.#options;
    const path = this.next();
    try {
      using file = await files.create(path, mode);
      await file.flush?.();
      const time = (await files.lstat(path)).mtime?.getTime();
      return Number.isFinite(time) ? time : undefined;
    } catch (error) {
      // A sweep may be what frees the space for this file.
      if (!isFull(error)) throw error;
      return undefined;
    } finally {
      await files.remove(path).catch(() => {});
    }
  }
}
