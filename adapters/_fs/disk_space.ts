import { Backoff, type BackoffLimits } from "../../src/base/backoff.ts";
import { within } from "../../src/base/clock.ts";
import { AccountCount } from "./account_count.ts";
import { errnoOf, isFull, messageOf } from "../_shared/errno.ts";
import { knownTime } from "../_shared/file_info.ts";
import { DiskHeadroom } from "./disk_headroom.ts";
import type { DiskSpaceOptions, DiskSpaceStatus } from "./disk_space_options.ts";
import type { LedgerState } from "./ledger_state.ts";
import { ObjectRemoval } from "./object_removal.ts";
import { LedgerHeldError } from "./usage_ledger.ts";
import type { Turnover } from "./use_times.ts";
import { leaseBytesOf, WriterAccount } from "./writer_account.ts";

/** Time after which the bytes stored by other processes are read again, in milliseconds. */
const TURNOVER_MS = 1_000;
/** Pauses of stores after the disk was found full. */
const PAUSES: BackoffLimits = { firstMs: 500, maxMs: 30_000 };
/** Time for which a refused object counts as a problem, in milliseconds. */
const REFUSED_MS = 60_000;
/** Age after which the directory is counted again, in milliseconds. */
const COUNT_MS = 3_600_000;
/** Max wait of a store for a count that may show replaced files, in milliseconds. */
const REPLACED_PATIENCE_MS = 1_000;
/** Max wait of a store for the first count of a directory, in milliseconds. */
const COUNT_PATIENCE_MS = 100;

/**
 * Space on disk for objects. It is reserved before a write, so that the capacity is never exceeded,
 * whichever processes share the directory. Evicts the least recently used objects of all processes.
 */
export class DiskSpace {
  readonly #options: DiskSpaceOptions;
  readonly #account: WriterAccount;
  readonly #removal: ObjectRemoval;
  readonly #count: AccountCount;
  readonly #headroom: DiskHeadroom;
  #refilling: Promise<void> | undefined;
  #counting: Promise<void> | undefined;
  #evicting: Promise<boolean> | undefined;
  #freeing: Promise<void> | undefined;
  #refreshing: Promise<void> | undefined;
  /** The running eviction stops at this many used bytes. */
  #target = Infinity;
  /** Used bytes that a waiting store needs, and since when it has waited. */
  #urgentTarget = Infinity;
  #urgentSinceMs = 0;
  #roomMade = Promise.withResolvers<void>();
  readonly #pauses = new Backoff(PAUSES);
  #pause: { readonly until: number; readonly ms: number; readonly reason: string } | undefined;
  #refusedObjects = 0;
  #refusedAt = -Infinity;

