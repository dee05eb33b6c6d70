import { getLogger } from "@logtape/logtape";
import { Bitmap } from "../keys/bitmap.ts";
import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { Clock } from "../runtime/clock.ts";
import type { AdapterCapabilities, AdapterObject, L2Adapter, StoreResult } from "./adapter.ts";
import { AdapterError } from "./adapter_error.ts";
import { type TrailerFault, verifyObject } from "./object_trailer.ts";

/** How long a call of each kind may take, in milliseconds. */
export interface AdapterTimeouts {
  /** A lookup. @default {2000} */
  readonly lookupMs: number;
  /** A load. @default {30000} */
  readonly loadMs: number;
  /** A store. @default {60000} */
  readonly storeMs: number;
  /** A removal. @default {10000} */
  readonly deleteMs: number;
  /** Closing. @default {10000} */
  readonly closeMs: number;
}

/** Deadlines unless others are given. */
export const DEFAULT_ADAPTER_TIMEOUTS: AdapterTimeouts = {
  lookupMs: 2_000,
  loadMs: 30_000,
  storeMs: 60_000,
  deleteMs: 10_000,
  closeMs: 10_000,
};

/** Failures of one operation in a row after which an adapter counts as unhealthy. */
const UNHEALTHY_FAILURES = 3;

/** An object with what is needed to verify it. */
export interface GuardedObject extends AdapterObject {
  /** Layout of the payload; behind it stands the trailer. */
  readonly layout: ObjectLayout;
}

/** Outcome of a call that borrows buffers. */
export interface GuardedOutcome {
  /** One bit an object: whether it was stored, or loaded and verified. */
  readonly done: Bitmap;
  /**
   * Resolves when an adapter that missed its deadline has let go of the buffers; left out if it
   * has done so already.
   */
  readonly settled?: Promise<void>;
}

/** Counters of one adapter. */
export interface AdapterStatus {
  /** Position in the configuration, first is 0. */
  readonly index: number;
  /** Type. */
  readonly type: string;
  /** Whether it works; false after 3 calls of one kind in a row that failed. */
  readonly isHealthy: boolean;
  /** What it promises. */
  readonly capabilities: AdapterCapabilities;
  /** Objects stored. */
  readonly storedObjects: number;
  /** Bytes stored. */
  readonly storedBytes: number;
  /** Objects that could not be stored. */
  readonly failedStores: number;
  /** Keys looked up. */
  readonly lookedUpKeys: number;
  /** Keys found. */
  readonly foundKeys: number;
  /** Objects loaded and verified. */
  readonly loadedObjects: number;
  /** Bytes loaded and verified. */
  readonly loadedBytes: number;
  /** Objects that could not be loaded. */
  readonly missedLoads: number;
  /** Objects that were loaded but were not what was stored, by what was wrong. */
  readonly damagedObjects: Readonly<Partial<Record<TrailerFault, number>>>;
  /** Calls that took too long. */
  readonly timeouts: number;
  /** Calls that failed, those that took too long among them. */
  readonly failedCalls: number;
  /** The last failure in words. */
  readonly lastError: string | undefined;
  /** What the adapter says of itself. */
  readonly details: Readonly<Record<string, unknown>>;
}

type Operation = "store" | "lookup" | "load" | "delete" | "close";

interface CallOutcome<T> {
  /** What the adapter answered in time. */
  readonly result: { readonly value: T } | undefined;
  /** What it answers in the end, if it has not ended yet. */
  readonly late?: Promise<{ readonly value: T } | undefined>;
}

const logger = getLogger(["kvtier", "adapter"]);

/**
 * Stands between the cache and any adapter: every call has a deadline and an answer, every loaded
 * object is verified, damaged ones are removed, and everything is counted. Never rejects.
 */
