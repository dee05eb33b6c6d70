import { untilAborted } from "../base/abort.ts";
import type { Clock } from "../base/clock.ts";
import { Bitmap } from "../keys/bitmap.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type {
  AdapterObject,
  AdapterUsage,
  CallOptions,
  DeleteResult,
  StoreResult,
} from "./calls.ts";
import type { EvictionPolicyName } from "../policies/eviction_order.ts";
import { evictionPolicy } from "../policies/eviction_policy.ts";
import { AdapterError } from "./errors.ts";
import { KeyLocks } from "./key_locks.ts";
import { ObjectIndex } from "./object_index.ts";

/** Default max objects per eviction call. */
const REMOVAL_BATCH = 64;
/** Default time between two counts of the objects, in milliseconds. */
const RECOUNT_MS = 600_000;

/** Limits on the bytes that an adapter stores. */
export interface CapacityBounds {
  /** Max bytes of objects. */
  readonly capacityBytes: number;
  /**
   * Shares of the capacity: eviction starts above `high` and stops at `low`. `undefined`: no
   * eviction.
   */
  readonly watermark: { readonly high: number; readonly low: number } | undefined;
  /** Order in which objects are evicted. @default {"LRU"} */
  readonly policy?: EvictionPolicyName | undefined;
}

/** One object found by a scan. */
export interface FoundObject {
  /** Key of the object. */
  readonly key: ObjectKey;
  /** Bytes of the object; left out if the index already has its size. */
  readonly byteLength?: number | undefined;
  /** Time of the last use, in milliseconds since 1970; left out if not recorded. */
  readonly usedAt?: number | undefined;
}

/**
 * Result of removing one object: its bytes, `absent` if there was none, or `failed` if it may still
 * exist.
 */
export type RemovalResult = number | "absent" | "failed";

/** Options of a {@linkcode Capacity}. */
export interface CapacityOptions {
  /** Adapter type that errors name. */
  readonly adapter: string;
  /** The limits; `undefined`: nothing is counted or evicted, and there is always room. */
  readonly bounds: CapacityBounds | undefined;
  /** Removes objects from the store; returns one result for each key. */
  readonly remove: (
    keys: readonly ObjectKey[],
    signal: AbortSignal,
    purpose: "delete" | "evict",
  ) => Promise<readonly RemovalResult[]>;
  /**
   * Lists the objects in the store. Left out if the store is empty at first, and no other process
   * uses it.
   */
  readonly scan?: (signal: AbortSignal) => AsyncIterable<FoundObject>;
  /** Max objects per call of `remove`. @default {64} */
  readonly removalBatch?: number;
  /**
   * Time after which the store is scanned again, if anything is stored, in milliseconds.
   * @default {600_000}
   */
  readonly recountMs?: number;
  /** Clock of the adapter. */
  readonly clock: Clock;
  /** Called with each failure. */
  readonly onError: (error: AdapterError) => void;
  /** Called with the objects that were evicted, or that a scan no longer found. */
  readonly onEvicted?: ((keys: readonly ObjectKey[]) => void) | undefined;
}

/**
 * Keeps the objects of an adapter within its capacity: room is reserved before a write, and above
 * the high watermark objects are evicted in the order of a policy, except locked ones. With a
 * `scan`, counts the objects of earlier runs and other processes too, and counts again before each
 * eviction, so that it sees what they added and removed.
 */
export class Capacity implements AsyncDisposable {
  readonly #options: CapacityOptions;
  readonly #index: ObjectIndex;
  readonly #locks = new KeyLocks();
  readonly #closing = new AbortController();
  readonly #capacityBytes: number;
  #reservedBytes = 0;
  #evictedObjects = 0;
  #countedAt: number | undefined;
  #counting: Promise<boolean> | undefined;
  #evicting: Promise<void> | undefined;
  /** Removals that have not ended, even if nothing waits for them any more. */
  readonly #removals = new Set<Promise<DeleteResult>>();

  /** Takes the limits and the operations of the store. */
  constructor(options: CapacityOptions) {
    this.#options = options;
    this.#index = new ObjectIndex(evictionPolicy(options.bounds?.policy ?? "LRU"));
    this.#capacityBytes = options.bounds?.capacityBytes ?? Infinity;
    if (options.scan === undefined) this.#countedAt = options.clock.now();
  }

