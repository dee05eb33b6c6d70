import { GIB } from "../../src/base/units.ts";
import {
  AdapterError,
  type AdapterObject,
  type AdapterUsage,
  type CallOptions,
  type Clock,
  type ConfigValues,
  type DeleteResult,
  type evictionField,
  type ObjectKey,
  watermarksOf,
} from "../../src/adapter/contract.ts";
import { ObjectIndex } from "./object_book.ts";
import { untilAborted } from "../../src/base/abort.ts";

/** What a value of `max_capacity_gb` should be instead; `undefined` if it is valid. */
export function checkCapacity(gib: number): string | undefined {
  return gib === 0 || gib * GIB >= 1 ? undefined : "0, or at least one byte";
}

/** Limits on the bytes that an adapter stores. */
export interface CapacityBounds {
  /** Max bytes of objects. */
  readonly capacityBytes: number;
  /**
   * Shares of the capacity: eviction starts above `high` and stops at `low`. `undefined`: no
   * eviction.
   */
  readonly watermark: { readonly high: number; readonly low: number } | undefined;
}

/** The limits that a configuration sets; `undefined` if the capacity is 0 GiB or not given. */
export function boundsOf(
  gib: number | undefined,
  eviction: Partial<ConfigValues<typeof evictionField.fields>> | undefined,
): CapacityBounds | undefined {
  if (gib === undefined || gib === 0) return undefined;
  return { capacityBytes: Math.floor(gib * GIB), watermark: watermarksOf(eviction) };
}

/** One object found by a listing. */
export interface FoundObject {
  readonly key: ObjectKey;
  /** Bytes of the object; `undefined` if the index already has its size. */
  readonly byteLength: number | undefined;
  /** Time of the last use, in milliseconds since 1970; `undefined` if not recorded. */
  readonly usedAt: number | undefined;
}

/** Options of a {@linkcode Capacity}. */
export interface CapacityOptions extends CapacityBounds {
  /** Adapter type that errors name. */
  readonly adapter: string;
  /** Lists the objects on the server. May omit the size of an object that `index` already has. */
  readonly scan: (index: ObjectIndex, signal: AbortSignal) => AsyncIterable<FoundObject>;
  /** Removes objects from the server. */
  readonly remove: (keys: readonly ObjectKey[], signal: AbortSignal) => Promise<DeleteResult>;
  /** Max objects per call of `remove`. */
  readonly removalBatch: number;
  /** Time after which the server is listed again, if anything is stored, in milliseconds. */
  readonly recountMs: number;
  /** Whether a lookup has locked an object that is about to be loaded. */
  readonly isLocked: (key: ObjectKey) => boolean;
  readonly clock: Clock;
  /** Called with each failure. */
  readonly onError: (error: AdapterError) => void;
  /** Called with the objects that were evicted, or that a listing no longer found. */
  readonly onEvicted: ((keys: readonly ObjectKey[]) => void) | undefined;
}

/**
 * Keeps the objects of an adapter on a server within its capacity. Counts all objects below the
 * adapter's prefix, including those of other processes, and counts again before each eviction, so
 * that it sees what the server or other processes added and removed.
 */
export class Capacity implements AsyncDisposable {
  /** The objects known to be on the server. */
  readonly index = new ObjectIndex();
  readonly #options: CapacityOptions;
  readonly #closing = new AbortController();
  #reservedBytes = 0;
  #evictedObjects = 0;
  #countedAt: number | undefined;
  #counting: Promise<boolean> | undefined;
  #evicting: Promise<void> | undefined;

  constructor(options: CapacityOptions) {
    this.#options = options;
  }

  /** Bytes and number of objects; waits for the first count if it has not finished. */
  async usage({ signal }: CallOptions): Promise<AdapterUsage> {
    await this.#counted(signal);
    const { capacityBytes } = this.#options;
    return { usedBytes: this.index.usedBytes, objectCount: this.index.size, capacityBytes };
  }

  /** Capacity figures for the status of the adapter. */
  reportStatus(): Readonly<Record<string, unknown>> {
    return {
      usedBytes: this.index.usedBytes,
      capacityBytes: this.#options.capacityBytes,
      objectCount: this.index.size,
      evictedObjects: this.#evictedObjects,
      isCounted: this.#countedAt !== undefined,
    };
  }

