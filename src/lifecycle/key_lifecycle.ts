import { getLogger } from "@logtape/logtape";
import { type ObjectKey, validateCacheSalt, validateModelName } from "../keys/object_key.ts";
import type { L1Cache } from "../l1/l1_cache.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import { type Clock, wait } from "../base/clock.ts";
import { checkNotNullish, checkOptionKeys } from "../base/options.ts";
import type { ForgetBarrier, ForgetTarget } from "./forget_barrier.ts";
import { KeyExpiry } from "./key_expiry.ts";
import { REMOVAL_BATCH, removeObjects } from "../eviction/remove_objects.ts";

/** Number of retries for an object that an adapter did not remove at first. */
const FURTHER_TRIES = 3;
const TRY_AGAIN_MS = 100;

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

type AdapterReport = ForgetReport["adapters"][number];

const logger = getLogger(["kvtier", "lifecycle"]);

/** Controls the lifetime of objects in all tiers: times to live, and forgetting. */
export class KeyLifecycle implements Disposable {
  readonly #options: KeyLifecycleOptions;
  readonly #expiry: KeyExpiry;
  readonly #closing = new AbortController();
  /** Starts without times to live. */
  constructor(options: KeyLifecycleOptions) {
    this.#options = options;
    this.#expiry = new KeyExpiry({ ...options, remove: (keys) => this.#forgetExpired(keys) });
  }

  /**
   * Removes objects from every tier after `ms` milliseconds. A later call for the same key replaces
   * this one; `null` cancels it. Removals that fail are retried.
   *
   * @throws {RangeError} If `ms` is negative or not finite.
   */
  ttl(keys: readonly ObjectKey[], ms: number | null): void {
    this.#expiry.ttl(keys, ms);
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
    this.#expiry.cancel(target);
    return await this.#forget(target);
  }

  reportStatus(): LifecycleStatus {
    return {
      pinned: this.#options.l1.pinned.size,
      expiring: this.#expiry.size,
      forgetting: this.#options.barrier.forgets,
    };
  }

  /** Cancels all expiry, and stops retrying removals. */
  [Symbol.dispose](): void {
    this.#closing.abort();
    this.#expiry[Symbol.dispose]();
  }

  /**
   * Everything before the first `await` is synchronous: L1 holds none of the objects when the call
   * returns.
   */
  async #forget(target: ForgetTarget): Promise<ForgetReport> {
    const { l1, adapters, barrier } = this.#options;
    const { matches, keys } = target;
    using _blocked = barrier.raise(target);
    l1.unpin(keys ?? [...l1.pinned.values()].filter(matches));
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

  /** Forgets expired objects; resolves to whether to try again later. */
  async #forgetExpired(keys: readonly ObjectKey[]): Promise<boolean> {
    const target = keysTarget(keys);
    const { adapters } = await this.#forget(target);
    const failed = adapters.filter(({ complete }) => !complete);
    for (const { id, type, problem } of failed) {
      logger.warn("{type}: expired objects may still be there: {problem}", { id, type, problem });
    }
    const guards = this.#options.adapters();
    return failed.some(({ id }) =>
      guards.some((guard) => guard.id === id && incapacity(guard, target) === undefined)
    );
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