  /** Whether there is a limit. */
  get isBounded(): boolean {
    return this.#capacityBytes < Infinity;
  }

  /** Bytes and number of objects; waits for the first count if it has not finished. */
  async usage({ signal }: CallOptions): Promise<AdapterUsage> {
    await this.#counted(signal);
    return this.#usage;
  }

  /** Locks and capacity figures for the status of the adapter. */
  reportStatus(): Readonly<Record<string, unknown>> {
    return {
      lockedObjects: this.#locks.size,
      ...this.isBounded && {
        ...this.#usage,
        evictedObjects: this.#evictedObjects,
        isCounted: this.#countedAt !== undefined,
      },
    };
  }

  /**
   * Stores objects: reserves room for them, lets `write` store those that have it, and evicts others
   * above the high watermark.
   *
   * @param write Returns one bit for each object that it receives: whether it is stored.
   */
  async store(
    objects: readonly AdapterObject[],
    { signal }: CallOptions,
    write: (fitting: readonly AdapterObject[]) => Promise<Bitmap>,
  ): Promise<StoreResult> {
    const hasRoom = await this.reserve(objects, signal);
    const fitting = objects.filter((_, i) => hasRoom[i]);
    let written = new Bitmap(fitting.length);
    try {
      written = await write(fitting);
    } finally {
      for (const [i, object] of fitting.entries()) this.settle(object, written.test(i));
    }
    let next = 0;
    const stored = Bitmap.from(objects, (_, i) => hasRoom[i] === true && written.test(next++));
    const kept = stored.gather(objects);
    this.renew(kept.map(({ key }) => key));
    this.maintain();
    return { stored, bytes: kept.reduce((sum, { byteLength }) => sum + byteLength, 0) };
  }

