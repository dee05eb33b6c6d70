import type { Clock, ObjectKey } from "../../src/l2/adapter.ts";
import { type ObjectFile, walkObjects } from "./directory_walk.ts";
import { isFull } from "../_shared/errno.ts";
import { diskBytesFor, knownTime, usedAtOf } from "../_shared/file_info.ts";
import type { FileSystem, LockedFile } from "./file_system.ts";
import type { ObjectPaths } from "./object_paths.ts";
import { OldestFiles, type OldFile } from "./oldest_files.ts";
import { leasedBytes, type LedgerState, type UsageLedger } from "./usage_ledger.ts";
import type { Turnover } from "./use_times.ts";

/** Part of the capacity that a writer takes in advance, so that it need not ask for each object. */
const LEASE_SHARE = 1 / 512;
const LARGEST_LEASE = 2 ** 26;
/** Time for which the room on the disk is taken as known, in milliseconds. */
const ROOM_MS = 1_000;
/** Pause after a disk was found full, in milliseconds; it doubles each time. */
const FIRST_PAUSE_MS = 500;
const LAST_PAUSE_MS = 30_000;
/** Time after which the directory is counted again, in milliseconds. */
const COUNT_MS = 3_600_000;
/** Time between two looks at whether another process has made room, in milliseconds. */
const EVICTED_BY_OTHERS_MS = 20;

/** What bounds a directory. */
export interface DiskBounds {
  /** Most bytes that its objects take on disk. @default {Infinity} */
  readonly capacityBytes: number;
  /** Share of the capacity above which objects are removed, and share that is left then. */
  readonly watermark?: { readonly high: number; readonly low: number };
  /** Share of the disk that may be used, by anybody. */
  readonly diskHighWatermark?: number;
  /** Bytes of the disk that stay free. */
  readonly diskMinFreeBytes?: number;
}

/** How {@linkcode DiskSpace} is set up. */
export interface DiskSpaceOptions extends DiskBounds {
  /** What does it. */
  readonly files: FileSystem;
  /** Where the objects lie. */
  readonly paths: ObjectPaths;
  /** The account that all processes share. */
  readonly ledger: UsageLedger;
  /** File on which the process that removes objects has a lock. */
  readonly evictionLock: { readonly path: string; readonly mode: number };
  /** Names this writer in the account. */
  readonly tag: string;
  /** Whether the writer with a tag lives; `undefined` if that is unknown. */
  readonly isAlive: (tag: string) => Promise<boolean | undefined>;
  /** Bytes on disk of files that writers which are gone were writing. */
  readonly abandonedBytes: (dead: ReadonlySet<string>, signal: AbortSignal) => Promise<number>;
  /** Source of time. */
  readonly clock: Clock;
  /** Whether a file must stay. */
  readonly isLocked: (path: string) => boolean;
  /** Writes down the uses of objects that are still to be noted, before any are removed. */
  readonly noteUses: () => Promise<void>;
  /** Aborts when the adapter closes. */
  readonly signal: AbortSignal;
  /** Told about failures in the background. */
  readonly onError: (cause: unknown) => void;
  /** Told which objects are removed, if that matters. */
  readonly evicted?: {
    /** The key of a file; `null` if it has none that can be read. */
    readonly keyAt: (path: string, size: number) => Promise<ObjectKey | null>;
    /** Told which objects are gone. */
    readonly onEvicted: (keys: readonly ObjectKey[]) => void;
  };
}

/** What {@linkcode DiskSpace} says about itself. */
export interface DiskSpaceStatus {
  /** Bytes used by all processes, as far as this one knows; `undefined` before it knows. */
  readonly usedBytes: number | undefined;
  /** Most bytes that objects may take on disk now; `undefined` if nothing bounds them. */
  readonly capacityBytes: number | undefined;
  /** Whether all processes of the directory share one account. */
  readonly isShared: boolean;
  /** Whether the directory is being counted. */
  readonly isCounting: boolean;
  /** Objects removed to make room. */
  readonly evictedObjects: number;
  /** Bytes on disk that were freed by that. */
  readonly evictedBytes: number;
  /** Objects that were not written for want of room. */
  readonly refusedObjects: number;
  /** Why nothing is written at the moment. */
  readonly pausedBy: string | undefined;
  /** What the last count found of each model, the one that was used longest ago first. */
  readonly models: readonly ModelUsage[];
}

/** What a directory holds of a model. */
export interface ModelUsage {
  /** Name of the model. */
  readonly model: string;
  /** Objects whose names spell it. */
  readonly objects: number;
  /** Bytes that they take on disk. */
  readonly diskBytes: number;
  /** When the last of them was stored or used. */
  readonly usedAt: string;
}

