import type { L1Status } from "../l1/l1_cache.ts";
import type { Clock } from "../base/clock.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { ObjectLayout } from "../keys/kv_layout.ts";
import { Overload } from "./overload.ts";
import type { StoreController } from "./store_controller.ts";

/** Why L1 had no memory for an object that an engine wanted to write. */
export type SkipReason = Extract<L1Status, "out-of-memory" | "quota-exceeded" | "device-lost">;

/** Options of {@linkcode SkippedWrites}. */
export interface SkippedWritesOptions {
  readonly clock: Clock;
  /** Stores dirty objects, so that they can be evicted. */
  readonly store: StoreController;
  /** Called when objects were skipped. */
  readonly onSkipped: (objects: number, reason: SkipReason) => void;
}

/**
 * Objects that L1 rejected: counts them, has dirty objects stored so that later writes find room,
 * and suggests a remedy when rejections persist.
 */
export class SkippedWrites {
  readonly #options: SkippedWritesOptions;
  readonly #objects: Record<SkipReason, number> = {
    "out-of-memory": 0,
    "quota-exceeded": 0,
    "device-lost": 0,
  };
  readonly #noRoom: Overload;
  readonly #overQuota: Overload;
  /** Salts whose dirty objects are being stored. */
  readonly #relieved = new Set<string>();

  /** Starts with all counts at zero. */
  constructor(options: SkippedWritesOptions) {
    this.#options = options;
    this.#noRoom = new Overload(options.clock);
    this.#overQuota = new Overload(options.clock);
  }

  /** Objects rejected so far, by reason. */
  get objects(): Readonly<Record<SkipReason, number>> {
    return { ...this.#objects };
  }

  /**
   * Handles a rejected write.
   *
   * @param objects Number of objects to count as skipped.
   */
  rejected(
    reason: SkipReason,
    keys: readonly ObjectKey[],
    layout: ObjectLayout,
    objects: number,
  ): void {
    const { store, onSkipped } = this.#options;
    if (objects > 0) {
      this.#objects[reason] += objects;
      if (reason === "out-of-memory") this.#noRoom.note(objects);
      if (reason === "quota-exceeded") this.#overQuota.note(objects);
      onSkipped(objects, reason);
    }
    // Memory of dirty objects becomes evictable when the adapters have stored them.
    if (reason === "out-of-memory") store.relieve(keys.length * layout.byteLength);
    if (reason === "quota-exceeded") { for (const key of keys) this.#relieve(key.cacheSalt); }
  }

  /**
   * Current problems, as sentences with a remedy.
   *
   * @param waitsForAdapters Whether most of L1 is dirty: it waits to be stored in the adapters.
   */
  problems(waitsForAdapters: boolean): string[] {
    const noRoom = this.#noRoom.objects;
    const overQuota = this.#overQuota.objects;
    const remedy = waitsForAdapters
      ? "objects are put faster than the adapters store them: await storeReady() before put(), or set " +
        'store.whenFull to "drop_new" or "drop_oldest"'
      : "raise l1.capacityBytes, or dispose hits and unpin keys earlier";
    return [
      ...noRoom === 0 ? [] : [`L1 recently had no room for ${noRoom} objects: ${remedy}`],
      ...overQuota === 0 ? [] : [
        `quotas recently left no room for ${overQuota} objects: raise l1Bytes with quota.set(), or ` +
        "dispose hits earlier",
      ],
    ];
  }

  /** Stores the dirty objects of a salt, so that they can be evicted for others of that salt. */
  async #relieve(salt: string): Promise<void> {
    if (this.#relieved.has(salt)) return;
    this.#relieved.add(salt);
    await this.#options.store.settle({ matches: ({ cacheSalt }) => cacheSalt === salt });
    this.#relieved.delete(salt);
  }
}

/** Whether a status means that L1 had no memory for an object. */
export function isSkip(status: L1Status | undefined): status is SkipReason {
  return status === "out-of-memory" || status === "quota-exceeded" || status === "device-lost";
}
