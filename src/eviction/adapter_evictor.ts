import { Backoff, type BackoffLimits } from "../base/backoff.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import { type Clock, wait } from "../base/clock.ts";
import { EvictionIndex, type TrackedObject } from "./order_book.ts";
import type { OrderPolicy } from "../policies/eviction_order.ts";
import type { QuotaRegistry } from "./quota_registry.ts";
import { lookFor, REMOVAL_BATCH, removeObjects } from "./remove_objects.ts";

/** Number of objects that could not be removed after which a sweep ends. */
const MAX_SKIPPED = 1024;
/**
 * Maximum number of pinned objects to skip in one pick; the engine gets a turn before the next
 * ones.
 */
const MAX_PINNED = 1024;
/**
 * Maximum number of tracked objects per adapter; beyond it the least recently used ones are dropped
 * from the index.
 */
const MAX_TRACKED = 2 ** 20;
/** Growth of the index, in objects, after which the adapter is asked for its object count. */
const REVIEW_STEP = 1_024;
const RETRIES: BackoffLimits = { firstMs: 1_000, maxMs: 60_000 };

/** Eviction status of one adapter. */
export interface AdapterEvictionStatus {
  /** Id of the adapter in the cache. */
  readonly id: number;
  /** Objects in the index of the adapter; 0 while neither a capacity nor a quota applies. */
  readonly trackedObjects: number;
  /** Bytes of the tracked objects. */
  readonly trackedBytes: number;
  /** Objects evicted from the adapter by the cache. */
  readonly evictedObjects: number;
  /** Bytes evicted from the adapter by the cache. */
  readonly evictedBytes: number;
  /** Attempted evictions that failed. */
  readonly failedEvictions: number;
  /**
   * Objects dropped from the index because the adapter holds fewer objects than were tracked, or
   * because the index was full.
   */
  readonly droppedObjects: number;
  /** Whether the objects that the adapter held when it was opened are still being listed. */
  readonly isSeeding: boolean;
}

/** Options of {@linkcode AdapterEvictor}. */
export interface AdapterEvictorOptions {
  readonly guard: AdapterGuard;
  readonly quotas: QuotaRegistry;
  readonly clock: Clock;
  readonly isPinned: (key: ObjectKey) => boolean;
  /** Bytes above which eviction starts, and at which it stops. */
  readonly bounds: { readonly high: number; readonly low: number } | undefined;
  /** Order in which objects are evicted. */
  readonly policy: OrderPolicy;
  readonly track: (work: Promise<void>) => void;
}