  /**
   * Reserves room for objects, evicting others if needed. Objects are considered in order; an
   * object that does not fit gets no room.
   *
   * @returns For each object, whether it has room. Each reservation must be released with
   * {@linkcode settle}.
   */
  async reserve(objects: readonly AdapterObject[], signal: AbortSignal): Promise<boolean[]> {
    if (!await this.#counted(signal)) return objects.map(() => false);
    const { capacityBytes } = this.#options;
    let bytes = 0;
    for (const { key, byteLength } of objects) {
      if (byteLength > capacityBytes) this.#refuse(key, byteLength);
      else if (bytes + byteLength <= capacityBytes) bytes += byteLength;
    }
    if (!this.#fits(bytes)) await untilAborted(signal, this.#evict(bytes), () => {});
    return objects.map((object) => {
      const isFit = this.#fits(object.byteLength);
      if (isFit) this.#reservedBytes += object.byteLength;
      return isFit;
    });
  }

  /** Releases the reservation of an object; if it was stored, its bytes count as used. */
  settle({ key, byteLength }: AdapterObject, isStored: boolean): void {
    this.#reservedBytes -= byteLength;
    if (isStored) this.index.put(key, byteLength);
  }

  /**
   * Starts an eviction above the high watermark, or a new count when the last one is too old. Runs
   * in the background.
   */
  maintain(): void {
    const { watermark, capacityBytes, recountMs } = this.#options;
    if (this.#usedBytes > (watermark?.high ?? 1) * capacityBytes) this.#evict(0);
    else if (this.#ageMs > recountMs) this.#count();
  }

  /** Aborts a running count or eviction, and waits for it to end. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await Promise.allSettled([this.#counting, this.#evicting]);
  }

  /** Waits for the first count; resolves to whether it succeeded before `signal` aborted. */
  async #counted(signal: AbortSignal): Promise<boolean> {
    if (this.#countedAt !== undefined) return true;
    return await untilAborted(signal, this.#count(), () => false);
  }

  get #usedBytes(): number {
    return this.index.usedBytes + this.#reservedBytes;
  }

  /** Age of the last count, in milliseconds. */
  get #ageMs(): number {
    return this.#options.clock.now() - (this.#countedAt ?? -Infinity);
  }

  #fits(bytes: number): boolean {
    return this.#usedBytes + bytes <= this.#options.capacityBytes;
  }

  #evict(bytesWanted: number): Promise<void> {
    return this.#evicting ??= this.#makeRoom(bytesWanted)
      .catch((cause) => this.#report(cause))
      .finally(() => this.#evicting = undefined);
  }

  async #makeRoom(bytesWanted: number): Promise<void> {
    const { watermark, capacityBytes, isLocked, remove, removalBatch, recountMs } = this.#options;
    const { signal } = this.#closing;
    if (watermark === undefined) {
      // Other processes may have removed objects, but a listing per store would cost too much.
      if (this.#ageMs > recountMs) await this.#count();
      return;
    }
    if (!await this.#count()) return;
    const goal = Math.min(watermark.low * capacityBytes, capacityBytes - bytesWanted);
    const isOver = this.#usedBytes > watermark.high * capacityBytes || !this.#fits(bytesWanted);
    if (!isOver) return;
    const oldest = this.index.oldestFirst().filter(({ key }) => !isLocked(key));
    let next = 0;
    while (this.#usedBytes > goal && next < oldest.length && !signal.aborted) {
      const keys: ObjectKey[] = [];
      let excess = this.#usedBytes - goal;
      while (excess > 0 && next < oldest.length && keys.length < removalBatch) {
        const entry = oldest[next++];
        if (entry === undefined) break;
        keys.push(entry.key);
        excess -= entry.byteLength;
      }
      const { deleted } = await remove(keys, signal);
      this.#evictedObjects += deleted.popcount();
      this.#reportEvicted(deleted.gather(keys));
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
    const before = this.index.now;
    for await (const { key, byteLength, usedAt } of scan(this.index, signal)) {
      const entry = this.index.get(key);
      const isReplaced = byteLength !== undefined && entry !== undefined &&
        entry.byteLength !== byteLength && entry.seenAt <= before;
      if (entry !== undefined && !isReplaced) this.index.see(entry, usedAt);
      else if (byteLength !== undefined) this.index.put(key, byteLength, usedAt);
    }
    if (signal.aborted) return false;
    this.#reportEvicted(this.index.removeUnseenSince(before));
    this.#countedAt = clock.now();
    return true;
  }

  /** Reports evicted objects, except those that were stored again meanwhile. */
  #reportEvicted(keys: readonly ObjectKey[]): void {
    const gone = keys.filter((key) => this.index.get(key) === undefined);
    if (gone.length > 0) this.#options.onEvicted?.(gone);
  }

  #refuse(key: ObjectKey, byteLength: number): void {
    const { adapter, capacityBytes, onError } = this.#options;
    const cause = new RangeError(
      `Object of ${byteLength} bytes is larger than max_capacity_gb, ${capacityBytes} bytes`,
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