export class AdapterGuard {
  /** Position in the configuration. */
  readonly index: number;
  /** Type of the adapter. */
  readonly type: string;
  readonly #adapter: L2Adapter;
  readonly #clock: Clock;
  readonly #timeouts: AdapterTimeouts;
  readonly #damaged: Partial<Record<TrailerFault, number>> = {};
  readonly #counters = {
    storedObjects: 0,
    storedBytes: 0,
    failedStores: 0,
    lookedUpKeys: 0,
    foundKeys: 0,
    loadedObjects: 0,
    loadedBytes: 0,
    missedLoads: 0,
    timeouts: 0,
    failedCalls: 0,
  };
  readonly #failuresInARow: Record<Operation, number> = {
    store: 0,
    lookup: 0,
    load: 0,
    delete: 0,
    close: 0,
  };
  #lastError: string | undefined;
  #hungCalls = 0;
  /** Cancel the deadlines of calls that have not ended. */
  readonly #deadlines = new Set<() => void>();

  /** Guards `adapter`, which is the cache's own from now on. */
  constructor(
    adapter: L2Adapter,
    options: { index: number; type: string; clock: Clock; timeouts: AdapterTimeouts },
  ) {
    this.#adapter = adapter;
    this.index = options.index;
    this.type = options.type;
    this.#clock = options.clock;
    this.#timeouts = options.timeouts;
  }

  /** What the adapter promises. */
  get capabilities(): AdapterCapabilities {
    return this.#adapter.capabilities;
  }

  /** Notes a failure that the adapter reported without failing a call. */
  reportError(error: AdapterError): void {
    this.#lastError = error.message;
    logger.warn("{error}", { error: error.message, key: error.key?.id });
  }

  /** Stores sealed objects. */
  async store(objects: readonly GuardedObject[]): Promise<GuardedOutcome> {
    const call = await this.#call("store", undefined, async (signal) => {
      const answer = await this.#adapter.store(objects, { signal });
      const result = copyStoreResult(answer, objects.length);
      if (result === undefined) {
        throw new TypeError("store() must resolve to { stored, bytes } with one bit an object");
      }
      return result;
    });
    const stored = call.result?.value.stored ?? new Bitmap(objects.length);
    const count = stored.popcount();
    this.#counters.storedObjects += count;
    this.#counters.storedBytes += call.result?.value.bytes ?? 0;
    this.#counters.failedStores += objects.length - count;
    if (call.result !== undefined) this.#judge("store", count > 0 || objects.length === 0);
    return { done: stored, ...settledOf(call) };
  }

  /**
   * Which objects are there. Those found stay until {@linkcode unlock}; what an adapter finds after
   * the deadline, or after `signal` aborts, is unlocked here.
   */
  async lookup(
    keys: readonly ObjectKey[],
    options: { prefix: boolean; signal?: AbortSignal },
  ): Promise<Bitmap> {
    const call = await this.#call("lookup", options.signal, async (signal) => {
      const answer = await this.#adapter.lookupAndLock(keys, { prefix: options.prefix, signal });
      const found = copyBits(answer, keys.length);
      if (found === undefined) {
        throw new TypeError("lookupAndLock() must resolve to one bit a key");
      }
      return found;
    });
    call.late?.then((answer) => this.unlock(answer?.value.gather(keys) ?? []));
    const found = call.result?.value ?? new Bitmap(keys.length);
    this.#counters.lookedUpKeys += keys.length;
    this.#counters.foundKeys += found.popcount();
    if (call.result !== undefined) this.#judge("lookup", true);
    return found;
  }

  /** Gives up what a lookup locked. */
  unlock(keys: readonly ObjectKey[]): void {
    if (keys.length === 0) return;
    // An `async` one may reject, which nobody else would notice until it ended the process.
    const unlocked = (async () => await this.#adapter.unlock?.(keys))();
    unlocked.catch((cause: unknown) => this.#fail("lookup", cause));
  }

  /**
   * Loads objects that a lookup locked, and verifies them. It gives up the locks, as soon as the
   * adapter has let go of the buffers, and removes damaged objects, so that lookups miss them.
   */
  async load(objects: readonly GuardedObject[]): Promise<GuardedOutcome> {
    const call = await this.#call("load", undefined, async (signal) => {
      const loaded = copyBits(await this.#adapter.load(objects, { signal }), objects.length);
      if (loaded === undefined) {
        throw new TypeError("load() must resolve to one bit an object");
      }
      return loaded;
    });
    const keys = objects.map(({ key }) => key);
    if (call.late === undefined) this.unlock(keys);
    else call.late.then(() => this.unlock(keys));
    const verified = new Bitmap(objects.length);
    const damaged: ObjectKey[] = [];
    for (const [i, { key, layout, parts, byteLength }] of objects.entries()) {
      if (!call.result?.value.test(i)) continue;
      const fault = verifyObject(key, layout, parts);
      if (fault === null) {
        verified.set(i);
        this.#counters.loadedBytes += byteLength;
      } else {
        this.#damaged[fault] = (this.#damaged[fault] ?? 0) + 1;
        logger.warn("{type}: object is damaged: {fault}", { type: this.type, fault, key: key.id });
        // Another layout or a newer format may be another reader's good object.
        if (fault !== "layout" && fault !== "version") damaged.push(key);
      }
    }
    const count = verified.popcount();
    this.#counters.loadedObjects += count;
    this.#counters.missedLoads += objects.length - count;
    if (call.result !== undefined) this.#judge("load", true);
    if (damaged.length > 0) await this.delete(damaged);
    return { done: verified, ...settledOf(call) };
  }

  /** Removes objects; one bit an object that was there. */
  async delete(keys: readonly ObjectKey[]): Promise<Bitmap> {
    const none = new Bitmap(keys.length);
    if (this.#adapter.delete === undefined) return none;
    const call = await this.#call("delete", undefined, async (signal) => {
      const deleted = copyBits(await this.#adapter.delete?.(keys, { signal }), keys.length);
      if (deleted === undefined) throw new TypeError("delete() must resolve to bits");
      return deleted;
    });
    if (call.result !== undefined) this.#judge("delete", true);
    return call.result?.value ?? none;
  }

  /** Counters now, with what the adapter adds. */
  reportStatus(): AdapterStatus {
    let details: Readonly<Record<string, unknown>> = {};
    try {
      details = this.#adapter.reportStatus?.() ?? {};
    } catch (cause) {
      this.#lastError =
        new AdapterError({ adapter: this.type, operation: "status", cause }).message;
    }
    return {
      index: this.index,
      type: this.type,
      isHealthy: Object.values(this.#failuresInARow).every((count) => count < UNHEALTHY_FAILURES),
      capabilities: this.#adapter.capabilities,
      ...this.#counters,
      damagedObjects: { ...this.#damaged },
      lastError: this.#lastError,
      details,
    };
  }

  /** Closes the adapter; a failure is counted, and one that never ends is left behind. */
  async close(): Promise<void> {
    await this.#call("close", undefined, () => this.#adapter[Symbol.asyncDispose]());
    for (const cancel of this.#deadlines) cancel();
  }

  async #call<T>(
    operation: Operation,
    outer: AbortSignal | undefined,
    run: (signal: AbortSignal) => Promise<T>,
  ): Promise<CallOutcome<T>> {
    if (outer?.aborted) return { result: undefined };
    if (this.#hungCalls > 0 && operation !== "close") {
      // It would borrow more buffers of those that it has not given back.
      this.#fail(operation, new Error("Skipped: an earlier call has not ended yet"));
      return { result: undefined };
    }
    const controller = new AbortController();
    const gaveUp = Promise.withResolvers<CallOutcome<T>>();
    const giveUp = (reason: Error): void => {
      controller.abort(reason);
      gaveUp.resolve({ result: undefined, late });
    };
    const work = (async () => await run(controller.signal))();
    const late = work.then((value) => ({ value }), (cause) => {
      // What an adapter says after it was told to stop is no news.
      if (!controller.signal.aborted) this.#fail(operation, cause);
      return undefined;
    });
    const timeoutMs = this.#timeouts[`${operation}Ms`];
    const cancel = this.#clock.schedule(() => {
      this.#counters.timeouts++;
      this.#hungCalls++;
      late.then(() => this.#hungCalls--);
      const cause = new DOMException(`No answer within ${timeoutMs} ms`, "TimeoutError");
      this.#fail(operation, cause);
      giveUp(cause);
    }, timeoutMs);
    const onAbort = (): void =>
      giveUp(new DOMException("The caller stopped waiting", "AbortError"));
    outer?.addEventListener("abort", onAbort, { once: true });
    // Not before: whether the adapter hangs matters also after the caller has left.
    this.#deadlines.add(cancel);
    late.then(() => {
      this.#deadlines.delete(cancel);
      cancel();
    });
    const outcome = await Promise.race([late.then((result) => ({ result })), gaveUp.promise]);
    outer?.removeEventListener("abort", onAbort);
    return outcome;
  }

  #judge(operation: Operation, succeeded: boolean): void {
    this.#failuresInARow[operation] = succeeded ? 0 : this.#failuresInARow[operation] + 1;
  }

  #fail(operation: Operation, cause: unknown): void {
    const error = cause instanceof AdapterError
      ? cause
      : new AdapterError({ adapter: this.type, operation, cause });
    this.#counters.failedCalls++;
    this.#judge(operation, false);
    this.reportError(error);
  }
}

function settledOf(call: CallOutcome<unknown>): { settled?: Promise<void> } {
  return call.late === undefined ? {} : { settled: call.late.then(() => {}) };
}

/**
 * The bits of an answer, or `undefined` if it has not one bit an item. They are copied: the adapter
 * may keep what it returned. It is checked by shape: the adapter may have been built against
 * another copy of this package.
 */
function copyBits(value: unknown, length: number): Bitmap | undefined {
  const isAnswer = typeof value === "object" && value !== null && "length" in value &&
    value.length === length && "test" in value && typeof value.test === "function";
  if (!isAnswer) return undefined;
  const bits = new Bitmap(length);
  for (let i = 0; i < length; i++) {
    if ((value as Bitmap).test(i)) bits.set(i);
  }
  return bits;
}

function copyStoreResult(value: unknown, length: number): StoreResult | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { stored, bytes } = value as Partial<StoreResult>;
  const bits = copyBits(stored, length);
  if (bits === undefined || !Number.isFinite(bytes)) return undefined;
  return { stored: bits, bytes: Number(bytes) };
}
