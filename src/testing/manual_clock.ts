import type { Clock } from "../base/clock.ts";

interface Timer {
  readonly at: number;
  readonly callback: () => void;
}

/** A clock that only advances when a test advances it. */
export class ManualClock implements Clock {
  #now = 0;
  readonly #timers = new Set<Timer>();

  /** Milliseconds by which the clock has been advanced. */
  now(): number {
    return this.#now;
  }

  /** Number of scheduled calls that have neither run nor been cancelled: 0 if nothing leaks. */
  get pendingTimers(): number {
    return this.#timers.size;
  }

  /** Calls `callback` when the clock has advanced by `delayMs` milliseconds. */
  schedule(callback: () => void, delayMs: number): () => void {
    const timer = { at: this.#now + Math.max(0, delayMs), callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  /**
   * Advances the clock by `ms` milliseconds and runs the callbacks that become due, in order of
   * time. Pending promise reactions run before the first callback and after each one.
   */
  async advance(ms: number): Promise<void> {
    await settle();
    const end = this.#now + ms;
    for (;;) {
      const due = [...this.#timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at).at(0);
      if (due === undefined) break;
      this.#timers.delete(due);
      this.#now = Math.max(this.#now, due.at);
      due.callback();
      await settle();
    }
    this.#now = end;
    await settle();
  }
}

/** Runs pending promise reactions, including those that they cause, without waiting in real time. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await Promise.resolve();
}
