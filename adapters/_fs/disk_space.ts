import { type Clock, wait } from "../../src/l2/adapter.ts";
import { errnoOf, isFull } from "../_shared/errno.ts";
import { knownTime } from "../_shared/file_info.ts";
import type { ModelUsage } from "./directory_count.ts";
import { DiskHeadroom, type HeadroomBounds } from "./disk_headroom.ts";
import type { EvictorOptions } from "./evictor.ts";
import type { FileSystem } from "./file_system.ts";
import { isContinued, type LedgerState, reconcile } from "./ledger_state.ts";
import type { ObjectPaths } from "./object_paths.ts";
import { ObjectRemoval } from "./object_removal.ts";
import { LedgerHeldError, type UsageLedger } from "./usage_ledger.ts";
import type { Turnover } from "./use_times.ts";
import { WriterAccount } from "./writer_account.ts";

/** Part of the capacity that a writer takes in advance, so that it need not ask for each object. */
const LEASE_SHARE = 1 / 512;
const LARGEST_LEASE = 2 ** 26;
/** Time after which a reader looks again how much others have stored, in milliseconds. */
const TURNOVER_MS = 1_000;
/** Pause after a disk was found full, in milliseconds; it doubles each time. */
const FIRST_PAUSE_MS = 500;
/** Time for which a refusal counts as a problem, in milliseconds. */
const REFUSED_MS = 60_000;
const LAST_PAUSE_MS = 30_000;
/** Time after which the directory is counted again, in milliseconds. */
const COUNT_MS = 3_600_000;
/** Time for which a store waits for a count that may show that files were replaced. */
const REPLACED_PATIENCE_MS = 1_000;
/** Time for which a store waits for the first count of a directory, in milliseconds. */
const COUNT_PATIENCE_MS = 100;

/** What bounds a directory. */
export interface DiskBounds extends HeadroomBounds {
  /** Most bytes that its objects take on disk. @default {Infinity} */
  readonly capacityBytes: number;
  /** Share of the capacity above which objects are removed, and share that is left then. */
  readonly watermark?: { readonly high: number; readonly low: number };
}

/** How {@linkcode DiskSpace} is set up. */
export interface DiskSpaceOptions extends DiskBounds {
  /** The file operations. */
  readonly files: FileSystem;
  /** Where the objects lie. */
  readonly paths: ObjectPaths;
  /** The account that all processes share. */
  readonly ledger: UsageLedger;
  /** File on which the process that removes objects has a lock. */
  readonly evictionLock: { readonly path: string; readonly mode: number };
  /** Names this writer in the account. */
  readonly tag: string;
  /** Tags of writers that may live. */
  readonly writers: () => Promise<readonly string[]>;
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
  readonly evicted?: NonNullable<EvictorOptions["evicted"]>;
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

/**
 * Room on disk for objects: asked for before a write, so that the capacity is never passed,
 * whichever processes share the directory. The least recently used objects of all of them leave
 * first.
 */
export class DiskSpace {
  readonly #options: DiskSpaceOptions;
  readonly #account: WriterAccount;
  readonly #removal: ObjectRemoval;
  readonly #headroom: DiskHeadroom;
  /** What others do not know yet of what may have been replaced. */
  #replaced = 0;
  #refilling: Promise<void> | undefined;
  #counting: Promise<void> | undefined;
  #evicting: Promise<boolean> | undefined;
  #giving: Promise<void> | undefined;
  #looking: Promise<void> | undefined;
  /** Bytes used at which the eviction that goes on ends. */
  #target = Infinity;
  /** Bytes used at which there is room for the store that waits for it, and since when it does. */
  #urgentTarget = Infinity;
  #urgentSince = 0;
  #roomMade = Promise.withResolvers<void>();
  #pause: { readonly until: number; readonly ms: number; readonly reason: string } | undefined;
  #refusedObjects = 0;
  #refusedAt = -Infinity;

