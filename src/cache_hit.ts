import type { L1Cache, L1Lease } from "./l1/l1_cache.ts";
import { DeviceLostError, type MemoryDevice, type MemoryRange } from "./memory/memory_device.ts";
import type { PrefetchResult } from "./tiering/prefetch_request.ts";

/** The longest available prefix of a chain of objects, leased until disposed. */
export class CacheHit implements Disposable {
  /** How many chunks the prefix has. */
  readonly length: number;
  /** How many of its objects were in L1 before. */
  readonly l1Objects: number;
  readonly #leases: readonly (readonly L1Lease[])[];
  readonly #l1: L1Cache;
  readonly #device: MemoryDevice;

  /** @ignore Made by {@linkcode TieredCache.match}. */
  constructor(l1: L1Cache, result: PrefetchResult) {
    this.#l1 = l1;
    this.#device = l1.device;
    this.#leases = result.leases;
    this.length = result.length;
    this.l1Objects = result.l1Objects;
  }

  /**
   * Where the objects of a group lie in device memory, in order; theirs until the hit is disposed,
   * and no longer than `l1.readTtlMs` unless {@linkcode renew} is called. Of a group with a window they are the last ones.
   *
   * @throws {DeviceLostError} If the device was lost since.
   * @throws {Error} If the hit was disposed, or held for longer than leases live.
   */
  ranges(group = 0): MemoryRange[] {
    if (this.#device.isLost) {
      throw new DeviceLostError(
        "GPU device is lost: call attachDevice() with a new one, and match again",
      );
    }
    const leases = this.#leases[group] ?? [];
    if (!this.#l1.areLeased(leases)) {
      throw new Error("Hit is no longer leased: it was disposed or expired; match again");
    }
    return leases.map(({ range }) => range);
  }

  /**
   * Keeps the objects for another `l1.readTtlMs`, for who reads them in place for long.
   *
   * @returns Whether they are still there; if not, their ranges may be others' already.
   */
  renew(): boolean {
    return !this.#device.isLost && this.#leases.every((leases) => this.#l1.renew(leases));
  }

  /** Gives up the leases. */
  [Symbol.dispose](): void {
    for (const leases of this.#leases) this.#l1.finishRead(leases);
  }
}
