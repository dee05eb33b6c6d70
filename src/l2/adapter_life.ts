import { untilAborted } from "../base/abort.ts";
import type { AdapterState } from "./adapter_status.ts";

/** States that may follow each state; an adapter never returns to an earlier one. */
const NEXT_STATES: Readonly<Record<AdapterState, readonly AdapterState[]>> = {
  active: ["migrating", "draining", "closed"],
  migrating: ["draining", "closed"],
  draining: ["closed"],
  closed: [],
};

/**
 * Life cycle of an adapter in the cache: its state, the lookup locks that are held on its objects,
 * and whether it is idle.
 */
export class AdapterLife {
  readonly #hasCalls: () => boolean;
  readonly #onChange: () => void;
  readonly #idleWaiters = new Set<() => void>();
  #state: AdapterState = "active";
  #locks = 0;

  /**
   * Starts active.
   *
   * @param hasCalls Whether calls are in flight.
   * @param onChange Called when the state has changed.
   */
  constructor(hasCalls: () => boolean, onChange: () => void) {
    this.#hasCalls = hasCalls;
    this.#onChange = onChange;
  }

  get state(): AdapterState {
    return this.#state;
  }

  /** Lookup locks that have not been released. */
  get locks(): number {
    return this.#locks;
  }

  get takesStores(): boolean {
    return this.#state === "active";
  }

  get takesLookups(): boolean {
    return this.#state === "active" || this.#state === "migrating";
  }

  /** Enters a state, unless it is the current or an earlier one. */
  enter(state: AdapterState): void {
    if (!NEXT_STATES[this.#state].includes(state)) return;
    this.#state = state;
    this.#onChange();
  }

  addLocks(count: number): void {
    this.#locks += count;
  }

  releaseLocks(count: number): void {
    this.#locks = Math.max(0, this.#locks - count);
    this.wakeIfIdle();
  }

  /**
   * Resolves when no call is in flight and no lock is left.
   *
   * @throws The reason of `signal` if that aborts first.
   */
  async idle(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    if (this.#isIdle) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#idleWaiters.add(resolve);
    await untilAborted(signal, promise).finally(() => this.#idleWaiters.delete(resolve));
  }

  /** To be called when no call is in flight any more. */
  wakeIfIdle(): void {
    if (!this.#isIdle) return;
    for (const wake of this.#idleWaiters) wake();
    this.#idleWaiters.clear();
  }

  get #isIdle(): boolean {
    return !this.#hasCalls() && this.#locks === 0;
  }
}
