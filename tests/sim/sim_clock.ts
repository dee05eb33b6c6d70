import { setImmediate } from "node:timers";
import type { Clock } from "../../src/base/clock.ts";

interface Timer {
  readonly at: number;
  /** Breaks ties: callbacks scheduled first are called first. */
  readonly order: number;
  readonly callback: () => void;
  isPending: boolean;
}

/**
 * Simulated time: it stands still while work is pending that needs no time, and then jumps to the
 * next timer.
 */
export class SimClock implements Clock {
  readonly #heap: Timer[] = [];
  #now = 0;
  #order = 0;
  #pending = 0;

  /** Simulated milliseconds since the start. */
  now(): number {
    return this.#now;
  }

  /** Number of scheduled callbacks that are not cancelled. */
  get pendingTimers(): number {
    return this.#pending;
  }

  /** Calls `callback` after `delayMs` simulated milliseconds. */
  schedule(callback: () => void, delayMs: number): () => void {
    const at = this.#now + Math.max(0, delayMs);
    const timer: Timer = { at, order: this.#order++, callback, isPending: true };
    this.#pending++;
    this.#push(timer);
    return () => {
      if (timer.isPending) this.#pending--;
      timer.isPending = false;
    };
  }

  /** A view of the same clock with its own count of scheduled callbacks. */
  view(): SimClockView {
    return new SimClockView(this);
  }

  /** Resolves after the given simulated milliseconds. */
  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.schedule(resolve, ms));
  }

  /** Runs everything that does not wait for time. */
  settle(): Promise<void> {
    return new Promise((resolve) => setImmediate(resolve));
  }

  /**
   * Runs the next scheduled callback and everything that follows from it.
   *
   * @returns Whether there was one.
   */
  async step(): Promise<boolean> {
    for (let timer = this.#pop(); timer !== undefined; timer = this.#pop()) {
      if (!timer.isPending) continue;
      timer.isPending = false;
      this.#pending--;
      this.#now = timer.at;
      timer.callback();
      await this.settle();
      return true;
    }
    return false;
  }

  #push(timer: Timer): void {
    const heap = this.#heap;
    let i = heap.length;
    for (; i > 0;) {
      const parent = (i - 1) >>> 1;
      const above = heap[parent] as Timer;
      if (!isBefore(timer, above)) break;
      heap[i] = above;
      i = parent;
    }
    heap[i] = timer;
  }

  #pop(): Timer | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return first;
    let i = 0;
    for (let child = 1; child < heap.length; child = 2 * i + 1) {
      const right = heap[child + 1];
      if (right !== undefined && isBefore(right, heap[child] as Timer)) child++;
      const below = heap[child] as Timer;
      if (!isBefore(below, last)) break;
      heap[i] = below;
      i = child;
    }
    heap[i] = last;
    return first;
  }
}

/** View of a {@linkcode SimClock} for one part of the simulation. */
export class SimClockView implements Clock {
  readonly #clock: SimClock;
  #pending = 0;

  constructor(clock: SimClock) {
    this.#clock = clock;
  }

  now(): number {
    return this.#clock.now();
  }

  /** Scheduled callbacks of this part that are not cancelled: 0 when nothing leaks. */
  get pendingTimers(): number {
    return this.#pending;
  }

  schedule(callback: () => void, delayMs: number): () => void {
    this.#pending++;
    let isPending = true;
    const end = (): void => {
      if (isPending) this.#pending--;
      isPending = false;
    };
    const cancel = this.#clock.schedule(() => {
      end();
      callback();
    }, delayMs);
    return () => {
      end();
      cancel();
    };
  }
}

function isBefore(a: Timer, b: Timer): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}
