import type { WrittenObject } from "../l1/l1_cache.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";

/**
 * Phase of an object for one adapter:
 *
 * - `new`: chosen for the adapter.
 * - `queued`: it waits for a batch.
 * - `storing`: it is part of a batch in flight.
 * - `backing-off`: an attempt failed; it is queued again after a delay.
 * - `stored`: the adapter has it.
 * - `dropped`: the adapter will not get it.
 */
export type StorePhase = "new" | "queued" | "storing" | "backing-off" | "stored" | "dropped";

/** Objects that failed together and back off until a timer fires. */
export interface RetryGroup {
  readonly objects: Set<DirtyObject>;
  readonly cancelTimer: () => void;
}

/** What one adapter does with an object. */
export interface StoreShare {
  phase: StorePhase;
  /** Number of failed attempts. */
  attempts: number;
  /** Group with which it backs off. */
  retry?: RetryGroup;
}

/** Waits until the adapters have answered for a number of objects. */
export interface StoreWaiter {
  /** Objects without an answer. */
  left: number;
  /** Called when every object has an answer. */
  readonly resolve: () => void;
}

/** A dirty object: written by an engine and not yet in every chosen adapter. */
export class DirtyObject {
  /** Key and layout of the object. */
  readonly object: WrittenObject;
  /** Adapters that have neither stored nor dropped it. */
  readonly shares = new Map<AdapterGuard, StoreShare>();
  /** Number of adapters for which it is queued or backing off. */
  waiting = 0;
  readonly waiters = new Set<StoreWaiter>();
  /** Whether at least one adapter has stored it. */
  isStored = false;
  /**
   * Why it is not offered to adapters any more: it left L1 (`lost`), was forgotten, or the
   * controller was disposed (`removed`).
   */
  gone: "lost" | "forgotten" | "removed" | undefined;

  constructor(object: WrittenObject) {
    this.object = object;
  }

  get bytes(): number {
    return this.object.layout.byteLength;
  }

  /** Tells the waiters that every adapter has answered. */
  tellWaiters(): void {
    const waiters = [...this.waiters];
    this.waiters.clear();
    for (const waiter of waiters) if (--waiter.left === 0) waiter.resolve();
  }
}
