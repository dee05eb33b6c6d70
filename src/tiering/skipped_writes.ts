import type { L1Status } from "../l1/l1_cache.ts";
import type { Clock } from "../runtime/clock.ts";
import { Overload } from "./overload.ts";

/** Why L1 did not take an object that an engine wanted to write. */
export type SkipReason = Extract<L1Status, "out-of-memory" | "quota-exceeded" | "device-lost">;

/** Counts objects that L1 did not take, and says what to change when that persists. */
export class SkippedWrites {
  readonly #objects: Record<SkipReason, number> = {
    "out-of-memory": 0,
    "quota-exceeded": 0,
    "device-lost": 0,
  };
  readonly #noRoom: Overload;
  readonly #overQuota: Overload;

  /** Nothing was skipped yet. */
  constructor(clock: Clock) {
    this.#noRoom = new Overload(clock);
    this.#overQuota = new Overload(clock);
  }

  /** Objects that were not taken so far. */
  get objects(): Readonly<Record<SkipReason, number>> {
    return { ...this.#objects };
  }

  /** Counts objects that were not taken together. */
  note(reason: SkipReason, objects: number): void {
    this.#objects[reason] += objects;
    if (reason === "out-of-memory") this.#noRoom.note(objects);
    if (reason === "quota-exceeded") this.#overQuota.note(objects);
  }

  /**
   * What does not work, in words.
   *
   * @param waitsForAdapters Whether most of L1 is kept for adapters that do not have it yet.
   */
  problems(waitsForAdapters: boolean): string[] {
    const noRoom = this.#noRoom.objects;
    const overQuota = this.#overQuota.objects;
    const remedy = waitsForAdapters
      ? "the adapters are slower than what is put: await storeReady() before put(), or let " +
        'store.whenFull "drop_new" or "drop_oldest" leave objects out'
      : "raise l1.capacityBytes, or dispose hits and unpin keys earlier";
    return [
      ...noRoom === 0 ? [] : [`L1 had no room for ${noRoom} objects lately: ${remedy}`],
      ...overQuota === 0 ? [] : [
        `quotas left no room for ${overQuota} objects lately: raise l1Bytes with quota.set(), or ` +
        "dispose hits earlier",
      ],
    ];
  }
}

/** Whether an object was not taken for want of room or of a device. */
export function isSkip(status: L1Status): status is SkipReason {
  return status === "out-of-memory" || status === "quota-exceeded" || status === "device-lost";
}
