import type { L1Status } from "../l1/l1_cache.ts";
import type { Clock } from "../base/clock.ts";
import { Overload } from "./overload.ts";

/** Why L1 had no memory for an object that an engine wanted to write. */
export type SkipReason = Extract<L1Status, "out-of-memory" | "quota-exceeded" | "device-lost">;

/** Counts objects that L1 rejected, and suggests a remedy when that persists. */
export class SkippedWrites {
  readonly #objects: Record<SkipReason, number> = {
    "out-of-memory": 0,
    "quota-exceeded": 0,
    "device-lost": 0,
  };
  readonly #noRoom: Overload;
  readonly #overQuota: Overload;

  /** Starts with all counts at zero. */
  constructor(clock: Clock) {
    this.#noRoom = new Overload(clock);
    this.#overQuota = new Overload(clock);
  }

  /** Objects rejected so far, by reason. */
  get objects(): Readonly<Record<SkipReason, number>> {
    return { ...this.#objects };
  }

  /** Counts objects that were rejected together. */
  note(reason: SkipReason, objects: number): void {
    this.#objects[reason] += objects;
    if (reason === "out-of-memory") this.#noRoom.note(objects);
    if (reason === "quota-exceeded") this.#overQuota.note(objects);
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
}

/** Whether a status means that L1 had no memory for an object. */
export function isSkip(status: L1Status): status is SkipReason {
  return status === "out-of-memory" || status === "quota-exceeded" || status === "device-lost";
}
