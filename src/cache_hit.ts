import type { L1Cache, L1Lease } from "./l1/l1_cache.ts";
import { DeviceLostError, type MemoryDevice, type MemoryRange } from "./memory/memory_device.ts";
import { decisionInWords } from "./prefetch/load_decision.ts";
import { type MatchReport, reportOf, sharesInWords } from "./prefetch/match_report.ts";
import { missInWords } from "./prefetch/miss_reason.ts";
import type { PrefetchResult } from "./prefetch/prefetch_request.ts";

/** Result of {@linkcode TieredCache.warm}. */
export interface WarmResult {
  /** Number of chunks of the prefix that are now in device memory. */
  readonly length: number;
  /** Number of its objects that were already there. */
  readonly l1Objects: number;
}

/** The longest available prefix of a chain of objects, leased until disposed. */
export class CacheHit implements Disposable {
  /** Number of chunks in the prefix. */
  readonly length: number;
  /** Number of its objects that were already in L1. */
  readonly l1Objects: number;
  /** Where the objects came from, and why the prefix is not longer. */
  readonly report: MatchReport;
  readonly #leases: readonly (readonly L1Lease[])[];
  readonly #l1: L1Cache;
  readonly #device: MemoryDevice;

  /** @ignore Created by {@linkcode TieredCache.match}. */
  constructor(l1: L1Cache, result: PrefetchResult, askedChunks: number) {
    this.#l1 = l1;
    this.#device = l1.device;
    this.#leases = result.leases;
    this.length = result.length;
    this.l1Objects = result.l1Objects;
    this.report = reportOf(result, askedChunks);
  }

  /**
   * Ranges of the objects of a group in device memory, in chunk order; of a group with a window,
   * only the last ones. They are valid until the hit is disposed, and no longer than `l1.readTtlMs`
   * unless {@linkcode renew} is called.
   *
   * @throws {DeviceLostError} If the device has been lost.
   * @throws {Error} If the hit was disposed, or its leases expired.
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
   * Extends the leases by another `l1.readTtlMs`, for callers that read the objects in place for a
   * long time.
   *
   * @returns Whether the objects are still leased; if not, their ranges may belong to other
   * objects.
   */
  renew(): boolean {
    return !this.#device.isLost && this.#leases.every((leases) => this.#l1.renew(leases));
  }

  /** Says in one sentence what was found where, and why the prefix is not longer. */
  explain(): string {
    const { length, askedChunks, l1Objects, adapters, otherObjects, miss, decision } = this.report;
    const objects = l1Objects + otherObjects +
      adapters.reduce((sum, { objects }) => sum + objects, 0);
    const parts = [
      { from: "L1", amount: l1Objects },
      ...adapters.map(({ type, objects }) => ({ from: type, amount: objects })),
      { from: "concurrent work", amount: otherObjects },
    ];
    const found = `${length} of ${askedChunks} chunks were found (${
      sharesInWords(objects, parts)
    })`;
    if (decision !== undefined) return `${found}; ${decisionInWords(decision)}.`;
    return miss === undefined
      ? `${found}.`
      : `${found}; ${missInWords(miss.reason, `chunk ${miss.chunk}`)}.`;
  }

  /** Ends the leases. */
  [Symbol.dispose](): void {
    for (const leases of this.#leases) this.#l1.finishRead(leases);
  }
}