  constructor(options: DiskSpaceOptions) {
    this.#options = options;
    const { evictionLock: lock, paths: { basePath: path } } = options;
    this.#account = new WriterAccount(options);
    this.#headroom = new DiskHeadroom({ ...options, path });
    this.#removal = new ObjectRemoval({
      ...options,
      lock,
      ledgerId: () => this.ledgerId,
      counting: () => this.#counting,
    });
    this.#count = new AccountCount(options, this.#account, this.#removal.directory);
  }

  /** Whether the directory has any limit. */
  get isBounded(): boolean {
    const { capacityBytes, diskHighWatermark, diskMinFreeBytes } = this.#options;
    return capacityBytes < Infinity || diskHighWatermark !== undefined ||
      diskMinFreeBytes !== undefined;
  }

  /** Id of the ledger as this writer knows it: see {@linkcode credit}. */
  get ledgerId(): string | undefined {
    return this.#account.state?.id;
  }

  /** How fast the directory's contents are replaced, as far as this process knows. */
  turnover(): Turnover {
    const { capacityBytes, signal } = this.#options;
    if (this.#account.storedAgeMs >= TURNOVER_MS && !signal.aborted) {
      this.#refreshing ??= this.#account.refreshStored().finally(() =>
        this.#refreshing = undefined
      );
    }
    // Without a capacity, the contents are replaced once as many bytes as are used were stored.
    const used = this.#account.state?.used || Infinity;
    return {
      storedBytes: this.#account.storedBytes,
      capacityBytes: Math.min(capacityBytes, used),
    };
  }

  /**
   * Creates the files that evictions need, so that they exist when the disk is full.
   *
   * @throws If they cannot be created.
   */
  async prepare(): Promise<void> {
    if (this.isBounded && this.#options.watermark !== undefined) {
      await this.#removal.evictor.prepare();
    }
  }

  /** Reserves space for a file if that needs no waiting. */
  tryReserve(bytes: number): boolean {
    if (this.#pause !== undefined) return false;
    return !this.isBounded || this.#account.tryReserve(bytes);
  }

  /**
   * Reserves space for a file, evicting other objects if needed.
   *
   * @param batchBytes Total bytes that the caller will reserve; they are leased together.
   * @returns Whether the space was reserved.
   */
  async reserve(bytes: number, batchBytes: number, signal: AbortSignal): Promise<boolean> {
    const isTaken = await this.#reserve(bytes, batchBytes, signal);
    if (!isTaken && !signal.aborted) {
      this.#refusedObjects++;
      this.#refusedAt = this.#options.clock.now();
    }
    return isTaken;
  }

  /** Releases the space of a file that was not written. */
  release(bytes: number): void {
    if (this.isBounded) this.#account.release(bytes);
  }

  /** Ends a reservation: its bytes are on disk now, or were released. */
  settled(bytes: number): void {
    if (this.isBounded) this.#account.settled(bytes);
  }

  /**
   * Records that a file of this many bytes on disk may have replaced another, which freed space.
   * Checking would slow down each store; a count finds out.
   */
  noteReplaced(bytes: number): void {
    if (this.isBounded) this.#account.replaced += bytes;
  }

  /** Records a successful write: the disk is not full. */
  succeeded(): void {
    this.#pause = undefined;
    this.#pauses.reset();
  }

  /** Records a failed write. If the disk is full, stores pause and objects are evicted. */
  failed(cause: unknown, bytes: number): void {
    if (!isFull(cause)) return;
    const ms = this.#pauses.next();
    const reason = messageOf(cause);
    this.#pause = { until: this.#options.clock.now() + ms, ms, reason };
    this.#headroom.forget();
    // A file above the file system's size limit needs no eviction.
    if (!this.isBounded || errnoOf(cause) === "EFBIG") return;
    // Other programs may have used the space that this cache counted on.
    this.#freeing ??= this.#freeShare(bytes).finally(() => this.#freeing = undefined);
    this.#inBackground(this.#freeing);
  }

  /**
   * Records that files with this many bytes on disk were removed.
   *
   * @param ledgerId Id of the ledger before the removal; a ledger created since does not contain
   * them.
   */
  async credit(bytes: number, ledgerId: string | undefined): Promise<void> {
    if (this.isBounded && bytes > 0) await this.#account.credit(bytes, ledgerId);
  }

  /**
   * Counts the directory, unless a process did so recently and no writer was killed since: the
   * lease of a killed writer still counts as used.
   */
  async recover(): Promise<void> {
    if (!this.isBounded) return;
    const state = await this.#account.update();
    // A time in the future comes from a wrong clock.
    const countedAt = knownTime(state?.countedAt) ?? -Infinity;
    const isRecent = state !== undefined && Date.now() - countedAt < COUNT_MS;
    if (!isRecent || (await this.#count.deadWriters(state)).size > 0) await this.count();
    await this.#shrink();
  }

  /** Counts the directory and corrects the ledger, which is too high after a writer was killed. */
  count(): Promise<void> {
    if (!this.isBounded) return Promise.resolve();
    return this.#counting ??= this.#count.run().finally(() => this.#counting = undefined);
  }

  /** Returns the unused lease. */
  async close(): Promise<void> {
    const work = [this.#refilling, this.#counting, this.#evicting, this.#freeing, this.#refreshing];
    await Promise.allSettled(work);
    await this.#removal.directory.idle();
    const hasNothing = this.#account.state === undefined && this.#account.recorded === 0;
    if (!this.isBounded || hasNothing) return;
    await this.#account.close();
  }

  reportStatus(): DiskSpaceStatus {
    const { capacityBytes, ledger } = this.#options;
    const used = this.#account.state?.used;
    const capacity = Math.min(capacityBytes, this.#headroom.maxUsedBytes);
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

  /** Describes what does not work. */
  problems(): string[] {
    const { ledger, evictionLock: { path } } = this.#options;
    const isFull = this.#options.clock.now() - this.#refusedAt < REFUSED_MS;
    const hint = "cannot be locked: another process keeps its lock, and may be suspended";
    return [
      ...(ledger.isHeld ? [`${ledger.path} ${hint}`] : []),
      ...(this.#removal.evictor.isHeld ? [`${path} ${hint}`] : []),
      ...(isFull ? [this.#fullness()] : []),
    ];
  }

  /** Explains why objects are refused, and what helps. */
  #fullness(): string {
    const reason = this.#pause?.reason ?? "the capacity or the disk is used up";
    const { watermark } = this.#options;
    const remedy = watermark === undefined
      ? "set eviction.eviction_policy to LRU, raise max_capacity_gb, or free the disk"
      : "raise max_capacity_gb, or free the disk";
    return `objects are refused because there is no room (${reason}): ${remedy}`;
  }

  async #reserve(bytes: number, batchBytes: number, signal: AbortSignal): Promise<boolean> {
    const pause = this.#pause;
    if (pause !== undefined) {
      if (this.#options.clock.now() < pause.until) return false;
      // This store tests the disk; the others wait for its result.
      this.#pause = { ...pause, until: this.#options.clock.now() + pause.ms };
    }
    if (!this.isBounded) return true;
    while (!this.#account.tryReserve(bytes)) {
      if (signal.aborted) return false;
      if (this.#refilling !== undefined) {
        await this.#refilling;
      } else {
        const granted = this.#refill(bytes, batchBytes, signal);
        this.#refilling = granted.then(() => {}).finally(() => this.#refilling = undefined);
        // Waiting stores must not fail with the error of this one.
        this.#refilling.catch(() => {});
        if (!(await granted)) return false;
      }
    }
    return true;
  }

  /** Extends the lease to at least `bytes`; resolves to whether that worked. */
  async #refill(bytes: number, batchBytes: number, signal: AbortSignal): Promise<boolean> {
    const { ledger, watermark } = this.#options;
    if (this.#account.state === undefined && !ledger.isHeld) await this.#readAccount();
    while (!signal.aborted && !this.#options.signal.aborted) {
      const capacity = await this.#capacity();
      let granted: { readonly bytes: number; readonly replaced: number } | undefined;
      let state: LedgerState | undefined;
      try {
        state = await this.#account.update((state) => {
          const more = [Math.max(bytes, batchBytes, leaseBytesOf(capacity)), bytes]
            .map((lease) => lease - this.#account.lease)
            .find((more) => state.used + more <= capacity);
          if (more === undefined) return state;
          granted = { bytes: more, replaced: this.#account.replaced };
          return {
            ...this.#account.renewed(state, more),
            replaced: state.replaced + this.#account.replaced,
            used: state.used + more,
            granted: state.granted + more,
          };
        });
      } catch (error) {
        if (!(error instanceof LedgerHeldError)) throw error;
        return await this.#reserveAlone(error, bytes, batchBytes, capacity, signal);
      }
      if (state === undefined) {
        if (await this.#isCountedSoon()) continue;
        const isUnknown = (): boolean => this.#account.state === undefined;
        if (await this.#evictAsMuch(bytes, batchBytes, signal, isUnknown)) return true;
        if (isUnknown()) return false;
        continue;
      }
      if (this.#account.needsCount) this.#inBackground(this.count());
      const { high, low } = watermark ?? { high: Infinity, low: Infinity };
      if (granted !== undefined) {
        // Added only once the ledger contains the grant.
        this.#account.grant(granted.bytes);
        this.#account.replaced -= granted.replaced;
        if (state.used > high * capacity) this.#inBackground(this.#evict(low * capacity));
        return true;
      }
      if (bytes > capacity || signal.aborted) return false;
      if (watermark === undefined) {
        // Replaced files may have freed enough, which only a count shows.
        const isWorthACount = state.replaced + this.#account.replaced > 0;
        if (!isWorthACount || this.#options.signal.aborted) return false;
        await this.count();
        continue;
      }
      this.#urgentTarget = capacity - (bytes - this.#account.lease);
      this.#urgentSinceMs = this.#options.clock.now();
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

  /**
   * Finds space while other processes hold the ledger: within the space reserved for that case, or
   * by evicting as much as is stored.
   */
  async #reserveAlone(
    error: LedgerHeldError,
    bytes: number,
    batchBytes: number,
    capacity: number,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { ledger, watermark } = this.#options;
    if (await this.#account.tryExtend(bytes, capacity)) return true;
    if (watermark === undefined) throw error;
    return await this.#evictAsMuch(bytes, batchBytes, signal, () => ledger.isHeld);
  }

  /**
   * Evicts as many bytes as are about to be written, so that the directory does not grow, whatever
   * the ledger contains.
   *
   * @param isNeeded Whether the ledger is still unavailable.
   */
  async #evictAsMuch(
    bytes: number,
    batchBytes: number,
    signal: AbortSignal,
    isNeeded: () => boolean,
  ): Promise<boolean> {
    const { ledgerId } = this;
    const all = Math.max(bytes, batchBytes);
    let freed = 0;
    await this.#removal.run({
      wanted: () => freed < all && isNeeded() && !signal.aborted ? all - freed : undefined,
      isUrgent: () => true,
      removed: (removed) => Promise.resolve(void (freed += removed.bytes)),
      walk: () => this.#removal.directory.walk(),
    });
    this.#account.deferCredit(freed, ledgerId);
    this.#account.extend(freed);
    return freed >= bytes;
  }

  /** Evicts a share of the objects, because the disk is out of bytes or inodes. */
  async #freeShare(bytes: number): Promise<void> {
    const { watermark } = this.#options;
    if (watermark === undefined) return;
    await this.#removal.freeShare({
      share: watermark.high - watermark.low,
      leastBytes: 2 * bytes,
      used: this.#account.state?.used,
      // Evicting may be what lets the ledger be written; until then its total is too high.
      removed: (removed, ledgerId) => this.credit(removed.bytes, ledgerId).catch(() => {}),
    });
    this.#headroom.forget();
  }

  /** Current max bytes of objects: the capacity, and the limit of the disk once it is measured. */
  async #capacity(): Promise<number> {
    const { capacityBytes } = this.#options;
    const { state, used, held } = this.#account;
    if (state === undefined) return capacityBytes;
    return Math.min(capacityBytes, await this.#headroom.measure(Math.max(0, used - held)));
  }

  /** Evicts at start if the limits were higher before. */
  async #shrink(): Promise<void> {
    const { watermark } = this.#options;
    const { state } = this.#account;
    if (state === undefined || watermark === undefined) return;
    const capacity = await this.#capacity();
    if (state.used > watermark.high * capacity) await this.#evict(watermark.low * capacity);
  }

  /** Evicts until at most `target` bytes are used; resolves to whether anything was evicted. */
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
    const { used = 0 } = await account.update() ?? {};
    if (account.needsCount) this.#inBackground(this.count());
    // Replaced files may have freed enough, which only a count shows.
    const replaced = (): number => (account.state?.replaced ?? 0) + account.replaced;
    const isUrgent = (): boolean => {
      const patienceMs = replaced() > 0 ? REPLACED_PATIENCE_MS : 0;
      return account.used > this.#urgentTarget &&
        clock.now() - this.#urgentSinceMs >= patienceMs;
    };
    let isAnyGone = false;
    await this.#removal.run({
      wanted: () => {
        if (account.used <= this.#urgentTarget) this.#notifyRoom();
        if (account.used <= this.#target) return undefined;
        if (isUrgent() && this.#removal.isBusy) return account.used - this.#urgentTarget;
        return account.used - replaced() - this.#target;
      },
      isUrgent,
      removed: async ({ bytes }, ledgerId) => {
        isAnyGone ||= bytes > 0;
        await this.credit(bytes, ledgerId);
      },
      walk: () => this.count(),
    });
    this.#headroom.forget();
    return isAnyGone || account.used < used || account.used <= this.#target;
  }

  #notifyRoom(): void {
    this.#roomMade.resolve();
    this.#roomMade = Promise.withResolvers();
  }

  /** Reads the ledger, so that the measurement of the disk can be compared with it. */
  async #readAccount(): Promise<void> {
    await this.#account.update().catch((error: unknown) => {
      if (!(error instanceof LedgerHeldError)) throw error;
    });
  }

  /**
   * Waits briefly for the count of a directory without a ledger; resolves to whether it has one.
   */
  async #isCountedSoon(): Promise<boolean> {
    const { clock, watermark } = this.#options;
    const counting = this.count();
    // Without eviction there is no alternative to the count.
    if (watermark === undefined) await counting;
    else await within(clock, counting, COUNT_PATIENCE_MS);
    return this.#account.state !== undefined;
  }

  #inBackground(work: Promise<unknown>): void {
    work.catch((error: unknown) => this.#options.onError(error));
  }
}
