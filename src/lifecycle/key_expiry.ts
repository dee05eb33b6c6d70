import { getLogger } from "@logtape/logtape";
import { type BackoffLimits, backoffMs } from "../base/backoff.ts";
import { type Clock, MAX_TIMER_MS } from "../base/clock.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { ForgetBarrier, ForgetTarget } from "./forget_barrier.ts";

/** Delays before expired objects that an adapter still holds are removed again. */
const RETRIES: BackoffLimits = { firstMs: 1_000, maxMs: 60_000 };

/** Options of {@linkcode KeyExpiry}. */
export interface KeyExpiryOptions {
  readonly clock: Clock;
  /** Blocks expired objects until they have been removed. */
  readonly barrier: ForgetBarrier;
  /** Removes objects from every tier; resolves to whether to try again later. */
  readonly remove: (keys: readonly ObjectKey[]) => Promise<boolean>;
}

/**
 * When an object expires. It is `pending` until then, `overdue` while it is being removed, and
 * `retrying` while an adapter that failed to remove it gets a break.
 */
interface Expiration {
  readonly key: ObjectKey;
  phase: "pending" | "overdue" | "retrying";
  /** Time of the next attempt to remove it. */
  at: number;
  /** Number of failed removals. */
  attempts: number;
}

const logger = getLogger(["kvtier", "lifecycle"]);

/** Times to live of keys. */
export class KeyExpiry implements Disposable {
  readonly #options: KeyExpiryOptions;
  readonly #expirations = new Map<string, Expiration>();
  readonly #queue = new ExpirationQueue();
  #isDisposed = false;
  #timerAt = Infinity;
  #cancelTimer = (): void => {};

  /** Starts without times to live. */
  constructor(options: KeyExpiryOptions) {
    this.#options = options;
  }

  /** Number of keys with a time to live, including expired ones that an adapter may still hold. */
  get size(): number {
    return this.#expirations.size;
  }

  /** See {@linkcode KeyLifecycle.ttl}. */
  ttl(keys: readonly ObjectKey[], ms: number | null): void {
    if (ms !== null && !(Number.isFinite(ms) && ms >= 0)) {
      throw new RangeError(`Time to live must be at least 0 ms, or null: received ${ms}`);
    }
    const now = this.#options.clock.now();
    for (const key of keys) {
      this.#end(key);
      if (ms !== null) this.#expect({ key, phase: "pending", at: now + ms, attempts: 0 });
    }
    this.#setTimer();
  }

  /** Ends the times to live of a target. */
  cancel({ keys, matches }: ForgetTarget): void {
    const own = keys ?? [...this.#expirations.values().map(({ key }) => key).filter(matches)];
    for (const key of own) this.#end(key);
    this.#setTimer();
  }

  /** Cancels all expiry. */
  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.#cancelTimer();
    this.#expirations.clear();
  }

  #end(key: ObjectKey): void {
    this.#expirations.delete(key.id);
    this.#options.barrier.unblock(key);
  }

  #expect(expiration: Expiration): void {
    this.#expirations.set(expiration.key.id, expiration);
    this.#queue.push(expiration);
    if (this.#queue.size > 2 * this.#expirations.size + 64) {
      this.#queue.reset(this.#expirations.values().filter(({ phase }) => phase !== "overdue"));
    }
  }

  #isCurrent(expiration: Expiration): boolean {
    return this.#expirations.get(expiration.key.id) === expiration;
  }

  #setTimer(): void {
    if (this.#isDisposed) return;
    let next = this.#queue.first;
    while (next !== undefined && !this.#isCurrent(next)) {
      this.#queue.shift();
      next = this.#queue.first;
    }
    const at = next?.at ?? Infinity;
    if (at === this.#timerAt) return;
    this.#cancelTimer();
    this.#timerAt = at;
    if (next === undefined) return;
    const { clock } = this.#options;
    const delayMs = Math.min(Math.max(0, at - clock.now()), MAX_TIMER_MS);
    const onDue = (): void => {
      this.#timerAt = Infinity;
      this.#expire();
    };
    this.#cancelTimer = clock.schedule(onDue, delayMs, { background: true });
  }

  #expire(): void {
    const { clock, barrier } = this.#options;
    const now = clock.now();
    const due: Expiration[] = [];
    let next = this.#queue.first;
    while (next !== undefined && (next.at <= now || !this.#isCurrent(next))) {
      this.#queue.shift();
      if (this.#isCurrent(next)) {
        next.phase = "overdue";
        barrier.block(next.key);
        due.push(next);
      }
      next = this.#queue.first;
    }
    this.#setTimer();
    if (due.length > 0) this.#remove(due);
  }

  /** Removes objects, and schedules a retry unless a later call changed their expiry. */
  async #remove(due: readonly Expiration[]): Promise<void> {
    const { clock, remove } = this.#options;
    const isAgain = await remove(due.map(({ key }) => key)).catch((error: unknown) => {
      logger.error("Expired objects could not be removed: {error}", { error });
      return true;
    });
    if (this.#isDisposed) return;
    const now = clock.now();
    for (const expiration of due) {
      if (!this.#isCurrent(expiration)) continue;
      if (isAgain) {
        expiration.phase = "retrying";
        expiration.at = now + backoffMs(RETRIES, ++expiration.attempts);
        this.#expect(expiration);
      } else {
        this.#end(expiration.key);
      }
    }
    this.#setTimer();
  }
}

/** Priority queue of expirations: a binary heap, earliest first. */
class ExpirationQueue {
  #heap: Expiration[] = [];

  get size(): number {
    return this.#heap.length;
  }

  get first(): Expiration | undefined {
    return this.#heap[0];
  }

  /** Replaces the contents. */
  reset(expirations: Iterable<Expiration>): void {
    // A sorted array is a heap.
    this.#heap = [...expirations].sort((a, b) => a.at - b.at);
  }

  push(expiration: Expiration): void {
    const heap = this.#heap;
    let i = heap.length;
    while (i > 0) {
      const parent = (i - 1) >>> 1;
      const above = heap[parent] as Expiration;
      if (above.at <= expiration.at) break;
      heap[i] = above;
      i = parent;
    }
    heap[i] = expiration;
  }

  shift(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      const right = heap[child + 1];
      if (right !== undefined && right.at < (heap[child] as Expiration).at) child++;
      const below = heap[child] as Expiration;
      if (below.at >= last.at) break;
      heap[i] = below;
      i = child;
    }
    heap[i] = last;
  }
}
