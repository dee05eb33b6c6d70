import { join } from "@std/path";
import { type Clock, systemRandom, wait } from "../../src/l2/adapter.ts";
import { entriesOf } from "./directory_walk.ts";
import { isFull, isLockUnsupported, isReadOnly } from "../_shared/errno.ts";
import { diskBytesOf, knownTime } from "../_shared/file_info.ts";
import type { FileSystem, LockedFile } from "./file_system.ts";
import { lockOwn } from "./lock_own.ts";

/** Younger files are left alone if their writer may be about to take its lock. */
const GRACE_MS = 60_000;
/** Older ones have no living writer, even if it has no lock that would tell. */
const ABANDONED_MS = 3_600_000;
/** Attempts to have the lock of this writer, which others hold for a moment when they look. */
const LOCK_ATTEMPTS = 100;
/** Time between two attempts, in milliseconds. */
const LOCK_PAUSE_MS = 10;

const TEMPORARY = /^([0-9]+-[0-9a-f]{16})-[0-9a-z]+\.tmp$/;
const LOCK = /^([0-9]+-[0-9a-f]{16})\.lock$/;

/** How {@linkcode TemporaryFiles} are set up. */
export interface TemporaryFilesOptions {
  /** What does it. */
  readonly files: FileSystem;
  /** The directory of locks. */
  readonly path: string;
  /** Permissions of files. */
  readonly mode: number;
  /** The directories in which writers have their files. */
  readonly places: () => AsyncIterable<string>;
  /** Whether a file of this name in such a directory is a temporary file of LMCache. */
  readonly isForeign: (name: string, place: string) => boolean;
  /** Source of time. */
  readonly clock: Clock;
}

/**
 * The temporary files of one writer, and what writers that are gone left behind, LMCache's too. A writer has a tag
 * of its own in the names of its files, and holds a lock on a file with that tag as long as it
 * lives: the operating system ends the lock with the process, however that ends.
 */
export class TemporaryFiles {
  /** Names this writer. */
  readonly tag = `${Deno.pid}-${systemRandom.bytes(8).toHex()}`;
  readonly #options: TemporaryFilesOptions;
  #count = 0;
  #lock: LockedFile | undefined;
  /** Whether files can be locked here. */
  #hasLocks = true;
  #announcing: Promise<void> | undefined;
  #reclaimed = 0;

  /** Nothing is done to the directories yet. */
  constructor(options: TemporaryFilesOptions) {
    this.#options = options;
  }

  /** Files of other writers that were removed. */
  get reclaimed(): number {
    return this.#reclaimed;
  }

  /** A path in a directory that nobody else uses. */
  next(directory = this.#options.path): string {
    return `${directory}/${this.tag}-${(this.#count++).toString(36)}.tmp`;
  }

  /**
   * Shows others that this writer lives. Where files cannot be locked, age has to tell.
   *
   * @throws If the directory does not exist or cannot be written to, or others hold the lock.
   */
  announce(): Promise<void> {
    return this.#announcing ??= this.#announce().finally(() => this.#announcing = undefined);
  }

  /** Whether the writer with a tag lives, as far as its lock tells; `undefined` if it has none. */
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

  /** Tags of writers that have a lock, or had one when they were killed. */
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
   * Bytes on disk of the temporary files of LMCache, and of writers that do not live, as far as is
   * known; `dead` are some of them.
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
      // Another process may have removed it meanwhile.
      const info = await files.lstat(path).catch(() => undefined);
      if (info !== undefined) bytes += diskBytesOf(info);
    }
    return bytes;
  }

  /**
   * Removes what writers that are gone left behind.
   *
   * @returns Bytes that were freed on disk.
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
    // Locks go last: without its lock, only age tells that a writer is gone.
    found.sort((a, b) => Number(a.isLock) - Number(b.isLock));
    for (const file of found) {
      if (signal.aborted) return freed;
      try {
        const info = await files.lstat(file.path);
        // A time that cannot be was not set lately.
        const age = now === undefined ? 0 : now - (knownTime(info.mtime, now) ?? -Infinity);
        // Whoever writes has taken its lock before.
        if (file.isLock && age < GRACE_MS) continue;
        const { tag } = file;
        if (tag !== undefined && !alive.has(tag)) alive.set(tag, await this.isAlive(tag));
        const isAlive = tag === undefined ? undefined : alive.get(tag);
        // LMCache's writers have no lock: only age tells.
        const isGone = isAlive === false || (isAlive === undefined && age >= ABANDONED_MS);
        if (!isGone) continue;
        await files.remove(file.path);
        if (file.isLock) continue;
        this.#reclaimed++;
        freed += diskBytesOf(info);
      } catch (error) {
        // Another process sweeps too; and what somebody else must remove keeps nothing else.
        if (!(error instanceof Deno.errors.NotFound) && !isReadOnly(error)) throw error;
      }
    }
    return freed;
  }

  /** Gives the lock back, and removes its file. */
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
      const isThere = await files.lstat(this.#lockPath).then(() => true, () => false);
      if (isThere) return;
      // The directory was removed, and made again.
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
      `${this.#lockPath} is held by others: without it they take this writer for dead`,
    );
  }

  get #lockPath(): string {
    return join(this.#options.path, `${this.tag}.lock`);
  }

  /**
   * The time of the host that keeps the files: clocks of hosts that share a directory differ.
   * `undefined` if it does not tell.
   */
  async #serverTime(): Promise<number | undefined> {
    const { files, mode } = this.#options;
    const path = this.next();
    try {
      using file = await files.create(path, mode);
      await file.flush();
      const time = (await files.lstat(path)).mtime?.getTime();
      return Number.isFinite(time) ? time : undefined;
    } catch (error) {
      // What is swept may be what makes room for it.
      if (!isFull(error)) throw error;
      return undefined;
    } finally {
      await files.remove(path).catch(() => {});
    }
  }
}