  /**
   * Reserves room for objects, evicting others if needed. Objects are considered in order; an
   * object that does not fit gets no room.
   *
   * @returns For each object, whether it has room. Each reservation must be released with
   * {@linkcode settle}.
   */
  async reserve(objects: readonly AdapterObject[], signal: AbortSignal): Promise<boolean[]> {
    if (!this.isBounded) return objects.map(() => true);
    if (!await this.#counted(signal)) return objects.map(() => false);
    if (!this.#fits(objects.reduce((sum, { byteLength }) => sum + byteLength, 0))) {
      const bytes = this.#bytesToReserve(objects);
      if (!this.#fits(bytes)) await untilAborted(signal, this.#evict(bytes), () => {});
    }
    return objects.map(({ byteLength }) => {
      const isFit = this.#fits(byteLength);
      if (isFit) this.#reservedBytes += byteLength;
      return isFit;
    });
  }

  /** Releases the reservation of an object; if it was stored, its bytes count as used. */
  settle({ key, byteLength }: AdapterObject, isStored: boolean): void {
    if (!this.isBounded) return;
    this.#reservedBytes -= byteLength;
    if (isStored) this.#index.put(key, byteLength);
  }

  /**
   * Starts an eviction above the high watermark, or a new count when the last one is too old. Runs
   * in the background.
   */
  maintain(): void {
    if (!this.isBounded) return;
    const { bounds, recountMs = RECOUNT_MS } = this.#options;
    if (this.#usedBytes > (bounds?.watermark?.high ?? 1) * this.#capacityBytes) this.#evict(0);
    else if (this.#ageMs > recountMs) this.#count();
  }

  /**
   * Looks up objects with `ask`, and locks and marks as used those that it finds. Locked objects
   * are neither evicted nor deleted.
   *
   * @param isChain Whether only the keys before the first missing one count.
   */
  async lockFound(
    keys: readonly ObjectKey[],
    isChain: boolean,
    ask: () => Promise<Bitmap>,
  ): Promise<Bitmap> {
    const found = await this.#locks.lockFound(keys, isChain, ask);
    this.touch(found.gather(keys));
    return found;
  }

  /** Adds one lock to each object. */
  lock(keys: readonly ObjectKey[]): void {
    this.#locks.add(keys);
  }

  /** Releases one lock of each object; objects without a lock are skipped. */
  unlock(keys: readonly ObjectKey[]): void {
    this.#locks.remove(keys);
  }

  /** Marks a chain of objects as used. The end of the chain is evicted before its front. */
  touch(keys: readonly ObjectKey[]): void {
    if (this.isBounded) this.#index.touch(keys, true);
  }

  /**
   * Keeps a chain of objects together that was stored, or that is loaded after its lookup counted
   * the use.
   */
  renew(keys: readonly ObjectKey[]): void {
    if (this.isBounded) this.#index.touch(keys, false);
  }

  /** Removes objects that are not locked; settles without a result as soon as `signal` aborts. */
  async delete(keys: readonly ObjectKey[], { signal }: CallOptions): Promise<DeleteResult> {
    return await this.#remove(keys, signal, "delete");
  }

  /** Bytes of an object, if it is counted. */
  bytesOf({ id }: ObjectKey): number | undefined {
    return this.#index.get(id)?.byteLength;
  }

  /**
   * Returns a function that stops counting objects found to be missing. It skips objects that were
   * stored after this call, because the answer may predate them.
   */
  staleRemover(
    keys: readonly ObjectKey[],
  ): (key: ObjectKey, isEvicted?: boolean) => void {
    return this.isBounded ? this.#index.staleRemover(keys) : () => {};
  }

  /** Aborts a running count or eviction, waits for it to end, and counts nothing any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await Promise.allSettled([this.#counting, this.#evicting, ...this.#removals]);
    this.#index.removeUnseenSince(this.#index.now);
  }

  get #usage(): Required<AdapterUsage> {
    const { usedBytes, size: objectCount } = this.#index;
    return { usedBytes, objectCount, capacityBytes: this.#capacityBytes };
  }

  get #usedBytes(): number {
    return this.#index.usedBytes + this.#reservedBytes;
  }

  /** Age of the last count, in milliseconds. */
  get #ageMs(): number {
    if (this.#options.scan === undefined) return 0;
    return this.#options.clock.now() - (this.#countedAt ?? -Infinity);
  }

  #fits(bytes: number): boolean {
    return this.#usedBytes + bytes <= this.#capacityBytes;
  }

  /** Bytes of the objects that an eviction can make room for; the others evict nothing. */
  #bytesToReserve(objects: readonly AdapterObject[]): number {
    let room = this.#capacityBytes - this.#reservedBytes;
    for (const id of this.#locks.ids()) room -= this.#index.get(id)?.byteLength ?? 0;
    let bytes = 0;
    for (const { key, byteLength } of objects) {
      if (byteLength > this.#capacityBytes) this.#refuse(key, byteLength);
      else if (bytes + byteLength <= room) bytes += byteLength;
    }
    return bytes;
  }

  /** Waits for the first count; resolves to whether it succeeded before `signal` aborted. */
  async #counted(signal: AbortSignal): Promise<boolean> {
    if (this.#countedAt !== undefined) return true;
    return await untilAborted(signal, this.#count(), () => false);
  }

  #evict(bytesWanted: number): Promise<void> {
    return this.#evicting ??= this.#makeRoom(bytesWanted)
      .catch((cause) => this.#report(cause))
      .finally(() => this.#evicting = undefined);
  }

  async #makeRoom(bytesWanted: number): Promise<void> {
    const { bounds, scan, recountMs = RECOUNT_MS } = this.#options;
    const { signal } = this.#closing;
    const capacityBytes = this.#capacityBytes;
    if (bounds?.watermark === undefined) {
      // Other processes may have removed objects, but a scan per store would cost too much.
      if (this.#ageMs > recountMs) await this.#count();
      return;
    }
    if (scan !== undefined && !await this.#count()) return;
    const { high, low } = bounds.watermark;
    if (this.#usedBytes <= high * capacityBytes && this.#fits(bytesWanted)) return;
    const goal = Math.min(low * capacityBytes, capacityBytes - bytesWanted);
    const tried = new Set<string>();
    for (;;) {
      const keys = this.#oldest(this.#usedBytes - goal, tried);
      if (keys.length === 0 || signal.aborted) return;
      for (const { id } of keys) tried.add(id);
      const { deleted } = await this.#remove(keys, signal, "evict");
      this.#evictedObjects += deleted.popcount();
      this.#reportEvicted(deleted.gather(keys));
    }
  }

  /** The objects to evict first, with `excess` bytes in total, at most one batch of them. */
  #oldest(excess: number, tried: ReadonlySet<string>): ObjectKey[] {
    const { removalBatch = REMOVAL_BATCH } = this.#options;
    const keys: ObjectKey[] = [];
    if (excess <= 0) return keys;
    let left = excess;
    for (const { key, byteLength } of this.#index) {
      if (this.#locks.has(key) || tried.has(key.id)) continue;
      keys.push(key);
      left -= byteLength;
      if (left <= 0 || keys.length === removalBatch) break;
    }
    return keys;
  }

  async #remove(
    keys: readonly ObjectKey[],
    signal: AbortSignal,
    purpose: "delete" | "evict",
  ): Promise<DeleteResult> {
    const nothing = (): DeleteResult => ({ deleted: new Bitmap(keys.length), bytes: 0 });
    if (signal.aborted || keys.length === 0) return nothing();
    const removal = this.#removeUnlocked(keys, signal, purpose);
    this.#removals.add(removal);
    try {
      return await untilAborted(signal, removal, nothing);
    } finally {
      removal.catch(() => {}).finally(() => this.#removals.delete(removal));
    }
  }

  /** Removes objects that are not locked. A key given twice counts once. */
  async #removeUnlocked(
    keys: readonly ObjectKey[],
    signal: AbortSignal,
    purpose: "delete" | "evict",
  ): Promise<DeleteResult> {
    const chosen = Bitmap.from(keys, (key) => this.#locks.startRemoval(key));
    const removable = chosen.gather(keys);
    const removeStale = this.staleRemover(removable);
    try {
      const removals = await this.#options.remove(removable, signal, purpose);
      let next = 0;
      let bytes = 0;
      const deleted = Bitmap.from(keys, (key, i) => {
        if (!chosen.test(i)) return false;
        const removal = removals[next++] ?? "failed";
        if (removal !== "failed") removeStale(key, purpose === "evict");
        if (typeof removal === "string") return false;
        bytes += removal;
        return true;
      });
      return { deleted, bytes };
    } finally {
      for (const key of removable) this.#locks.endRemoval(key);
    }
  }

  #count(): Promise<boolean> {
    return this.#counting ??= this.#countNow()
      .catch((cause) => {
        this.#report(cause);
        return false;
      })
      .finally(() => this.#counting = undefined);
  }

  async #countNow(): Promise<boolean> {
    const { scan, clock } = this.#options;
    const { signal } = this.#closing;
    const index = this.#index;
    const before = index.now;
    for await (const { key, byteLength, usedAt } of scan?.(signal) ?? []) {
      const entry = index.get(key.id);
      const isReplaced = byteLength !== undefined && entry !== undefined &&
        entry.byteLength !== byteLength && entry.seenAt <= before;
      if (entry !== undefined && !isReplaced) index.see(entry, usedAt);
      else if (byteLength !== undefined) index.put(key, byteLength, usedAt);
    }
    if (signal.aborted) return false;
    index.sort();
    this.#reportEvicted(index.removeUnseenSince(before));
    this.#countedAt = clock.now();
    return true;
  }

  /** Reports evicted objects, except those that were stored again meanwhile. */
  #reportEvicted(keys: readonly ObjectKey[]): void {
    const gone = keys.filter(({ id }) => this.#index.get(id) === undefined);
    if (gone.length > 0) this.#options.onEvicted?.(gone);
  }

  #refuse(key: ObjectKey, byteLength: number): void {
    const { adapter, onError } = this.#options;
    const cause = new RangeError(
      `Object of ${byteLength} bytes is larger than the capacity of ${this.#capacityBytes} bytes`,
    );
    onError(new AdapterError({ adapter, operation: "store", cause, key }));
  }

  #report(cause: unknown): void {
    if (this.#closing.signal.aborted) return;
    const { adapter, onError } = this.#options;
    onError(
      cause instanceof AdapterError
        ? cause
        : new AdapterError({ adapter, operation: "evict", cause }),
    );
  }
}
