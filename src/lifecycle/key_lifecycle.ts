import { getLogger } from "@logtape/logtape";
import { type BackoffLimits, backoffMs } from "../base/backoff.ts";
import { type ObjectKey, validateCacheSalt, validateModelName } from "../keys/object_key.ts";
import type { L1Cache } from "../l1/l1_cache.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import { type Clock, MAX_TIMER_MS, wait } from "../base/clock.ts";
import { checkNotNullish, checkOptionKeys } from "../base/options.ts";
import type { ForgetBarrier, ForgetTarget } from "./forget_barrier.ts";
import { REMOVAL_BATCH, removeObjects } from "../eviction/remove_objects.ts";

/** Number of retries for an object that an adapter did not remove at first. */
const FURTHER_TRIES = 3;
const TRY_AGAIN_MS = 100;
/** Delays before expired objects that an adapter still holds are removed again. */
const RETRIES: BackoffLimits = { firstMs: 1_000, maxMs: 60_000 };

/** Objects to forget: those with the given keys, all under a cache salt, or all of a model. */
export type ForgetSelector =
  | { readonly keys: readonly ObjectKey[] }
  | { readonly salt: string }
  | { readonly model: string };

/** What was forgotten, and where. */
export interface ForgetReport {
  /** Objects and bytes removed from device memory. */
  readonly l1: { readonly objects: number; readonly bytes: number };
  /** One entry for each adapter. */
  readonly adapters: readonly {
    /** Id of the adapter in the cache. */
    readonly id: number;
    /** Type of the adapter. */
    readonly type: string;
    /** Objects removed from it. */
    readonly objects: number;
    /** Bytes removed from it. */
    readonly bytes: number;
    /** Whether it is certain that it holds none of the objects any more. */
    readonly complete: boolean;
    /** Why that is not certain, and what to do. */
    readonly problem?: string;
  }[];
}

/** Status of a {@linkcode KeyLifecycle}. */
export interface LifecycleStatus {
  /** Number of pinned keys. */
  readonly pinned: number;
  /** Number of keys with a time to live, including expired ones that an adapter may still hold. */
  readonly expiring: number;
  /** Number of forgets in progress. */
  readonly forgetting: number;
}

/** Options of {@linkcode KeyLifecycle}. */
export interface KeyLifecycleOptions {
  /** Cache in device memory. */
  readonly l1: L1Cache;
  /** Returns the adapters currently in use. */
  readonly adapters: () => readonly AdapterGuard[];
  /** Clock for expiry and retries. */
  readonly clock: Clock;
  /** Blocks what is being forgotten. */
  readonly barrier: ForgetBarrier;
}

interface Expiration {
  readonly key: ObjectKey;
  readonly at: number;
  /** Number of failed removals. */
  readonly attempts: number;
}

type AdapterReport = ForgetReport["adapters"][number];

const logger = getLogger(["kvtier", "lifecycle"]);

/** Controls the lifetime of objects in all tiers: pins, times to live, and forgetting. */
export class KeyLifecycle implements Disposable {
  readonly #options: KeyLifecycleOptions;
  readonly #pinned = new Map<string, ObjectKey>();
  readonly #expirations = new Map<string, Expiration>();
  readonly #queue = new ExpirationQueue();
  /** Expired objects that an adapter may still hold. */
  readonly #overdue = new Map<string, Expiration>();
  readonly #closing = new AbortController();
  #timerAt = Infinity;
  #cancelTimer = (): void => {};

  /** Starts without pins and times to live. */
  constructor(options: KeyLifecycleOptions) {
    this.#options = options;
  }

  /**
   * Keeps objects under these keys, present and future, from being evicted until {@linkcode unpin}.
   */
  pin(keys: readonly ObjectKey[]): void {
    for (const key of keys) this.#pinned.set(key.id, key);
    this.#options.l1.pin(keys);
  }

