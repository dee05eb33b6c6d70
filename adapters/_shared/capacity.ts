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
} from "../../src/l2/adapter.ts";
import { ObjectBook } from "./object_book.ts";
import { untilAborted } from "./until_aborted.ts";

const GIB = 2 ** 30;

/** What is wrong with a value of `max_capacity_gb`; `undefined` if it is fine. */
export function checkCapacity(gib: number): string | undefined {
  return gib === 0 || gib * GIB >= 1 ? undefined : "0, or at least one byte";
}

/** What an adapter keeps its objects within. */
export interface CapacityBounds {
  /** Max bytes of objects. */
  readonly capacityBytes: number;
  /** Shares above which objects are removed, and which are left; left out, nothing is removed. */
  readonly watermark: { readonly high: number; readonly low: number } | undefined;
}

/** The bounds that a configuration sets; `undefined` with a capacity of 0 GiB, or without one. */
export function boundsOf(
  gib: number | undefined,
  eviction: Partial<ConfigValues<typeof evictionField.fields>> | undefined,
): CapacityBounds | undefined {
  if (gib === undefined || gib === 0) return undefined;
  return { capacityBytes: Math.floor(gib * GIB), watermark: watermarksOf(eviction) };
}

/** One object that a listing met. */
export interface FoundObject {
  /** Its key. */
  readonly key: ObjectKey;
  /** Its bytes; left out where they are known. */
  readonly byteLength: number | undefined;
  /** When it was used, in milliseconds since 1970; left out if not recorded. */
  readonly usedAt: number | undefined;
}

/** How a {@linkcode Capacity} is set up. */
export interface CapacityOptions extends CapacityBounds {
  /** Type of the adapter, for its errors. */
  readonly adapter: string;
  /** What is on the server; sizes of objects that `book` has are left out. */
  readonly scan: (book: ObjectBook, signal: AbortSignal) => AsyncIterable<FoundObject>;
  /** Removes objects. */
  readonly remove: (keys: readonly ObjectKey[], signal: AbortSignal) => Promise<DeleteResult>;
  /** Objects that are removed at a time. */
  readonly removalBatch: number;
  /** What others did is looked up again after so long, in milliseconds, if anything is stored. */
  readonly recountMs: number;
  /** Whether somebody is about to load an object. */
  readonly isLocked: (key: ObjectKey) => boolean;
  /** Source of time. */
  readonly clock: Clock;
  /** Told about failures. */
  readonly onError: (error: AdapterError) => void;
  /** Told which objects were removed to make room, or were found to have left by themselves. */
  readonly onEvicted: ((keys: readonly ObjectKey[]) => void) | undefined;
}

/**
 * Keeps what an adapter puts on a server within bounds. It counts what is there, whoever stored it,
 * and counts again before it removes anything: what the server evicted or another process removed
 * or added is known then.
 */
export class Capacity implements AsyncDisposable {
  /** What is there. */
  readonly book = new ObjectBook();
  readonly #options: CapacityOptions;
  readonly #closing = new AbortController();
  #reservedBytes = 0;
  #evictedObjects = 0;
  #countedAt: number | undefined;
  #counting: Promise<boolean> | undefined;
  #evicting: Promise<void> | undefined;

  /** Nothing is counted yet. */
  constructor(options: CapacityOptions) {
    this.#options = options;
  }

  /** How much is there, counted first if that was not done yet. */
  async usage({ signal }: CallOptions): Promise<AdapterUsage> {
    await this.#counted(signal);
    const { capacityBytes } = this.#options;
    return { usedBytes: this.book.usedBytes, objectCount: this.book.size, capacityBytes };
  }

  /** What the status of an adapter says about its capacity. */
  reportStatus(): Readonly<Record<string, unknown>> {
    return {
      usedBytes: this.book.usedBytes,
      capacityBytes: this.#options.capacityBytes,
      objectCount: this.book.size,
      evictedObjects: this.#evictedObjects,
      isCounted: this.#countedAt !== undefined,
    };
  }

  /**
   * Takes room for objects, and makes some where it is wanting: for as many of the first ones as
   * fit into the capacity, and none for one that does not. Which have it is told by the answer; each
   * of those is to be given back with {@linkcode settle}.
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

  /** Gives the room of an object back, which it uses now if it is stored. */
  settle({ key, byteLength }: AdapterObject, isStored: boolean): void {
    this.#reservedBytes -= byteLength;
    if (isStored) this.book.put(key, byteLength);
  }

  /** Makes room in the background if little is left, or nobody has counted for long. */
  tend(): void {
    const { watermark, capacityBytes, recountMs } = this.#options;
    if (this.#usedBytes > (watermark?.high ?? 1) * capacityBytes) this.#evict(0);
    else if (this.#ageMs > recountMs) this.#count();
  }

  /** Stops, and waits until that is done. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await Promise.allSettled([this.#counting, this.#evicting]);
  }

  /** Counts what is there, unless that was done; resolves to whether it is known. */
  async #counted(signal: AbortSignal): Promise<boolean> {
    if (this.#countedAt !== undefined) return true;
    return await untilAborted(signal, this.#count(), () => false);
  }

  get #usedBytes(): number {
    return this.book.usedBytes + this.#reservedBytes;
  }

  /** How old the last count is. */
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
      // Others may have removed something; that is not worth a look at each store.
      if (this.#ageMs > recountMs) await this.#count();
      return;
    }
    if (!await this.#count()) return;
    const goal = Math.min(watermark.low * capacityBytes, capacityBytes - bytesWanted);
    const isOver = this.#usedBytes > watermark.high * capacityBytes || !this.#fits(bytesWanted);
    if (!isOver) return;
    const oldest = this.book.oldestFirst().filter(({ key }) => !isLocked(key));
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
      this.#tellEvicted(deleted.gather(keys));
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
    const before = this.book.now;
    for await (const { key, byteLength, usedAt } of scan(this.book, signal)) {
      const entry = this.book.get(key);
      const isReplaced = byteLength !== undefined && entry !== undefined &&
        entry.byteLength !== byteLength && entry.seenAt <= before;
      if (entry !== undefined && !isReplaced) this.book.see(entry, usedAt);
      else if (byteLength !== undefined) this.book.put(key, byteLength, usedAt);
    }
    if (signal.aborted) return false;
    this.#tellEvicted(this.book.removeUnseenSince(before));
    this.#countedAt = clock.now();
    return true;
  }

  /** Tells which objects have left; one that was stored again meanwhile has not. */
  #tellEvicted(keys: readonly ObjectKey[]): void {
    const gone = keys.filter((key) => this.book.get(key) === undefined);
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