/** Keeps one adapter within its capacity and quotas, independently of other adapters. */
export class AdapterEvictor implements Disposable {
  readonly #options: AdapterEvictorOptions;
  readonly #evictAgain: Retry;
  readonly #seedAgain: Retry;
  readonly #overSalts = new Set<string>();
  readonly #counters = {
    evictedObjects: 0,
    evictedBytes: 0,
    failedEvictions: 0,
    droppedObjects: 0,
  };
  #index: EvictionIndex | undefined;
  /** Objects that a call in flight is removing. */
  #inRemoval: ReadonlyMap<string, TrackedObject> = new Map();
  #isShrinking = false;
  #isRunning = false;
  /** Size of the index at which the adapter is asked for its object count. */
  #reviewAt = REVIEW_STEP;
  #ignoreGuard = (): void => {};
  /** Aborts when the index is dropped. */
  #stopping = new AbortController();

  constructor(options: AdapterEvictorOptions) {
    this.#options = options;
    this.#evictAgain = new Retry(options.clock, () => this.#run());
    this.#seedAgain = new Retry(options.clock, () => this.#seed());
  }

  /** Maintains the index for as long as a capacity or a quota applies. */
  update(hasQuotas: boolean): void {
    const { guard, bounds } = this.#options;
    const isNeeded = guard.canDelete && (hasQuotas || bounds !== undefined);
    if (isNeeded && this.#index === undefined) this.#start();
    else if (!isNeeded) this[Symbol.dispose]();
  }

  /** Evicts objects of a salt that exceeds its quota; `undefined` checks all salts. */
  applyQuotas(changed: string | undefined): void {
    if (this.#index === undefined) return;
    for (const salt of changed === undefined ? this.#index.salts() : [changed]) this.#note(salt);
    this.#run();
  }

  reportStatus(): AdapterEvictionStatus {
    return {
      id: this.#options.guard.id,
      trackedObjects: this.#index?.size ?? 0,
      trackedBytes: this.#index?.bytes ?? 0,
      ...this.#counters,
      isSeeding: this.#index?.isSeeding ?? false,
    };
  }

  [Symbol.dispose](): void {
    this.#ignoreGuard();
    this.#stopping.abort();
    this.#evictAgain.cancel();
    this.#seedAgain.cancel();
    this.#overSalts.clear();
    this.#isShrinking = false;
    this.#index = undefined;
  }

  #start(): void {
    const { guard } = this.#options;
    const index = this.#index = new EvictionIndex(guard.canList, this.#options.policy);
    this.#ignoreGuard = guard.addListener({
      stored: (objects) => {
        index.stored(objects);
        for (const { key } of objects) this.#note(key.cacheSalt);
        this.#bound(index);
        this.#run();
      },
      accessed: (keys) => index.used(keys),
      used: (keys) => index.used(keys),
      evicted: (keys) => {
        for (const key of keys) this.#forget(index, key);
      },
      deleted: (keys) => {
        for (const key of keys) this.#forget(index, key);
      },
    });
    this.#stopping = new AbortController();
    this.#reviewAt = REVIEW_STEP;
    this.#seed();
  }

  /** Limits the size of the index, also for an adapter that does not report what it evicts. */
  #bound(index: EvictionIndex): void {
    this.#counters.droppedObjects += index.dropOldest(index.size - MAX_TRACKED);
    if (index.size < this.#reviewAt) return;
    this.#reviewAt = Infinity;
    this.#options.track(this.#review(index));
  }

  /**
   * If the adapter holds far fewer objects than the index, drops the oldest ones: the adapter most
   * likely evicted those.
   */
  async #review(index: EvictionIndex): Promise<void> {
    const { guard } = this.#options;
    const usage = await guard.usage();
    if (this.#index !== index) return;
    const held = usage?.objectCount ?? Infinity;
    if (index.size > held + Math.max(REVIEW_STEP, held / 2)) {
      this.#counters.droppedObjects += index.dropOldest(index.size - held);
    }
    this.#reviewAt = index.size + Math.max(REVIEW_STEP, index.size / 2);
  }

  /**
   * Removes an object from the index, unless it has been stored again since its removal started.
   */
  #forget(index: EvictionIndex, key: ObjectKey): void {
    const inRemoval = this.#inRemoval.get(key.id);
    if (inRemoval === undefined || inRemoval === index.get(key.id)) {
      index.removed(key, inRemoval !== undefined);
    }
  }

  /**
   * Looks up objects that were stored while they were being removed, to see which of the two came
   * last.
   */
  async #settleRestored(
    index: EvictionIndex,
    picked: ReadonlyMap<string, TrackedObject>,
  ): Promise<void> {
    const restored = [...picked.values()].filter((object) => {
      const now = index.get(object.key.id);
      return now !== undefined && now !== object;
    });
    if (restored.length === 0) return;
    const answer = await lookFor(this.#options.guard, restored.map(({ key }) => key));
    for (const key of answer?.absent ?? []) index.removed(key);
  }

  #note(salt: string): void {
    const limit = this.#options.quotas.effective(salt).l2Bytes ?? Infinity;
    if ((this.#index?.bytesOf(salt) ?? 0) > limit) this.#overSalts.add(salt);
  }

  #run(): void {
    const { bounds, track } = this.#options;
    if (this.#index === undefined) return;
    if (this.#index.bytes > (bounds?.high ?? Infinity)) this.#isShrinking = true;
    if (this.#isRunning || this.#evictAgain.isPending) return;
    if (this.#isShrinking || this.#overSalts.size > 0) track(this.#evict(this.#index));
  }

  async #evict(index: EvictionIndex): Promise<void> {
    const { guard, clock } = this.#options;
    const skipped = new Map<string, ObjectKey>();
    let passed = 0;
    this.#isRunning = true;
    try {
      while (skipped.size < MAX_SKIPPED) {
        const { picked, pinned } = this.#pick(index, skipped);
        if (picked.size === 0) {
          if (pinned < MAX_PINNED) break;
          passed += pinned;
          // Every object may be pinned, so this is retried after a delay.
          if (passed >= index.size) return this.#evictAgain.later();
          await wait(clock, 0, this.#stopping.signal);
          if (this.#index !== index) return;
          continue;
        }
        passed = 0;
        this.#inRemoval = picked;
        const keys = [...picked.values()].map(({ key }) => key);
        const removal = await removeObjects(guard, keys);
        this.#counters.evictedObjects += removal.objects;
        this.#counters.evictedBytes += removal.bytes;
        for (const key of removal.absent) this.#forget(index, key);
        await this.#settleRestored(index, picked);
        if (this.#index !== index) return;
        this.#counters.failedEvictions += removal.locked.length;
        for (const key of removal.locked) skipped.set(key.id, key);
        // Locked objects move to the end, so that others are tried first.
        index.postpone(removal.locked);
        if (removal.unknown.length > 0) {
          if (!removal.isSkipped) this.#counters.failedEvictions += removal.unknown.length;
          this.#evictAgain.later();
          return;
        }
        this.#evictAgain.reset();
      }
      this.#isShrinking = false;
    } finally {
      this.#inRemoval = new Map();
      this.#isRunning = false;
      if (this.#index === index) { for (const key of skipped.values()) this.#note(key.cacheSalt); }
      else this.#run();
    }
  }

  /**
   * Objects to evict next, without those in `skipped`; empty if everything is within its limits.
   */
  #pick(
    index: EvictionIndex,
    skipped: ReadonlyMap<string, ObjectKey>,
  ): { picked: Map<string, TrackedObject>; pinned: number } {
    const { quotas, bounds, isPinned } = this.#options;
    const picked = new Map<string, TrackedObject>();
    const pinned: ObjectKey[] = [];
    let pickedBytes = 0;
    const pick = (objects: Iterable<TrackedObject>, excess: number): void => {
      let left = excess;
      for (const object of objects) {
        if (left <= 0 || picked.size === REMOVAL_BATCH || pinned.length === MAX_PINNED) break;
        const { key, bytes } = object;
        if (skipped.has(key.id) || picked.has(key.id)) continue;
        if (isPinned(key)) {
          pinned.push(key);
          continue;
        }
        picked.set(key.id, object);
        pickedBytes += bytes;
        left -= bytes;
      }
    };
    for (const salt of this.#overSalts) {
      if (picked.size === REMOVAL_BATCH || pinned.length === MAX_PINNED) break;
      const before = picked.size;
      const limit = quotas.effective(salt).l2Bytes ?? Infinity;
      pick(index.oldest(salt), index.bytesOf(salt) - limit);
      if (picked.size === before) this.#overSalts.delete(salt);
    }
    if (this.#isShrinking && bounds !== undefined) {
      pick(index.oldest(), index.bytes - pickedBytes - bounds.low);
    }
    // Pinned objects move to the end, so that the next pick does not visit them again.
    index.postpone(pinned);
    return { picked, pinned: pinned.length };
  }

  #seed(): void {
    if (this.#index?.isSeeding === true) this.#options.track(this.#list(this.#index));
  }

  /** Lists the objects that the adapter held when it was opened. */
  async #list(index: EvictionIndex): Promise<void> {
    const { guard } = this.#options;
    const { signal } = this.#stopping;
    let isComplete = true;
    const onIncomplete = (): void => void (isComplete = false);
    for await (const object of guard.list({ signal, onIncomplete })) {
      if (this.#index !== index) return;
      index.seed({ key: object.key, bytes: object.byteLength });
    }
    if (this.#index !== index) return;
    if (isComplete) index.endSeeding();
    else this.#seedAgain.later();
    this.applyQuotas(undefined);
  }
}

/** Repeats work with exponential back-off until it is reset. */
class Retry {
  readonly #clock: Clock;
  readonly #work: () => void;
  readonly #backoff = new Backoff(RETRIES);
  #cancel: (() => void) | undefined;

  constructor(clock: Clock, work: () => void) {
    this.#clock = clock;
    this.#work = work;
  }

  get isPending(): boolean {
    return this.#cancel !== undefined;
  }

  later(): void {
    if (this.isPending) return;
    this.#cancel = this.#clock.schedule(
      () => {
        this.#cancel = undefined;
        this.#work();
      },
      this.#backoff.next(),
      { background: true },
    );
  }

  reset(): void {
    this.#backoff.reset();
  }

  cancel(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    this.reset();
  }
}