/**
 * Room on disk for objects: asked for before a write, so that the capacity is never passed,
 * whichever processes share the directory. The least recently used objects of all of them leave
 * first.
 */
export class DiskSpace {
  readonly #options: DiskSpaceOptions;
  readonly #oldest: OldestFiles;
  #lease = 0;
  /** Taken from the lease, and not on disk under its name yet. */
  #inFlight = 0;
  /** What others do not know yet of what may have been replaced. */
  #replaced = 0;
  #state: LedgerState | undefined;
  /** Whether something that was removed may not have been reported. */
  #isTooHigh = false;
  #refilling: Promise<void> | undefined;
  #counting: Promise<void> | undefined;
  #evicting: Promise<boolean> | undefined;
  #room: { readonly headroom: number; readonly at: number } | undefined;
  #pause: { readonly until: number; readonly ms: number; readonly reason: string } | undefined;
  #evictedObjects = 0;
  #evictedBytes = 0;
  #refusedObjects = 0;
  #models: readonly ModelUsage[] = [];

  /** Nothing is read or written yet. */
  constructor(options: DiskSpaceOptions) {
    this.#options = options;
    this.#oldest = new OldestFiles();
  }

  /** Whether anything bounds the directory. */
  get isBounded(): boolean {
    const { capacityBytes, diskHighWatermark, diskMinFreeBytes } = this.#options;
    return capacityBytes < Infinity || diskHighWatermark !== undefined ||
      diskMinFreeBytes !== undefined;
  }

  /** How fast the directory turns over, as far as this process knows. */
  turnover(): Turnover {
    const { capacityBytes } = this.#options;
    const { granted = 0, used = 0 } = this.#state ?? {};
    // Where only the disk bounds the objects, all of them are another when as much was stored.
    return { storedBytes: granted, capacityBytes: Math.min(capacityBytes, used || Infinity) };
  }

