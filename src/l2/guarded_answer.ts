import { Bitmap } from "../keys/bitmap.ts";
import type { TrailerFault } from "../adapter/object_trailer.ts";

/**
 * How a guarded call went: `answered`; `failed`; `timed-out`; `skipped` (the adapter is closed,
 * paused, does not take this operation, or its circuit is open); `abandoned` (the caller stopped
 * waiting, or the adapter was closed).
 */
export type AnswerStatus = "answered" | "failed" | "timed-out" | "skipped" | "abandoned";

/**
 * Outcome for one object: `done` (found, loaded and verified, stored or deleted); `absent` (the
 * adapter answered, but does not have it or did not take it); `damaged` (loaded, but not what was
 * stored); otherwise how the call went.
 */
export type ObjectOutcome = "done" | "absent" | "damaged" | Exclude<AnswerStatus, "answered">;

const NO_FAULTS: ReadonlyMap<number, TrailerFault> = new Map();

/** Answer of a guarded call about a batch of objects. */
export class GuardedAnswer {
  readonly status: AnswerStatus;
  /**
   * One bit for each object: whether it was found, loaded and verified, stored or deleted. Belongs
   * to the caller.
   */
  readonly done: Bitmap;
  /** Faults of loaded objects that are not what was stored, by index. */
  readonly faults: ReadonlyMap<number, TrailerFault>;
  /** Bytes that a deletion freed. */
  readonly bytes: number;
  /**
   * Resolves when an adapter that missed its deadline has released the buffers; `undefined` if it
   * has already done so.
   */
  readonly settled: Promise<void> | undefined;

  /** Creates an answer; `done` is a bitmap, or the number of objects of which none is done. */
  constructor(
    status: AnswerStatus,
    done: Bitmap | number,
    details: {
      readonly faults?: ReadonlyMap<number, TrailerFault> | undefined;
      readonly bytes?: number | undefined;
      readonly settled?: Promise<void> | undefined;
    } = {},
  ) {
    this.status = status;
    this.done = typeof done === "number" ? new Bitmap(done) : done;
    this.faults = details.faults ?? NO_FAULTS;
    this.bytes = details.bytes ?? 0;
    this.settled = details.settled;
  }

  /** Outcome for the object at `index`. */
  outcomeOf(index: number): ObjectOutcome {
    if (this.done.test(index)) return "done";
    if (this.faults.has(index)) return "damaged";
    return this.status === "answered" ? "absent" : this.status;
  }
}
