import type { AdapterGuard } from "../l2/adapter_guard.ts";
import type { Clock } from "../base/clock.ts";
import { type DropReason, type FlushReport, UnwrittenTally } from "./flush_report.ts";
import { Overload } from "./overload.ts";
import type { DirtyObject } from "./dirty_object.ts";
import type { StoreControllerOptions, StoreStatus } from "./store_types.ts";

/** Counters of objects that adapters did not get. */
type LossCounters = Pick<StoreStatus, "failedObjects" | "droppedObjects" | "lostObjects">;

/**
 * Objects that adapters did not get although the policy chose them: counted, passed to
 * `onDropped`, and reported once.
 */
export class StoreLosses {
  readonly #counters = { failedObjects: 0, droppedObjects: 0, lostObjects: 0 };
  readonly #onDropped: StoreControllerOptions["onDropped"];
  readonly #unwritten = new UnwrittenTally();
  readonly #fullQueues: Overload;
  /** Tally at the time of the previous report. */
  #reported = new UnwrittenTally();

  /** Starts with all counts at zero. */
  constructor(clock: Clock, onDropped: StoreControllerOptions["onDropped"]) {
    this.#onDropped = onDropped;
    this.#fullQueues = new Overload(clock);
  }

  get counters(): LossCounters {
    return { ...this.#counters };
  }

  /** Records that adapters will not get an object. */
  count(guards: readonly AdapterGuard[], { gone }: DirtyObject, reason: DropReason): void {
    const objects = guards.length;
    if (objects === 0) return;
    if (reason === "failed") this.#counters.failedObjects += objects;
    else if (reason === "lost") this.#counters.lostObjects += objects;
    else this.#counters.droppedObjects += objects;
    if (reason === "full") this.#fullQueues.note(objects);
    if (gone !== "forgotten") {
      for (const guard of guards) this.#unwritten.add(guard, reason, 1);
    }
    this.#onDropped?.(objects, reason);
  }

  /**
   * Starts a report of what was lost since the previous one.
   *
   * @returns A function that completes the report. It takes the adapters that have not answered,
   * each once for each object.
   */
  startReport(): (unanswered: readonly AdapterGuard[]) => FlushReport {
    const before = this.#reported;
    return (unanswered) => {
      this.#reported = this.#unwritten.copy();
      const missing = this.#unwritten.copy();
      for (const guard of unanswered) missing.add(guard, "deadline", 1);
      const unwritten = missing.since(before);
      return { isComplete: unwritten.length === 0, unwritten };
    };
  }

  /** Current problems, as sentences with a remedy. */
  problems(): string[] {
    const { objects } = this.#fullQueues;
    if (objects === 0) return [];
    return [
      `${objects} objects were recently dropped because queues were full: await storeReady() before put(), raise ` +
      'store.maxQueuedBytes, or set store.whenFull to "wait"',
    ];
  }
}