  /**
   * Reverses {@linkcode pin}, however often it was called; keys that are not pinned are ignored.
   */
  unpin(keys: readonly ObjectKey[]): void {
    for (const { id } of keys) this.#pinned.delete(id);
    this.#options.l1.unpin(keys);
  }

  isPinned(key: ObjectKey): boolean {
    return this.#pinned.has(key.id);
  }

  /**
   * Removes objects from every tier after `ms` milliseconds. A later call for the same key replaces
   * this one; `null` cancels it. Removals that fail are retried.
   *
   * @throws {RangeError} If `ms` is negative or not finite.
   */
  ttl(keys: readonly ObjectKey[], ms: number | null): void {
    if (ms !== null && !(Number.isFinite(ms) && ms >= 0)) {
      throw new RangeError(`Time to live must be at least 0 ms, or null: received ${ms}`);
    }
    const now = this.#options.clock.now();
    for (const key of keys) {
      this.#overdue.delete(key.id);
      this.#options.barrier.unblock(key);
      if (ms === null) this.#expirations.delete(key.id);
      else this.#expect({ key, at: now + ms, attempts: 0 });
    }
    this.#setTimer();
  }

  /**
   * Removes objects from every tier, with their pins and times to live. The report names each
   * adapter that could not remove them, and what to do about it.
   *
   * @throws {TypeError} If the selector does not have exactly one of `keys`, `salt` and `model`, or
   * has a value that no object can have.
   */
  async forget(selector: ForgetSelector): Promise<ForgetReport> {
    const target = parseSelector(selector);
    for (const marks of [this.#expirations, this.#overdue]) {
      for (const { key } of chosen(marks, target, ({ key }) => key)) {
        marks.delete(key.id);
        this.#options.barrier.unblock(key);
      }
    }
    this.#setTimer();
    return await this.#forget(target);
  }

  reportStatus(): LifecycleStatus {
    return {
      pinned: this.#pinned.size,
      expiring: this.#expirations.size +
        this.#overdue.keys().filter((id) => !this.#expirations.has(id)).toArray().length,
      forgetting: this.#options.barrier.forgets,
    };
  }

  /** Cancels all expiry, and stops retrying removals. */
  [Symbol.dispose](): void {
    this.#closing.abort();
    this.#cancelTimer();
    this.#expirations.clear();
    this.#overdue.clear();
  }

  /**
   * Everything before the first `await` is synchronous: L1 holds none of the objects when the call
   * returns.
   */
  async #forget(target: ForgetTarget): Promise<ForgetReport> {
    const { l1, adapters, barrier } = this.#options;
    const { matches, keys } = target;
    using _blocked = barrier.raise(target);
    this.unpin(chosen(this.#pinned, target, (key) => key));
    const first = l1.forget(matches, keys);
    await barrier.passed(target);
    const removed = await Promise.all(adapters().map((guard) => this.#forgetIn(guard, target)));
    // Objects that were being loaded when the forget started.
    const second = l1.forget(matches, keys);
    return {
      l1: { objects: first.objects + second.objects, bytes: first.bytes + second.bytes },
      adapters: removed,
    };
  }

  async #forgetIn(guard: AdapterGuard, target: ForgetTarget): Promise<AdapterReport> {
    const { id, type } = guard;
    const incapable = incapacity(guard, target);
    if (incapable !== undefined) {
      return { id, type, objects: 0, bytes: 0, complete: false, problem: incapable };
    }
    const problems: string[] = [];
    const keys = target.keys ?? await this.#listKeys(guard, target, problems);
    const { objects, bytes } = await this.#removeFrom(guard, keys, problems);
    const { hungCalls } = guard;
    if (hungCalls > 0) {
      problems.push(
        `${hungCalls} calls have not finished and may still store objects: forget again later`,
      );
    }
    const complete = problems.length === 0;
    const report = { id, type, objects, bytes, complete };
    return complete ? report : { ...report, problem: problems.join("; ") };
  }

  /** Lists the keys in an adapter that match a target; an incomplete listing is a problem. */
  async #listKeys(
    guard: AdapterGuard,
    { matches, model }: ForgetTarget,
    problems: string[],
  ): Promise<ObjectKey[]> {
    const keys: ObjectKey[] = [];
    const { signal } = this.#closing;
    const onIncomplete = (): void => {
      problems.push(`not all objects could be listed: forget again later${lastErrorOf(guard)}`);
    };
    let keyless = 0;
    const onKeyless = (): void => void keyless++;
    const options = { signal, onIncomplete, onKeyless, ...(model === undefined ? {} : { model }) };
    for await (const { key } of guard.list(options)) {
      if (matches(key)) keys.push(key);
    }
    if (keyless > 0) {
      problems.push(
        `${keyless} objects do not tell their keys, and may be among those to forget: forget them ` +
          "by keys, or remove what lies in the adapter",
      );
    }
    return keys;
  }

  async #removeFrom(
    guard: AdapterGuard,
    keys: readonly ObjectKey[],
    problems: string[],
  ): Promise<{ objects: number; bytes: number }> {
    const { clock } = this.#options;
    const { signal } = this.#closing;
    const sum = { objects: 0, bytes: 0 };
    let left = keys;
    for (let tries = 0; left.length > 0; tries++) {
      const locked: ObjectKey[] = [];
      const stayed: ObjectKey[] = [];
      const unknown: ObjectKey[] = [];
      let isSkipped = false;
      for (let i = 0; i < left.length; i += REMOVAL_BATCH) {
        const batch = left.slice(i, i + REMOVAL_BATCH);
        if (isSkipped) {
          unknown.push(...batch);
          continue;
        }
        const removal = await removeObjects(guard, batch, { isVerified: true });
        sum.objects += removal.objects;
        sum.bytes += removal.bytes;
        locked.push(...removal.locked);
        stayed.push(...removal.stayed);
        unknown.push(...removal.unknown);
        isSkipped = removal.isSkipped;
      }
      left = [...locked, ...stayed, ...unknown];
      const isLastTry = isSkipped || tries === FURTHER_TRIES || signal.aborted;
      if (isLastTry && locked.length > 0) {
        problems.push(`${locked.length} objects are in use: forget again later`);
      }
      if (isLastTry && stayed.length > 0) {
        problems.push(
          `${stayed.length} objects still exist after their removal: forget again later`,
        );
      }
      if (isLastTry && unknown.length > 0) problems.push(failureOf(guard, unknown.length));
      if (isLastTry) break;
      if (left.length > 0) await wait(clock, TRY_AGAIN_MS, signal);
    }
    return sum;
  }

  #expect(expiration: Expiration): void {
    this.#expirations.set(expiration.key.id, expiration);
    this.#queue.push(expiration);
    if (this.#queue.size > 2 * this.#expirations.size + 64) {
      this.#queue.reset(this.#expirations.values());
    }
  }