  /** The room in `paths`. */
  constructor(options: DiskSpaceOptions) {
    this.#options = options;
    const { evictionLock: lock, paths: { basePath: path } } = options;
    this.#account = new WriterAccount(options);
    this.#headroom = new DiskHeadroom({ ...options, path });
    this.#removal = new ObjectRemoval({
      ...options,
      lock,
      account: () => this.account,
      counting: () => this.#counting,
    });
  }

  /** Whether anything bounds the directory. */
  get isBounded(): boolean {
    const { capacityBytes, diskHighWatermark, diskMinFreeBytes } = this.#options;
    return capacityBytes < Infinity || diskHighWatermark !== undefined ||
      diskMinFreeBytes !== undefined;
  }

  /** Names the account as this writer knows it: see {@linkcode credit}. */
  get account(): string | undefined {
    return this.#account.state?.id;
  }

  /** How fast the directory turns over, as far as this process knows. */
  turnover(): Turnover {
    const { capacityBytes, signal } = this.#options;
    if (this.#account.storedAgeMs >= TURNOVER_MS && !signal.aborted) {
      this.#looking ??= this.#account.look().finally(() => this.#looking = undefined);
    }
    // Where only the disk bounds the objects, all of them are another when as much was stored.
    const held = this.#account.state?.used || Infinity;
    return {
      storedBytes: this.#account.storedBytes,
      capacityBytes: Math.min(capacityBytes, held),
    };
  }

  /**
   * Makes the files that removing objects needs, so that they are there when the disk is full.
   *
   * @throws If they cannot be made.
   */
  async prepare(): Promise<void> {
    if (this.isBounded && this.#options.watermark !== undefined) {
      await this.#removal.evictor.prepare();
    }
  }

  /** Takes room for a file if that needs no waiting. */
  tryTake(bytes: number): boolean {
    if (this.#pause !== undefined) return false;
    return !this.isBounded || this.#account.tryTake(bytes);
  }

  /**
   * Takes room for a file, removing other objects if need be.
   *
   * @param soon Bytes that the caller is about to take in all: they are asked for together.
   * @returns Whether there is room.
   */
  async take(bytes: number, soon: number, signal: AbortSignal): Promise<boolean> {
    const isTaken = await this.#take(bytes, soon, signal);
    if (!isTaken && !signal.aborted) {
      this.#refusedObjects++;
      this.#refusedAt = this.#options.clock.now();
    }
    return isTaken;
  }

  /** Gives back room for a file that was not written. */
  give(bytes: number): void {
    if (this.isBounded) this.#account.give(bytes);
  }

  /** Notes that what was taken for a file is on disk, or was given back. */
  settled(bytes: number): void {
    if (this.isBounded) this.#account.settled(bytes);
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
    this.#headroom.forget();
    // A file that is too large for the file system needs no room.
    if (!this.isBounded || errnoOf(cause) === "EFBIG") return;
    // What others put on the disk may have taken the room that this cache counted on.
    this.#giving ??= this.#giveWay(bytes).finally(() => this.#giving = undefined);
    this.#inBackground(this.#giving);
  }

  /**
   * Notes that files which took so many bytes on disk are gone.
   *
   * @param account Its name before they were removed: one that was made since does not have them.
   */
  async credit(bytes: number, account: string | undefined): Promise<void> {
    if (this.isBounded && bytes > 0) await this.#account.credit(bytes, account);
  }

  /**
   * Counts what is there, unless some process has done so lately and no writer was killed since:
   * what such a one had taken in advance is still accounted for.
   */
  async recover(): Promise<void> {
    if (!this.isBounded) return;
    const state = await this.#account.contact();
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
    const work = [this.#refilling, this.#counting, this.#evicting, this.#giving, this.#looking];
    await Promise.allSettled(work);
    await this.#removal.directory.idle();
    const hasNothing = this.#account.state === undefined && this.#account.entered === 0;
    if (!this.isBounded || hasNothing) return;
    await this.#account.close(this.#replaced);
    this.#replaced = 0;
  }

  /** State and counters. */
  reportStatus(): DiskSpaceStatus {
    const { capacityBytes, ledger } = this.#options;
    const used = this.#account.state?.used;
    const capacity = Math.min(capacityBytes, this.#headroom.mostUsed);
    const { objects, bytes } = this.#removal.evictor.removed;
    return {
      usedBytes: used === undefined ? undefined : Math.max(0, used - this.#account.lease),
      capacityBytes: capacity < Infinity ? capacity : undefined,
      isShared: ledger.isShared,
      isCounting: this.#removal.directory.isWalking,
      evictedObjects: objects,
      evictedBytes: bytes,
      refusedObjects: this.#refusedObjects,
      pausedBy: this.#pause?.reason,
      models: this.#removal.directory.totals?.models ?? [],
    };
  }

  /** What does not work, in words. */
  problems(): string[] {
    const { ledger, evictionLock: { path } } = this.#options;
    const isFull = this.#options.clock.now() - this.#refusedAt < REFUSED_MS;
    const held = "cannot be locked: another process keeps its lock, and may have been stopped";
    return [
      ...(ledger.isHeld ? [`${ledger.path} ${held}`] : []),
      ...(this.#removal.evictor.isHeld ? [`${path} ${held}`] : []),
      ...(isFull ? [this.#fullness()] : []),
    ];
  }

  /** Why objects were refused, and what helps. */
  #fullness(): string {
    const reason = this.#pause?.reason ?? "the capacity or the disk is used up";
    const { watermark } = this.#options;
    const remedy = watermark === undefined
      ? "let eviction.eviction_policy be LRU, raise max_capacity_gb, or free the disk"
      : "raise max_capacity_gb, or free the disk";
    return `objects are refused for want of room (${reason}): ${remedy}`;
  }

  async #take(bytes: number, soon: number, signal: AbortSignal): Promise<boolean> {
    const pause = this.#pause;
    if (pause !== undefined) {
      if (this.#options.clock.now() < pause.until) return false;
      // This one finds out; the others wait for what it finds.
      this.#pause = { ...pause, until: this.#options.clock.now() + pause.ms };
    }
    if (!this.isBounded) return true;
    while (!this.#account.tryTake(bytes)) {
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
    return true;
  }

  /** Fills the lease up to at least `bytes`; whether that worked. */
  async #refill(bytes: number, soon: number, signal: AbortSignal): Promise<boolean> {
    const { ledger, watermark } = this.#options;
    if (this.#account.state === undefined && !ledger.isHeld) await this.#know();
    while (!signal.aborted && !this.#options.signal.aborted) {
      const capacity = await this.#capacity();
      let granted: { readonly bytes: number; readonly replaced: number } | undefined;
      let state: LedgerState | undefined;
      try {
        state = await this.#account.contact((state) => {
          const more = [Math.max(bytes, soon, leaseBytesOf(capacity)), bytes]
            .map((lease) => lease - this.#account.lease)
            .find((more) => state.used + more <= capacity);
          if (more === undefined) return state;
          granted = { bytes: more, replaced: this.#replaced };
          return {
            ...this.#account.renewed(state, more),
            replaced: state.replaced + this.#replaced,
            used: state.used + more,
            granted: state.granted + more,
          };
        });
      } catch (error) {
        if (!(error instanceof LedgerHeldError)) throw error;
        return await this.#goOnAlone(error, bytes, soon, capacity, signal);
      }
      if (state === undefined) {
        if (await this.#isCountedSoon()) continue;
        const isUnknown = (): boolean => this.#account.state === undefined;
        if (await this.#trade(bytes, soon, signal, isUnknown)) return true;
        if (isUnknown()) return false;
        continue;
      }
      if (this.#account.isDoubtful) this.#inBackground(this.count());
      const { high, low } = watermark ?? { high: Infinity, low: Infinity };
      if (granted !== undefined) {
        // Only now the account says so.
        this.#account.grant(granted.bytes);
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
      this.#urgentTarget = capacity - (bytes - this.#account.lease);
      this.#urgentSince = this.#options.clock.now();
      try {
        const evicted = this.#evict(Math.min(low * capacity, this.#urgentTarget));
        const isMade = this.#roomMade.promise.then(() => true);
        if (!(await Promise.race([evicted, isMade])) && !ledger.isHeld) return false;
      } finally {
        this.#urgentTarget = Infinity;
      }
    }
    return false;
  }

  /** Finds room while others hold the account: within what nobody else can be given, or by trade. */
  async #goOnAlone(
    error: LedgerHeldError,
    bytes: number,
    soon: number,
    capacity: number,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { ledger, watermark } = this.#options;
    if (await this.#account.tryExtend(bytes, capacity)) return true;
    if (watermark === undefined) throw error;
    return await this.#trade(bytes, soon, signal, () => ledger.isHeld);
  }

  /**
   * Removes as much as is about to be written: then the directory does not grow, whatever the
   * account says.
   *
   * @param isNeeded Whether the account still cannot be asked.
   */
  async #trade(
    bytes: number,
    soon: number,
    signal: AbortSignal,
    isNeeded: () => boolean,
  ): Promise<boolean> {
    const { account } = this;
    const all = Math.max(bytes, soon);
    let freed = 0;
    await this.#removal.run({
      wanted: () => freed < all && isNeeded() && !signal.aborted ? all - freed : undefined,
      isUrgent: () => true,
      removed: (removed) => Promise.resolve(void (freed += removed.bytes)),
      walk: () => this.#removal.directory.walk(),
    });
    this.#account.owe(freed, account);
    this.#account.extend(freed);
    return freed >= bytes;
  }

  /** Removes a real share of the objects: the disk is full, of bytes or of files. */
  async #giveWay(bytes: number): Promise<void> {
    const { watermark } = this.#options;
    if (watermark === undefined) return;
    await this.#removal.giveWay({
      share: watermark.high - watermark.low,
      leastBytes: 2 * bytes,
      used: this.#account.state?.used,
      // The account may need the room that is made here; until then it is too high.
      removed: (removed, account) => this.credit(removed.bytes, account).catch(() => {}),
    });
    this.#headroom.forget();
  }

  /** Most bytes that objects may take now: by the capacity, and by the disk once it is known. */
  async #capacity(): Promise<number> {
    const { capacityBytes } = this.#options;
    const { state, used, held } = this.#account;
    if (state === undefined) return capacityBytes;
    return Math.min(capacityBytes, await this.#headroom.measure(Math.max(0, used - held)));
  }

  /** Removes objects if there are more than there should be: the bounds may have been wider. */
  async #shrink(): Promise<void> {
    const { watermark } = this.#options;
    const { state } = this.#account;
    if (state === undefined || watermark === undefined) return;
    const capacity = await this.#capacity();
    if (state.used > watermark.high * capacity) await this.#evict(watermark.low * capacity);
  }

  /** Removes objects until `used` is at most `target`; whether any went. */
  #evict(target: number): Promise<boolean> {
    this.#target = Math.min(this.#target, target);
    return this.#evicting ??= this.#evictToTarget().finally(() => {
      this.#evicting = undefined;
      this.#target = Infinity;
    });
  }

  async #evictToTarget(): Promise<boolean> {
    const { watermark, clock, signal } = this.#options;
    if (watermark === undefined) return false;
    const account = this.#account;
    const isEnough = (used: number): boolean =>
      used <= (this.#urgentTarget < Infinity ? this.#urgentTarget : this.#target);
    using lock = await this.#removal.evictor.lock(isEnough);
    if (lock === undefined) return !signal.aborted;
    const { used = 0 } = await account.contact() ?? {};
    if (account.isDoubtful) this.#inBackground(this.count());
    // What may have been replaced may be enough, which only a count tells.
    const replaced = (): number => (account.state?.replaced ?? 0) + this.#replaced;
    const isUrgent = (): boolean => {
      const patienceMs = replaced() > 0 ? REPLACED_PATIENCE_MS : 0;
      return account.used > this.#urgentTarget &&
        clock.now() - this.#urgentSince >= patienceMs;
    };
    let isAnyGone = false;
    await this.#removal.run({
      wanted: () => {
        if (account.used <= this.#urgentTarget) this.#tellRoom();
        if (account.used <= this.#target) return undefined;
        if (isUrgent() && this.#removal.isBusy) return account.used - this.#urgentTarget;
        return account.used - replaced() - this.#target;
      },
      isUrgent,
      removed: async ({ bytes }, name) => {
        isAnyGone ||= bytes > 0;
        await this.credit(bytes, name);
      },
      walk: () => this.count(),
    });
    this.#headroom.forget();
    return isAnyGone || account.used < used || account.used <= this.#target;
  }

  #tellRoom(): void {
    this.#roomMade.resolve();
    this.#roomMade = Promise.withResolvers();
  }

  /** Looks at the account, so that what the disk says can be compared with it. */
  async #know(): Promise<void> {
    await this.#account.contact().catch((error: unknown) => {
      if (!(error instanceof LedgerHeldError)) throw error;
    });
  }

  /** Waits for the count of a directory that has no account, but not long; whether it has one. */
  async #isCountedSoon(): Promise<boolean> {
    const { clock, watermark } = this.#options;
    const counting = this.count();
    // Without eviction nothing can be done before.
    if (watermark === undefined) await counting;
    else {
      const over = new AbortController();
      await Promise.race([counting, wait(clock, COUNT_PATIENCE_MS, over.signal)])
        .finally(() => over.abort());
    }
    return this.#account.state !== undefined;
  }

  async #count(): Promise<void> {
    const account = this.#account;
    // What is on disk by now is not promised any more.
    const before = await account.contact((state) => account.renewed(state));
    const { written } = account;
    const replaced = this.#replaced;
    const dead = await this.#deadWriters(before);
    const totals = await this.#removal.directory.walk();
    const abandoned = await this.#options.abandonedBytes(dead, this.#options.signal);
    if (totals === undefined) return;
    const onDisk = abandoned + totals.diskBytes;
    const others = before === undefined ? await this.#livingWriters() : {};
    let isCorrected = false;
    await account.contact(
      (state) => {
        isCorrected = before === undefined || isContinued(before, state);
        return reconcile(state, { before, onDisk, dead, isDoubtful: account.isDoubtful });
      },
      () => account.created({ onDisk, written, others }),
    );
    this.#replaced = Math.max(0, this.#replaced - replaced);
    if (isCorrected) account.corrected();
  }

  /** Writers that live, with what each may have taken in advance from an account that is lost. */
  async #livingWriters(): Promise<Record<string, number>> {
    const { writers, tag, isAlive } = this.#options;
    // Theirs are not known, but alike as a rule.
    const lease = Math.max(leaseBytesOf(this.#options.capacityBytes), this.#account.mostEntered);
    const leases: Record<string, number> = {};
    for (const other of await writers()) {
      if (other !== tag && await isAlive(other) === true) leases[other] = lease;
    }
    return leases;
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

function leaseBytesOf(capacityBytes: number): number {
  return Math.min(LARGEST_LEASE, Math.floor(capacityBytes * LEASE_SHARE));
}
