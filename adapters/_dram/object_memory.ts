import type { AdapterObject, ListedObject, ObjectKey } from "../../src/l2/adapter.ts";

/** Bounds of an {@linkcode ObjectMemory}, in bytes. */
export interface MemoryBounds {
  /** Most bytes of objects. */
  readonly capacityBytes: number;
  /** Bytes above which objects are evicted; left out, nothing is evicted. */
  readonly highBytes?: number;
  /** Bytes that are left then. */
  readonly lowBytes?: number;
}

interface Held {
  readonly key: ObjectKey;
  bytes: Uint8Array<ArrayBuffer>;
  locks: number;
}

/** Objects in host memory, in the order of their last use. */
export class ObjectMemory {
  readonly #bounds: MemoryBounds;
  /** The one that was used longest ago comes first. */
  readonly #held = new Map<string, Held>();
  #usedBytes = 0;
  #lockedObjects = 0;
  #evictedObjects = 0;

  /** Empty. */
  constructor(bounds: MemoryBounds) {
    this.#bounds = bounds;
  }

  /** Bytes of all objects. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Number of objects. */
  get objectCount(): number {
    return this.#held.size;
  }

  /** Number of objects that are locked. */
  get lockedObjects(): number {
    return this.#lockedObjects;
  }

  /** Objects that made room for others. */
  get evictedObjects(): number {
    return this.#evictedObjects;
  }

  /**
   * Copies an object; one that is there under its key is replaced, and stays if there is no room.
   *
   * @returns Whether there was room.
   * @throws {RangeError} If the host has no memory for it.
   */
  put({ key, parts, byteLength }: AdapterObject): boolean {
    const present = this.#held.get(key.id);
    // Nobody else runs between the first byte and the last, so it can be overwritten where it is.
    if (present?.bytes.byteLength === byteLength) {
      copy(parts, present.bytes);
      return true;
    }
    const grownBy = byteLength - (present?.bytes.byteLength ?? 0);
    if (!this.#canMakeRoom(grownBy, byteLength, present)) return false;
    const bytes = this.#makeRoom(grownBy, byteLength, present) ?? new Uint8Array(byteLength);
    copy(parts, bytes);
    this.#usedBytes += grownBy;
    if (present !== undefined) present.bytes = bytes;
    else this.#held.set(key.id, { key, bytes, locks: 0 });
    return true;
  }

  /** Evicts what is above the high watermark, down to the low one. */
  shrink(): void {
    const { highBytes = Infinity, lowBytes = highBytes } = this.#bounds;
    if (this.#usedBytes <= highBytes) return;
    for (const held of this.#held.values()) {
      if (this.#usedBytes <= lowBytes) return;
      if (held.locks === 0) this.#evict(held);
    }
  }

  /** The bytes of an object, which the caller must not keep. */
  get(key: ObjectKey): Uint8Array<ArrayBuffer> | undefined {
    return this.#held.get(key.id)?.bytes;
  }

  /** Counts as used just now; of keys that follow one another, the last leaves first. */
  touch(keys: readonly ObjectKey[]): void {
    for (let i = keys.length - 1; i >= 0; i--) {
      const id = (keys[i] as ObjectKey).id;
      const held = this.#held.get(id);
      if (held === undefined) continue;
      this.#held.delete(id);
      this.#held.set(id, held);
    }
  }

  /** Keeps an object from being evicted or removed; says whether it is there. */
  lock(key: ObjectKey): boolean {
    const held = this.#held.get(key.id);
    if (held === undefined) return false;
    if (held.locks++ === 0) this.#lockedObjects++;
    return true;
  }

  /** Gives up a lock, if there is one. */
  unlock(key: ObjectKey): void {
    const held = this.#held.get(key.id);
    if (held === undefined || held.locks === 0) return;
    if (--held.locks === 0) this.#lockedObjects--;
  }

  /** Removes an object that is not locked. */
  remove(key: ObjectKey): boolean {
    const held = this.#held.get(key.id);
    if (held === undefined || held.locks > 0) return false;
    this.#drop(held);
    return true;
  }

  /** The objects that are there now. */
  list(): ListedObject[] {
    return Array.from(
      this.#held.values(),
      ({ key, bytes: { byteLength } }) => ({ key, byteLength }),
    );
  }

  /** Removes all objects. */
  clear(): void {
    this.#held.clear();
    this.#usedBytes = 0;
    this.#lockedObjects = 0;
  }

  /** Whether eviction can make room: nothing is evicted for what does not fit in the end. */
  #canMakeRoom(grownBy: number, byteLength: number, present: Held | undefined): boolean {
    const { capacityBytes, highBytes } = this.#bounds;
    if (byteLength > capacityBytes) return false;
    let missing = this.#usedBytes + grownBy - capacityBytes;
    if (missing > 0 && highBytes === undefined) return false;
    for (const held of this.#held.values()) {
      if (missing <= 0) break;
      if (held.locks === 0 && held !== present) missing -= held.bytes.byteLength;
    }
    return missing <= 0;
  }

  /** Evicts what was used longest ago; a buffer of the length asked for is returned for reuse. */
  #makeRoom(
    grownBy: number,
    byteLength: number,
    present: Held | undefined,
  ): Uint8Array<ArrayBuffer> | undefined {
    let reusable: Uint8Array<ArrayBuffer> | undefined;
    for (const held of this.#held.values()) {
      if (this.#usedBytes + grownBy <= this.#bounds.capacityBytes) break;
      if (held.locks > 0 || held === present) continue;
      this.#evict(held);
      if (held.bytes.byteLength === byteLength) reusable = held.bytes;
    }
    return reusable;
  }

  #evict(held: Held): void {
    this.#drop(held);
    this.#evictedObjects++;
  }

  #drop(held: Held): void {
    this.#held.delete(held.key.id);
    this.#usedBytes -= held.bytes.byteLength;
  }
}

function copy(parts: readonly Uint8Array[], bytes: Uint8Array): void {
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.byteLength;
  }
}
