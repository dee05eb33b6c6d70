import type { Clock } from "../base/clock.ts";
import { LruMap } from "../base/lru_map.ts";
import type { StorePolicy } from "./store_policy.ts";

/** Objects remembered after their first write at most. */
const MAX_REMEMBERED = 131_072;
/** Time after which written bytes count no more: a day in slots of an hour. */
const SLOT_MS = 3_600_000;
const SLOTS = 24;

/** Why an object is not stored in the adapters: for now, or not at all. */
export type AdmissionRefusal =
  /** It was written for the first time, and the policy stores what is written or hit again. */
  | "first-touch"
  /** The bytes of the last day reach `store.bytesPerDay`. */
  | "bytes-per-day";

/** Decides which objects are worth a write to the adapters, and counts the others. */
export class StoreAdmission {
  readonly #clock: Clock;
  readonly #bytesPerDay: number;
  readonly #isSecondTouch: boolean;
  /** Ids of objects that were refused once. */
  readonly #touched = new LruMap<string>((id) => id, MAX_REMEMBERED);
  readonly #counts: Record<AdmissionRefusal, number> = { "first-touch": 0, "bytes-per-day": 0 };
  /** Bytes by hour; each slot has the number of its hour. */
  readonly #slots: { hour: number; bytes: number }[] = [];

  /** @param bytesPerDay Bytes to store within a day at most. */
  constructor(policy: StorePolicy, bytesPerDay: number, clock: Clock) {
    this.#clock = clock;
    this.#bytesPerDay = bytesPerDay;
    this.#isSecondTouch = policy.admits === "second-touch";
  }

  /** Objects refused so far, by reason; an object may be admitted later. */
  get refused(): Readonly<Record<AdmissionRefusal, number>> {
    return { ...this.#counts };
  }

  /**
   * Decides on an object that was written, or hit after it was refused.
   *
   * @param bytes Bytes that all adapters together would write.
   * @returns The reason if it is not to be stored now.
   */
  refusal(id: string, bytes: number): AdmissionRefusal | undefined {
    let reason: AdmissionRefusal | undefined;
    if (this.#isSecondTouch && !this.#touched.has(id)) reason = "first-touch";
    else if (!this.#spend(bytes)) reason = "bytes-per-day";
    if (reason === undefined) this.#touched.delete(id);
    else {
      this.#counts[reason]++;
      if (this.#isSecondTouch) this.#touched.put(id);
    }
    return reason;
  }

  /** Whether an object was refused, and a hit of it is a reason to ask again. */
  isWaiting(id: string): boolean {
    return this.#touched.has(id);
  }

  /** Whether anything may be waiting. */
  get hasWaiting(): boolean {
    return this.#touched.size > 0;
  }

  #spend(bytes: number): boolean {
    if (this.#bytesPerDay === Infinity) return true;
    const hour = Math.floor(this.#clock.now() / SLOT_MS);
    const recent = this.#slots.filter((slot) => hour - slot.hour < SLOTS);
    this.#slots.splice(0, Infinity, ...recent);
    const used = recent.reduce((sum, slot) => sum + slot.bytes, 0);
    if (used + bytes > this.#bytesPerDay) return false;
    const last = recent.at(-1);
    if (last?.hour === hour) last.bytes += bytes;
    else this.#slots.push({ hour, bytes });
    return true;
  }
}