  /** Takes room for a file if that needs no waiting. */
  tryTake(bytes: number): boolean {
    if (this.#pause !== undefined) return false;
    if (!this.isBounded) return true;
    if (this.#lease < bytes) return false;
    this.#lease -= bytes;
    this.#inFlight += bytes;
    return true;
  }

  /**
   * Takes room for a file, removing other objects if need be.
   *
   * @param soon Bytes that the caller is about to take in all: they are asked for together.
   * @returns Whether there is room.
   */
  async take(bytes: number, soon: number, signal: AbortSignal): Promise<boolean> {
    const isTaken = await this.#take(bytes, soon, signal);
    if (!isTaken) this.#refusedObjects++;
    else if (this.isBounded) this.#inFlight += bytes;
    return isTaken;
  }

  /** Gives back room for a file that was not written. */
  give(bytes: number): void {
    if (this.isBounded) this.#lease += bytes;
  }

  /** Notes that what was taken for a file is on disk, or was given back. */
  settled(bytes: number): void {
    if (this.isBounded) this.#inFlight -= bytes;
  }

  /**
   * Notes that a file of so many bytes on disk may have taken the place of another, whose room is
   * free then. To ask for each would cost every store; only a count tells.
   */
  mayHaveReplaced(bytes: number): void {
    if (this.isBounded) this.#replaced += bytes;
  }

  /** Notes that a file was written: the disk is not full. */
  succeeded(): void {
    this.#pause = undefined;
  }

  /** Notes that a file could not be written: if the disk is full, nothing is for a while. */
  failed(cause: unknown, bytes: number): void {
    if (!isFull(cause)) return;
    const ms = Math.min(2 * (this.#pause?.ms ?? FIRST_PAUSE_MS / 2), LAST_PAUSE_MS);
    const reason = cause instanceof Error ? cause.message : String(cause);
    this.#pause = { until: this.#options.clock.now() + ms, ms, reason };
    this.#room = undefined;
    // What others put on the disk may have taken the room that this cache counted on.
    if (this.isBounded && this.#state !== undefined) {
      this.#inBackground(this.#evict(Math.max(0, this.#state.used - 2 * bytes)));
    }
  }

  /** Notes that files which took so many bytes on disk are gone. */
  async credit(bytes: number): Promise<void> {
    if (!this.isBounded || bytes === 0) return;
    try {
      this.#state = await this.#options.ledger.update((state) =>
        state === undefined ? undefined : {
          ...state,
          used: Math.max(0, state.used - bytes),
          credited: state.credited + bytes,
        }
      );
    } catch (error) {
      this.#isTooHigh = true;
      throw error;
    }
  }

  /**
   * Counts what is there, unless some process has done so lately and no writer was killed since:
   * what such a one had taken in advance is still accounted for.
   */
  async recover(): Promise<void> {
    if (!this.isBounded) return;
    const state = this.#state = await this.#options.ledger.update((state) => state);
    // A count of the future was taken by a clock that was wrong.
    const countedAt = knownTime(state?.countedAt) ?? -Infinity;
    const isRecent = state !== undefined && Date.now() - countedAt < COUNT_MS;
    if (!isRecent || (await this.#deadWriters(state)).size > 0) await this.count();
    await this.#shrink();
  }

  /** Counts what is there, and corrects the account: writers that were killed leave it too high. */
  count(): Promise<void> {
    if (!this.isBounded) return Promise.resolve();
    return this.#counting ??= this.#count().finally(() => this.#counting = undefined);
  }

  /** Gives everything back that was taken in advance. */
  async close(): Promise<void> {
    await Promise.allSettled([this.#refilling, this.#counting, this.#evicting]);
    if (!this.isBounded || this.#state === undefined) return;
    const { ledger, tag } = this.#options;
    this.#state = await ledger.update((state) => {
      if (state === undefined) return undefined;
      const { [tag]: _, ...leases } = state.leases;
      const replaced = state.replaced + this.#replaced;
      return { ...state, leases, replaced, used: Math.max(0, state.used - this.#lease) };
    });
    this.#lease = 0;
    this.#replaced = 0;
  }

  /** State and counters. */
  reportStatus(): DiskSpaceStatus {
    const { capacityBytes, ledger } = this.#options;
    const used = this.#state?.used;
    const headroom = this.#room?.headroom ?? Infinity;
    const capacity = Math.min(capacityBytes, (used ?? 0) + headroom);
    return {
      usedBytes: used === undefined ? undefined : Math.max(0, used - this.#lease),
      capacityBytes: capacity < Infinity ? Math.max(0, capacity) : undefined,
      isShared: ledger.isShared,
      isCounting: this.#counting !== undefined,
      evictedObjects: this.#evictedObjects,
      evictedBytes: this.#evictedBytes,
      refusedObjects: this.#refusedObjects,
      pausedBy: this.#pause?.reason,
      models: this.#models,
    };
  }

  async #take(bytes: number, soon: number, signal: AbortSignal): Promise<boolean> {
    const pause = this.#pause;
    if (pause !== undefined) {
      if (this.#options.clock.now() < pause.until) return false;
      // This one finds out; the others wait for what it finds.
      this.#pause = { ...pause, until: this.#options.clock.now() + pause.ms };
    }
    if (!this.isBounded) return true;
    while (this.#lease < bytes) {
      if (signal.aborted) return false;
      if (this.#refilling !== undefined) {
        await this.#refilling;
      } else {
        const granted = this.#refill(bytes, soon, signal);
        this.#refilling = granted.then(() => {}).finally(() => this.#refilling = undefined);
        // Others that wait must not see the failure of this one as theirs.
        this.#refilling.catch(() => {});
        if (!(await granted)) return false;
      }
    }
    this.#lease -= bytes;
    return true;
  }

  /** Fills the lease up to at least `bytes`; whether that worked. */
  async #refill(bytes: number, soon: number, signal: AbortSignal): Promise<boolean> {
    const { ledger, tag, watermark } = this.#options;
    for (;;) {
      const headroom = await this.#headroom();
      let granted: { readonly bytes: number; readonly replaced: number } | undefined;
      let capacity = 0;
      const state = await ledger.update((state) => {
        if (state === undefined) return undefined;
        capacity = this.#capacity(state, headroom);
        const wanted = [Math.max(bytes, soon, this.#leaseBytes), bytes].map((lease) =>
          lease - this.#lease
        );
        const more = wanted.find((more) => state.used + more <= capacity);
        if (more === undefined) return state;
        granted = { bytes: more, replaced: this.#replaced };
        return {
          ...state,
          leases: { ...state.leases, [tag]: this.#lease + more + this.#inFlight },
          replaced: state.replaced + this.#replaced,
          used: state.used + more,
          granted: state.granted + more,
        };
      });
      this.#state = state;
      if (state === undefined) {
        await this.count();
        if (this.#state === undefined || signal.aborted) return false;
        continue;
      }
      const { high, low } = watermark ?? { high: Infinity, low: Infinity };
      if (granted !== undefined) {
        // Only now the account says so.
        this.#lease += granted.bytes;
        this.#replaced -= granted.replaced;
        if (state.used > high * capacity) this.#inBackground(this.#evict(low * capacity));
        return true;
      }
      if (bytes > capacity || signal.aborted) return false;
      if (watermark === undefined) {
        // What was replaced may be enough, which only a count tells.
        const isWorthACount = state.replaced + this.#replaced > 0;
        if (!isWorthACount || this.#options.signal.aborted) return false;
        await this.count();
        continue;
      }
      const target = Math.min(low * capacity, capacity - bytes);
      if (!(await this.#evict(target))) return false;
    }
  }

  get #leaseBytes(): number {
    const { capacityBytes } = this.#options;
    return Math.min(LARGEST_LEASE, Math.floor(capacityBytes * LEASE_SHARE));
  }

  #capacity(state: LedgerState, headroom: number): number {
    return Math.min(this.#options.capacityBytes, Math.max(0, state.used + headroom));
  }

  /** Bytes that may be added before the disk is too full; negative if it is. */
  async #headroom(): Promise<number> {
    const { files, paths, clock, diskHighWatermark, diskMinFreeBytes } = this.#options;
    if (diskHighWatermark === undefined && diskMinFreeBytes === undefined) return Infinity;
    if (this.#room !== undefined && clock.now() - this.#room.at < ROOM_MS) {
      return this.#room.headroom;
    }
    const { usedBytes, availableBytes } = await files.room(paths.basePath);
    const total = usedBytes + availableBytes;
    const headroom = Math.min(
      availableBytes - (diskMinFreeBytes ?? 0),
      (diskHighWatermark ?? 1) * total - usedBytes,
    );
    this.#room = { headroom, at: clock.now() };
    return headroom;
  }

  /** Removes objects if there are more than there should be: the bounds may have been wider. */
  async #shrink(): Promise<void> {
    const { watermark } = this.#options;
    if (this.#state === undefined || watermark === undefined) return;
    const capacity = this.#capacity(this.#state, await this.#headroom());
    if (this.#state.used > watermark.high * capacity) await this.#evict(watermark.low * capacity);
  }

  /** Removes objects until `used` is at most `target`; whether any went. */
  #evict(target: number): Promise<boolean> {
    return this.#evicting ??= this.#evictTo(target).finally(() => this.#evicting = undefined);
  }

  async #evictTo(target: number): Promise<boolean> {
    const { ledger, watermark, signal } = this.#options;
    if (watermark === undefined) return false;
    using lock = await this.#lockEviction();
    if (lock === undefined) return await this.#waitForOthers();
    await this.#options.noteUses();
    this.#state = await ledger.update((state) => state);
    let isAnyGone = false;
    let hasCounted = this.#isTooHigh;
    if (hasCounted) await this.count();
    for (let state = this.#state; state !== undefined && !signal.aborted; state = this.#state) {
      const { used } = state;
      if (used <= target) break;
      const replaced = state.replaced + this.#replaced;
      // What may have been replaced may be enough, which only a count tells.
      const victims = this.#oldest.take(used - replaced - target);
      if (victims.length > 0) {
        const freed = await this.#removeAll(victims);
        isAnyGone ||= freed > 0;
        await this.credit(freed);
      } else if (!hasCounted) {
        await this.count();
        hasCounted = true;
        isAnyGone ||= (this.#state?.used ?? used) < used;
      } else {
        break;
      }
    }
    this.#oldest.putBack();
    this.#room = undefined;
    return isAnyGone || (this.#state !== undefined && this.#state.used <= target);
  }

  async #lockEviction(): Promise<LockedFile | undefined> {
    const { files, evictionLock: { path, mode } } = this.#options;
    try {
      return await files.lock(path, { create: true, mode });
    } catch (error) {
      if (this.#options.ledger.isShared) throw error;
      return noLock;
    }
  }

  /** Waits until the process that removes objects is done. */
  async #waitForOthers(): Promise<boolean> {
    const { clock, signal } = this.#options;
    const giveUpAt = clock.now() + 5_000;
    while (clock.now() < giveUpAt && !signal.aborted) {
      await new Promise<void>((resolve) => clock.schedule(resolve, EVICTED_BY_OTHERS_MS));
      using lock = await this.#lockEviction();
      if (lock !== undefined) return true;
    }
    return false;
  }

  /** Removes those files that were not used meanwhile; returns the bytes that are free now. */
  async #removeAll(victims: readonly OldFile[]): Promise<number> {
    const { files, isLocked, onError, evicted } = this.#options;
    const keys: ObjectKey[] = [];
    let freed = 0;
    await Promise.all(victims.map(async (victim) => {
      try {
        if (isLocked(victim.path)) return this.#oldest.keep(victim);
        const info = await files.lstat(victim.path);
        if (!info.isFile || usedAtOf(info) !== victim.usedAt) return;
        const key = await evicted?.keyAt(victim.path, victim.size);
        if (isLocked(victim.path)) return this.#oldest.keep(victim);
        await files.remove(victim.path);
        if (key) keys.push(key);
        freed += Math.min(victim.diskBytes, diskBytesFor(victim.size));
        this.#evictedObjects++;
        this.#evictedBytes += victim.diskBytes;
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) onError(error);
      }
    }));
    if (keys.length > 0) evicted?.onEvicted(keys);
    return freed;
  }

  async #count(): Promise<void> {
    const { files, paths, ledger, tag, signal } = this.#options;
    // What is on disk by now is not promised any more.
    const before = await ledger.update((state) => {
      const leased = this.#lease + this.#inFlight;
      if (state === undefined || (state.leases[tag] ?? 0) === leased) return state;
      return { ...state, leases: { ...state.leases, [tag]: leased } };
    });
    const replaced = this.#replaced;
    const dead = await this.#deadWriters(before);
    let onDisk = await this.#options.abandonedBytes(dead, signal);
    const models = new ModelTally();
    this.#oldest.clear();
    for await (const batch of walkObjects(files, paths, signal)) {
      for (const file of batch) {
        onDisk += file.diskBytes;
        this.#oldest.offer(file);
        if (typeof file.object !== "string") models.add(file.object.key.model, file);
      }
    }
    if (signal.aborted) return;
    this.#isTooHigh = false;
    this.#oldest.sort();
    this.#models = models.usages();
    this.#state = await ledger.update((state) => reconcile(state, before, onDisk, dead));
    this.#replaced = Math.max(0, this.#replaced - replaced);
  }

  async #deadWriters(state: LedgerState | undefined): Promise<ReadonlySet<string>> {
    const dead = new Set<string>();
    for (const tag of Object.keys(state?.leases ?? {})) {
      if (await this.#options.isAlive(tag) !== true) dead.add(tag);
    }
    return dead;
  }

  #inBackground(work: Promise<unknown>): void {
    work.catch((error: unknown) => this.#options.onError(error));
  }
}

/**
 * The account after a count that began at `before` and found `onDisk` bytes. What was written or
 * removed during the count may or may not have been seen: the account is only moved as far as that
 * is certain.
 */
function reconcile(
  now: LedgerState | undefined,
  before: LedgerState | undefined,
  onDisk: number,
  dead: ReadonlySet<string>,
): LedgerState {
  const countedAt = Date.now();
  if (now === undefined) {
    return { used: onDisk, granted: 0, credited: 0, replaced: 0, leases: {}, countedAt };
  }
  const living = Object.entries(now.leases).filter(([tag]) => !dead.has(tag));
  const leases = Object.fromEntries(living);
  const livingBefore = before === undefined ? 0 : leasedBytes({
    ...before,
    leases: Object.fromEntries(Object.entries(before.leases).filter(([tag]) => !dead.has(tag))),
  });
  const granted = now.granted - (before?.granted ?? 0);
  const credited = now.credited - (before?.credited ?? 0);
  const most = onDisk + livingBefore + granted;
  const least = onDisk - credited;
  const used = now.used < least ? most : Math.min(now.used, most);
  const replaced = Math.max(0, now.replaced - (before?.replaced ?? 0));
  return { ...now, leases, used, replaced, countedAt };
}

class ModelTally {
  readonly #models = new Map<string, { objects: number; diskBytes: number; usedAt: number }>();

  add(model: string, { diskBytes, usedAt }: ObjectFile): void {
    const tally = this.#models.get(model);
    if (tally === undefined) {
      this.#models.set(model, { objects: 1, diskBytes, usedAt });
    } else {
      tally.objects++;
      tally.diskBytes += diskBytes;
      tally.usedAt = Math.max(tally.usedAt, usedAt);
    }
  }

  usages(): ModelUsage[] {
    const tallies = [...this.#models].sort(([, a], [, b]) => a.usedAt - b.usedAt);
    return tallies.map(([model, { usedAt, ...tally }]) => ({
      model,
      ...tally,
      usedAt: new Date(usedAt).toISOString(),
    }));
  }
}

const noLock: LockedFile = {
  read: () => Promise.resolve(new Uint8Array()),
  write: () => Promise.resolve(),
  [Symbol.dispose]: () => {},
};
