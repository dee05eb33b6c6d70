import { getLogger } from "@logtape/logtape";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import type { Clock } from "../runtime/clock.ts";
import { type FlushReport, UnwrittenTally } from "./flush_report.ts";
import { Overload } from "./overload.ts";
import type { DirtyObject } from "./store_lane.ts";
import type { DropReason, StoreListener, StoreStatus } from "./store_types.ts";

/** Counters of what adapters did not get. */
type LossCounters = Pick<StoreStatus, "failedObjects" | "droppedObjects" | "lostObjects">;

const logger = getLogger(["kvtier", "store"]);

/** What adapters should have got and did not: counted, told, and reported once. */
export class StoreLosses {
  readonly #counters = { failedObjects: 0, droppedObjects: 0, lostObjects: 0 };
  readonly #listeners = new Set<StoreListener>();
  readonly #unwritten = new UnwrittenTally();
  readonly #fullQueues: Overload;
  /** What was unwritten when that was last reported. */
  #reported = new UnwrittenTally();

  /** Nothing is lost yet. */
  constructor(clock: Clock) {
    this.#fullQueues = new Overload(clock);
  }

  /** Counters now. */
  get counters(): LossCounters {
    return { ...this.#counters };
  }

  /** Adds a listener. */
  addListener(listener: StoreListener): void {
    this.#listeners.add(listener);
  }

  /** Adapters do not get an object. */
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
    for (const listener of this.#listeners) {
      try {
        listener.dropped?.(objects, reason);
      } catch (error) {
        logger.error("A listener of the store failed: {error}", { error });
      }
    }
  }

  /**
   * Starts a report of what was lost since the one before.
   *
   * @returns Ends it, given the adapters that have not answered: each once for each object.
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

  /** What does not work, in words. */
  problems(): string[] {
    const { objects } = this.#fullQueues;
    if (objects === 0) return [];
    return [
      `full queues cost adapters ${objects} objects lately: await storeReady() before put(), raise ` +
      'store.maxQueuedBytes, or set store.whenFull to "wait"',
    ];
  }
}
