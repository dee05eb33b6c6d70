import type { AdapterObject } from "../adapter/contract.ts";
import type { TrailerFault } from "../adapter/object_trailer.ts";
import type { Bitmap } from "../keys/bitmap.ts";

/** Counters of one adapter, by the names that its status has for them. */
export class AdapterCounters {
  storedObjects = 0;
  storedBytes = 0;
  failedStores = 0;
  lookedUpKeys = 0;
  foundKeys = 0;
  loadedObjects = 0;
  loadedBytes = 0;
  unverifiedLoads = 0;
  missedLoads = 0;
  timeouts = 0;
  failedCalls = 0;
  skippedCalls = 0;
  readonly damagedObjects: Partial<Record<TrailerFault, number>> = {};

  addStore(stored: Bitmap, bytes: number): void {
    const count = stored.popcount();
    this.storedObjects += count;
    this.storedBytes += bytes;
    this.failedStores += stored.length - count;
  }

  addLookup(found: Bitmap): void {
    this.lookedUpKeys += found.length;
    this.foundKeys += found.popcount();
  }

  addLoad(loaded: Bitmap, objects: readonly AdapterObject[], isUnsealed: boolean): void {
    const indices = loaded.indices();
    for (const i of indices) this.loadedBytes += objects[i]?.byteLength ?? 0;
    this.loadedObjects += indices.length;
    this.missedLoads += objects.length - indices.length;
    if (isUnsealed) this.unverifiedLoads += indices.length;
  }

  addDamage(fault: TrailerFault): void {
    this.damagedObjects[fault] = (this.damagedObjects[fault] ?? 0) + 1;
  }

  addFailure(isTimeout: boolean): void {
    this.failedCalls++;
    if (isTimeout) this.timeouts++;
  }
}
