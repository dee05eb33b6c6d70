import { copyParts } from "../../src/base/byte_parts.ts";
import { LruMap } from "../../src/base/lru_map.ts";
import type { AdapterObject, ObjectKey } from "../../src/adapter/contract.ts";

/** Limits of an {@linkcode ObjectMemory}. */
export interface MemoryBounds {
  /** Max bytes of objects. */
  readonly capacityBytes: number;
  /** Bytes above which objects are evicted. If left out, nothing is evicted. */
  readonly highBytes?: number;
  /** Bytes at which an eviction stops. */
  readonly lowBytes?: number;
}

/** An object in an {@linkcode ObjectMemory}. */
export interface MemoryObject {
  readonly key: ObjectKey;
  /** Bytes of the object. They are overwritten when the object is replaced or evicted. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

interface MemoryEntry extends MemoryObject {
  bytes: Uint8Array<ArrayBuffer>;
  locks: number;
}

/** Objects in host memory, in order of their last use. */
export class ObjectMemory {
  readonly #bounds: MemoryBounds;
  readonly #entries = new LruMap<MemoryEntry>(({ key }) => key.id);
  #usedBytes = 0;
  #lockedBytes = 0;
  #lockedObjects = 0;
  #evictedObjects = 0;
  /** Evicted objects not yet returned by {@linkcode takeEvicted}. */
  #evicted: ObjectKey[] = [];

  constructor(bounds: MemoryBounds) {
    this.#bounds = bounds;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  get objectCount(): number {
    return this.#entries.size;
  }

  get lockedObjects(): number {
    return this.#lockedObjects;
  }

  /** Number of objects evicted so far. */
  get evictedObjects(): number {
    return this.#evictedObjects;
  }

  /**
   * Copies an object into memory, replacing one with the same key. Without room, the old object
   * stays.
   *
   * @returns `undefined` if there is no room.
   * @throws {RangeError} If the host cannot allocate the memory.
   */
  put({ key, parts, byteLength }: AdapterObject): MemoryObject | undefined {
    const present = this.#entries.get(key.id);
    // The copy is synchronous, so readers never see a partly overwritten object.
    if (present?.bytes.byteLength === byteLength) {
      copyParts(parts, present.bytes);
      return present;
    }
    const grownBy = byteLength - (present?.bytes.byteLength ?? 0);
    if (!this.#canMakeRoom(grownBy, byteLength, present)) return undefined;
    const bytes = this.#makeRoom(grownBy, byteLength, present) ?? new Uint8Array(byteLength);
    copyParts(parts, bytes);
    this.#usedBytes += grownBy;
    if (present !== undefined) {
      if (present.locks > 0) this.#lockedBytes += grownBy;
      present.bytes = bytes;
      return present;
    }
    const entry: MemoryEntry = { key, bytes, locks: 0 };
    this.#entries.put(entry);
    return entry;
  }

  /** Evicts from above the high watermark down to the low one. */
  shrink(): void {
    const { highBytes = Infinity, lowBytes = highBytes } = this.#bounds;
    if (this.#usedBytes <= highBytes) return;
    for (const entry of this.#entries) {
      if (this.#usedBytes <= lowBytes) return;
      if (entry.locks === 0) this.#evict(entry);
    }
  }

  /** Returns the keys of the objects evicted since the last call. */
  takeEvicted(): ObjectKey[] {
    return this.#evicted.splice(0);
  }

  /** The object of a key, if present. */
  get(key: ObjectKey): MemoryObject | undefined {
    return this.#entries.get(key.id);
  }

  /** Whether an object is still in memory. */
  has(object: MemoryObject): boolean {
    return this.#entries.get(object.key.id) === object;
  }

  /** Marks a chain as just used. The end of the chain is evicted before its front. */
  touch(chain: readonly MemoryObject[]): void {
    for (let i = chain.length - 1; i >= 0; i--) {
      const held = chain[i] as MemoryObject;
      if (this.has(held)) this.#entries.renew(held.key.id);
    }
  }

  /** Prevents an object from being evicted or removed. */
  lock(object: MemoryObject): void {
    const entry = object as MemoryEntry;
    if (entry.locks++ > 0) return;
    this.#lockedObjects++;
    this.#lockedBytes += entry.bytes.byteLength;
  }

  /** Releases one lock, if there is any. */
  unlock(object: MemoryObject): void {
    const entry = object as MemoryEntry;
    if (entry.locks === 0 || --entry.locks > 0) return;
    this.#lockedObjects--;
    this.#lockedBytes -= entry.bytes.byteLength;
  }

  /** Removes an object; returns `false` if it is absent or locked. */
  remove(key: ObjectKey): boolean {
    const entry = this.#entries.get(key.id);
    if (entry === undefined || entry.locks > 0) return false;
    this.#drop(entry);
    return true;
  }

  list(): MemoryObject[] {
    return [...this.#entries];
  }

  /** Removes all objects, including locked ones. */
  clear(): void {
    for (const entry of this.#entries) this.#drop(entry);
    this.#lockedBytes = 0;
    this.#lockedObjects = 0;
  }

  /** Whether evictions could make enough room. If not, nothing is evicted. */
  #canMakeRoom(grownBy: number, byteLength: number, present: MemoryEntry | undefined): boolean {
    const { capacityBytes, highBytes } = this.#bounds;
    if (byteLength > capacityBytes) return false;
    if (this.#usedBytes + grownBy <= capacityBytes) return true;
    if (highBytes === undefined) return false;
    const isKeptAnyhow = present !== undefined && present.locks === 0;
    const staying = this.#lockedBytes + (isKeptAnyhow ? present.bytes.byteLength : 0);
    return staying + grownBy <= capacityBytes;
  }

  /**
   * Evicts the least recently used objects; returns an evicted buffer of `byteLength` for reuse.
   */
  #makeRoom(
    grownBy: number,
    byteLength: number,
    present: MemoryEntry | undefined,
  ): Uint8Array<ArrayBuffer> | undefined {
    let reusable: Uint8Array<ArrayBuffer> | undefined;
    if (this.#usedBytes + grownBy <= this.#bounds.capacityBytes) return undefined;
    for (const entry of this.#entries) {
      if (entry.locks > 0 || entry === present) continue;
      this.#evict(entry);
      if (entry.bytes.byteLength === byteLength) reusable = entry.bytes;
      if (this.#usedBytes + grownBy <= this.#bounds.capacityBytes) break;
    }
    return reusable;
  }

  #evict(entry: MemoryEntry): void {
    this.#drop(entry);
    this.#evictedObjects++;
    this.#evicted.push(entry.key);
  }

  #drop(entry: MemoryEntry): void {
    this.#entries.delete(entry.key.id);
    this.#usedBytes -= entry.bytes.byteLength;
  }
}