  #isCurrent(expiration: Expiration): boolean {
    return this.#expirations.get(expiration.key.id) === expiration;
  }

  #setTimer(): void {
    if (this.#closing.signal.aborted) return;
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
    this.#cancelTimer = clock.schedule(
      () => {
        this.#timerAt = Infinity;
        this.#expire();
      },
      delayMs,
      { background: true },
    );
  }

  #expire(): void {
    const now = this.#options.clock.now();
    const due: Expiration[] = [];
    let next = this.#queue.first;
    while (next !== undefined && (next.at <= now || !this.#isCurrent(next))) {
      this.#queue.shift();
      if (this.#isCurrent(next)) {
        this.#expirations.delete(next.key.id);
        this.#overdue.set(next.key.id, next);
        this.#options.barrier.block(next.key);
        due.push(next);
      }
      next = this.#queue.first;
    }
    this.#setTimer();
    if (due.length === 0) return;
    this.#forgetExpired(due).catch((error: unknown) => {
      logger.error("Expired objects could not be removed: {error}", { error });
      this.#settle(due, true);
    });
  }

  async #forgetExpired(due: readonly Expiration[]): Promise<void> {
    const target = keysTarget(due.map(({ key }) => key));
    const { adapters } = await this.#forget(target);
    const failed = adapters.filter(({ complete }) => !complete);
    for (const { id, type, problem } of failed) {
      logger.warn("{type}: expired objects may still be there: {problem}", { id, type, problem });
    }
    const guards = this.#options.adapters();
    const mayPass = failed.some(({ id }) =>
      guards.some((guard) => guard.id === id && incapacity(guard, target) === undefined)
    );
    this.#settle(due, mayPass);
  }

  /**
   * Ends the expiry of objects, or schedules a retry, unless a later call changed it in the
   * meantime.
   */
  #settle(due: readonly Expiration[], isAgain: boolean): void {
    if (this.#closing.signal.aborted) return;
    const now = this.#options.clock.now();
    for (const expired of due) {
      const { key, attempts } = expired;
      if (this.#overdue.get(key.id) !== expired) continue;
      if (isAgain) {
        const delayMs = backoffMs(RETRIES, attempts + 1);
        this.#expect({ key, at: now + delayMs, attempts: attempts + 1 });
      } else {
        this.#overdue.delete(key.id);
        this.#options.barrier.unblock(key);
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

const SELECTOR_KEYS = ["keys", "salt", "model"];

function parseSelector(selector: ForgetSelector): ForgetTarget {
  const what = "forget() selector";
  checkOptionKeys(what, selector, SELECTOR_KEYS);
  const { keys, salt, model }: { keys?: readonly ObjectKey[]; salt?: string; model?: string } =
    selector;
  const given = Object.entries({ keys, salt, model }).filter(([, value]) => value !== undefined);
  if (given.length <= 1) checkNotNullish(what, selector, SELECTOR_KEYS);
  if (given.length !== 1) {
    const names = given.map(([name]) => name).join(" and ");
    throw new TypeError(
      `Selector must have exactly one of keys, salt and model: received ${
        names === "" ? "none" : names
      }`,
    );
  }
  if (keys !== undefined) return keysTarget(keys);
  try {
    if (salt !== undefined) validateCacheSalt(salt);
    if (model !== undefined) validateModelName(model);
  } catch (cause) {
    throw new TypeError(cause instanceof Error ? cause.message : String(cause), { cause });
  }
  if (model !== undefined) return { matches: (key) => key.model === model, model };
  return { matches: (key) => key.cacheSalt === salt };
}

function keysTarget(keys: readonly ObjectKey[]): ForgetTarget {
  const own = new Map(keys.map((key) => [key.id, key]));
  return { matches: ({ id }) => own.has(id), keys: [...own.values()] };
}

/** Entries of `marks` that match a target. */
function chosen<T>(
  marks: ReadonlyMap<string, T>,
  { keys, matches }: ForgetTarget,
  keyOf: (mark: T) => ObjectKey,
): T[] {
  if (keys === undefined) return [...marks.values()].filter((mark) => matches(keyOf(mark)));
  return keys.flatMap(({ id }) => marks.get(id) ?? []);
}

/**
 * Why an adapter can never remove the objects of a target, and what to do; `undefined` if it can.
 */
function incapacity(guard: AdapterGuard, { keys }: ForgetTarget): string | undefined {
  if (guard.state === "closed") return "it is closed: add it again, then forget again";
  if (!guard.canDelete) return "it cannot delete objects: delete them in its storage";
  if (keys !== undefined || guard.canList) return undefined;
  return "it cannot list objects: forget them by their keys, or delete them in its storage";
}

function failureOf(guard: AdapterGuard, count: number): string {
  return `${count} objects may still be there: forget again later${lastErrorOf(guard)}`;
}

function lastErrorOf(guard: AdapterGuard): string {
  const { lastError } = guard;
  return lastError === undefined ? "" : ` (${lastError})`;
}
