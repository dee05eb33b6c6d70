import { getLogger } from "@logtape/logtape";
import { untilAborted } from "../base/abort.ts";
import { frontOfParts } from "../base/byte_parts.ts";
import { Listeners } from "../base/listeners.ts";
import { Bitmap } from "../keys/bitmap.ts";
import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { Clock } from "../base/clock.ts";
import type {
  AdapterCapabilities,
  AdapterObject,
  AdapterUsage,
  DeleteResult,
  L2Adapter,
  ListedObject,
  ListOptions,
  StoreResult,
} from "../adapter/contract.ts";
import {
  copyBits,
  copyDeleteResult,
  copyStoreResult,
  copyUsage,
  isListedObject,
} from "./adapter_answers.ts";
import { AdapterCalls, type CallEnd, type CallOutcome } from "./adapter_calls.ts";
import { AdapterError } from "../adapter/errors.ts";
import type {
  AdapterState,
  AdapterStatus,
  AdapterTimeouts,
  CircuitName,
  CircuitStatus,
} from "./adapter_status.ts";
import { type BreakerOptions, CircuitBreaker } from "./circuit_breaker.ts";
import { GuardedAnswer } from "./guarded_answer.ts";
import { LoadSpeed } from "./load_speed.ts";
import {
  tailBytes,
  type TrailerFault,
  verifyAnyLayout,
  verifyObject,
} from "../adapter/object_trailer.ts";

/** Consecutive failures of one operation after which an adapter counts as unhealthy. */
const UNHEALTHY_FAILURES = 3;
/**
 * Maximum number of hanging calls, each of which keeps its buffers; at this number the adapter is
 * paused.
 */
const MAX_HUNG_CALLS = 8;

/** An object with the layout needed to verify it. */
export interface GuardedObject extends AdapterObject {
  /** Layout of the payload; the trailer follows it. */
  readonly layout: ObjectLayout;
}

/** An object in an adapter; `byteLength` is what it occupies there. */
export type StoredObject = Pick<AdapterObject, "key" | "byteLength">;

/** Callbacks about the objects of an adapter. Errors that they throw are logged. */
export interface GuardListener {
  /** Objects were stored; `byteLength` is what each occupies. */
  stored?(objects: readonly StoredObject[]): void;
  /** Objects were loaded and verified. */
  accessed?(keys: readonly ObjectKey[]): void;
  /** Objects were deleted, which freed `bytes`. */
  deleted?(keys: readonly ObjectKey[], bytes: number): void;
  /** Objects were served from device memory; called occasionally, in prefix order. */
  used?(keys: readonly ObjectKey[]): void;
  /** The adapter evicted objects by itself. */
  evicted?(keys: readonly ObjectKey[]): void;
  /** An object was loaded but is not what was stored. */
  damaged?(key: ObjectKey, fault: TrailerFault): void;
  /** The life-cycle state or a circuit changed. */
  stateChanged?(): void;
}

/** Options of {@linkcode AdapterGuard}. */
export interface AdapterGuardOptions {
  /** Id of the adapter in the cache; never changed or reused. */
  readonly id: number;
  readonly type: string;
  /** Clock for deadlines and cool-downs. */
  readonly clock: Clock;
  /** Deadlines of adapter calls. */
  readonly timeouts: AdapterTimeouts;
  /** When a failing operation is paused, and for how long. */
  readonly breaker?: Partial<BreakerOptions>;
}

type Operation = CircuitName | "list" | "usage" | "close";

/** States in their order; an adapter never returns to an earlier one. */
const STATES: readonly AdapterState[] = ["active", "migrating", "draining", "closed"];
const CIRCUITS: readonly CircuitName[] = ["store", "lookup", "load", "delete"];

/**
 * Faults of an intact object that was stored under another key, layout or format; such an object is
 * not removed.
 */
const FOREIGN_FAULTS: ReadonlySet<TrailerFault> = new Set(["layout", "version", "key"]);

const logger = getLogger(["kvtier", "adapter"]);

/**
 * Wraps an adapter for the cache: every call has a deadline and returns a result, every loaded
 * object is verified, damaged objects are removed, failing operations are paused, and everything is
 * counted and measured. Never rejects. Arguments are copied, because an adapter may read them for
 * longer than the caller waits.
 */
export class AdapterGuard {
  /** Id of the adapter in the cache. */
  readonly id: number;
  readonly type: string;
  readonly #adapter: L2Adapter;
  readonly #timeouts: AdapterTimeouts;
  readonly #calls: AdapterCalls;
  readonly #circuits: Readonly<Record<CircuitName, CircuitBreaker>>;
  readonly #speed: LoadSpeed;
  readonly #listeners = new Listeners<GuardListener>((error) =>
    logger.error("{type}: a listener failed: {error}", { id: this.id, type: this.type, error })
  );
  readonly #damaged: Partial<Record<TrailerFault, number>> = {};
  readonly #counters = {
    storedObjects: 0,
    storedBytes: 0,
    failedStores: 0,
    lookedUpKeys: 0,
    foundKeys: 0,
    loadedObjects: 0,
    loadedBytes: 0,
    unverifiedLoads: 0,
    missedLoads: 0,
    timeouts: 0,
    failedCalls: 0,
    skippedCalls: 0,
  };
  /** Message of the last failure by operation. */
  readonly #lastErrors = new Map<string, string>();
  readonly #openCircuits = new Set<CircuitName>();
  readonly #idleWaiters = new Set<() => void>();
  #lastError: string | undefined;
  #state: AdapterState = "active";
  #lockedKeys = 0;
  #closed: Promise<void> | undefined;

  /** Wraps `adapter` and takes ownership of it. */
  constructor(adapter: L2Adapter, options: AdapterGuardOptions) {
    const { id, type, clock, timeouts, breaker } = options;
    this.#adapter = adapter;
    this.id = id;
    this.type = type;
    this.#timeouts = timeouts;
    this.#calls = new AdapterCalls(clock, () => this.#wakeIfIdle());
    this.#speed = new LoadSpeed(clock);
    const circuit = (name: CircuitName): CircuitBreaker =>
      new CircuitBreaker({
        ...breaker,
        clock,
        onChange: (state) => this.#onCircuitChange(name, state),
      });
    this.#circuits = {
      store: circuit("store"),
      lookup: circuit("lookup"),
      load: circuit("load"),
      delete: circuit("delete"),
    };
  }

  get capabilities(): AdapterCapabilities {
    return this.#adapter.capabilities;
  }

  /** Life-cycle state. */
  get state(): AdapterState {
    return this.#state;
  }

  /** Whether it accepts new objects. */
  get takesStores(): boolean {
    return this.#state === "active";
  }

  /** Whether stores currently work: they are accepted, and the circuit is closed. */
  get isStoring(): boolean {
    return this.takesStores && !this.#isPaused && this.#circuits.store.state === "closed";
  }

  /** Whether a store would be attempted now. */
  get canStore(): boolean {
    return this.takesStores && !this.#isPaused && this.#circuits.store.canEnter;
  }

  /** Whether it accepts lookups. */
  get takesLookups(): boolean {
    return this.#state === "active" || this.#state === "migrating";
  }

  get canList(): boolean {
    return this.#adapter.list !== undefined;
  }

  get canDelete(): boolean {
    return this.#adapter.delete !== undefined;
  }

  /** Whether the adapter or a listener wants to know which objects device memory serves. */
  get wantsUses(): boolean {
    return this.#adapter.touch !== undefined ||
      this.#listeners.some(({ used }) => used !== undefined);
  }

  /** Calls that missed their deadline and have not ended. */
  get hungCalls(): number {
    return this.#calls.hung;
  }

  /** Message of the last failure. */
  get lastError(): string | undefined {
    return this.#lastError;
  }

  /** Lookup locks that have not been released. */
  get lockedKeys(): number {
    return this.#lockedKeys;
  }

  /** Calls in flight that have not missed their deadline. */
  get callsInFlight(): number {
    return this.#calls.inFlight;
  }

  /** Stops accepting stores, if it is active. */
  migrate(): void {
    this.#proceedTo("migrating");
  }

  /** Stops accepting stores and lookups; objects that are locked already can still be loaded. */
  drain(): void {
    this.#proceedTo("draining");
  }

  /**
   * Resolves when no call is in flight, hanging calls aside, and no lookup lock is left.
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

  /**
   * Adds a listener.
   *
   * @returns A function that removes it.
   */
  addListener(listener: GuardListener): () => void {
    return this.#listeners.add(listener);
  }

  /** Records a failure that the adapter reported without failing a call. */
  reportError(error: AdapterError): void {
    this.#lastError = error.message;
    if (CIRCUITS.some((name) => name === error.operation)) {
      this.#lastErrors.set(error.operation, error.message);
    }
    logger.warn("{error}", { error: error.message, key: error.key?.id });
  }

  /** Tells listeners about objects that the adapter evicted by itself. */
  reportEvicted(keys: readonly ObjectKey[]): void {
    this.#listeners.tell((listener) => listener.evicted?.(keys));
  }

  /** Marks objects that device memory served as used. Keys are in prefix order. Never throws. */
  touch(keys: readonly ObjectKey[]): void {
    this.#listeners.tell((listener) => listener.used?.(keys));
    if (this.#adapter.touch === undefined || this.#isPaused) return;
    const touched = (async () => await this.#adapter.touch?.(keys.slice()))();
    touched.catch((cause: unknown) => {
      this.reportError(new AdapterError({ adapter: this.type, operation: "touch", cause }));
    });
  }

  /** Expected duration in milliseconds of a load of `bytes`, based on measurements. */
  estimateLoadMs(bytes: number): number {
    return this.#speed.estimateMs(bytes);
  }

  /** Stores objects, which include their trailers. */
  async store(given: readonly AdapterObject[]): Promise<GuardedAnswer> {
    const objects = given.slice();
    const pass = this.#enter("store");
    if (pass === undefined) {
      this.#counters.failedStores += objects.length;
      return new GuardedAnswer("skipped", objects.length);
    }
    const call = await this.#calls.run({
      timeoutMs: this.#timeouts.storeMs,
      work: async (signal) => {
        const answer = await this.#adapter.store(this.#asStored(objects), { signal });
        const result = copyStoreResult(answer, objects.length);
        if (result === undefined) {
          throw new TypeError(
            "store() must resolve to { stored, bytes } with one bit for each object",
          );
        }
        return result;
      },
      ended: (end) => {
        const isUseless = end.status === "answered" && objects.length > 0 &&
          end.value.stored.popcount() === 0;
        this.#judge("store", pass, end, !isUseless);
      },
    });
    const tell = ({ stored, sizes }: StoreResult): void => {
      if (this.#listeners.size === 0 || stored.popcount() === 0) return;
      const kept = stored.gather(sizes === undefined ? objects : objects.map(sizedAs(sizes)));
      this.#listeners.tell((listener) => listener.stored?.(kept));
    };
    call.late?.then((answer) => answer === undefined ? undefined : tell(answer.value));
    const stored = call.result?.value.stored ?? new Bitmap(objects.length);
    const count = stored.popcount();
    this.#counters.storedObjects += count;
    this.#counters.storedBytes += call.result?.value.bytes ?? 0;
    this.#counters.failedStores += objects.length - count;
    if (call.result !== undefined) tell(call.result.value);
    return new GuardedAnswer(call.status, stored, { settled: settledOf(call) });
  }

  /**
   * Looks objects up. Objects found stay locked until {@linkcode unlock} or {@linkcode load}.
   * Objects that an adapter finds after the deadline, or after `signal` aborts, are unlocked here.
   * Finds nothing while loads are paused.
   */
  async lookup(
    given: readonly ObjectKey[],
    options: { prefix: boolean; signal?: AbortSignal },
  ): Promise<GuardedAnswer> {
    const keys = given.slice();
    const { prefix, signal } = options;
    if (signal?.aborted) return new GuardedAnswer("abandoned", keys.length);
    const pass = this.#enter("lookup");
    if (pass === undefined) return new GuardedAnswer("skipped", keys.length);
    const call = await this.#calls.run({
      timeoutMs: this.#timeouts.lookupMs,
      signal,
      work: async (signal) => {
        const answer = await this.#adapter.lookupAndLock(keys, { prefix, signal });
        const found = copyBits(answer, keys.length);
        if (found === undefined) {
          throw new TypeError("lookupAndLock() must resolve to one bit for each key");
        }
        return found;
      },
      ended: (end) => {
        if (end.status !== "abandoned") this.#speed.addLookup(end.ms);
        if (end.status === "answered") this.#lockedKeys += end.value.popcount();
        this.#judge("lookup", pass, end);
      },
    });
    call.late?.then((answer) => this.#unlockInAdapter(answer?.value.gather(keys) ?? []));
    const found = call.result?.value ?? new Bitmap(keys.length);
    this.#counters.lookedUpKeys += keys.length;
    this.#counters.foundKeys += found.popcount();
    return new GuardedAnswer(call.status, found);
  }

  /** Releases the locks of a lookup. */
  unlock(keys: readonly ObjectKey[]): void {
    this.#unlockInAdapter(keys);
    this.#giveBackLocks(keys.length);
  }

  /**
   * Loads objects locked by a lookup, and verifies them. Releases the locks as soon as the adapter
   * has released the buffers, and removes damaged objects, so that later lookups miss them.
   */
  load(objects: readonly GuardedObject[]): Promise<GuardedAnswer> {
    return this.#load(objects, ({ key, layout, parts }) => {
      return this.#isUnsealed ? null : verifyObject(key, layout, parts);
    });
  }

  /**
   * Like {@linkcode load}, but accepts any layout: each object is verified against its own trailer.
   * Not for an adapter that stores no trailers.
   */
  loadAnyLayout(objects: readonly AdapterObject[]): Promise<GuardedAnswer> {
    return this.#load(
      objects,
      ({ key, byteLength, parts }) => verifyAnyLayout(key, byteLength, parts),
    );
  }

  /** Deletes objects: those that existed are `done`, and `bytes` were freed. */
  async delete(given: readonly ObjectKey[]): Promise<GuardedAnswer> {
    const keys = given.slice();
    const pass = this.canDelete ? this.#enter("delete") : undefined;
    if (pass === undefined) return new GuardedAnswer("skipped", keys.length);
    const call = await this.#calls.run({
      timeoutMs: this.#timeouts.deleteMs,
      work: async (signal) => {
        const answer = await this.#adapter.delete?.(keys, { signal });
        const result = copyDeleteResult(answer, keys.length);
        if (result === undefined) {
          throw new TypeError(
            "delete() must resolve to { deleted, bytes } with one bit for each key",
          );
        }
        return result;
      },
      ended: (end) => this.#judge("delete", pass, end),
    });
    const tell = ({ deleted, bytes }: DeleteResult): void => {
      if (this.#listeners.size === 0 || deleted.popcount() === 0) return;
      const gone = deleted.gather(keys);
      this.#listeners.tell((listener) => listener.deleted?.(gone, bytes));
    };
    call.late?.then((answer) => answer === undefined ? undefined : tell(answer.value));
    const { deleted, bytes } = call.result?.value ?? { deleted: keys.length, bytes: 0 };
    if (call.result !== undefined) tell(call.result.value);
    return new GuardedAnswer(call.status, deleted, { bytes });
  }

  /**
   * Lists all objects. The listing ends early if the adapter fails or misses its deadline for the
   * next object.
   *
   * @param options.onIncomplete Called before the end if the listing may be incomplete.
   * @param options.onKeyless Called for each object that is left out because its key is unknown.
   */
  async *list(
    options: Partial<ListOptions> & { onIncomplete?: () => void } = {},
  ): AsyncGenerator<ListedObject, void> {
    const { model, signal, onIncomplete, onKeyless } = options;
    if (!this.canList || signal?.aborted || this.#isSkipped()) return onIncomplete?.();
    const stop = new AbortController();
    let objects: AsyncIterator<unknown> | undefined;
    let hasEnded = false;
    let isStuck = false;
    const ended = (end: CallEnd<unknown>): void => {
      if (end.status === "failed") this.#fail("list", end.cause, end.isTimeout);
    };
    const next = async (): Promise<ListedObject | undefined> => {
      objects ??= this.#adapter.list?.({
        signal: stop.signal,
        ...(model === undefined ? {} : { model }),
        ...(onKeyless === undefined ? {} : { onKeyless }),
      })[Symbol.asyncIterator]();
      const step = await objects?.next();
      hasEnded = step?.done ?? true;
      if (hasEnded) return undefined;
      if (isListedObject(step?.value)) return step.value;
      throw new TypeError("list() must yield { key, byteLength }");
    };
    const timeoutMs = this.#timeouts.deleteMs;
    try {
      while (this.#state !== "closed" && !signal?.aborted) {
        const call = await this.#calls.run({ timeoutMs, signal, work: next, ended });
        isStuck = call.late !== undefined;
        if (call.result?.value === undefined) return hasEnded ? undefined : onIncomplete?.();
        yield call.result.value;
      }
      onIncomplete?.();
    } finally {
      stop.abort();
      const leave = async (): Promise<unknown> => await objects?.return?.();
      // A generator that hangs in a step can only return after it.
      if (isStuck) leave().catch(() => {});
      else if (!hasEnded) await this.#calls.run({ timeoutMs, work: leave, ended });
    }
  }

  /** Reported usage of the adapter; `undefined` if unknown. */
  async usage(): Promise<AdapterUsage | undefined> {
    if (this.#adapter.usage === undefined || this.#isSkipped()) return undefined;
    const call = await this.#calls.run({
      timeoutMs: this.#timeouts.lookupMs,
      work: async (signal) => {
        const usage = copyUsage(await this.#adapter.usage?.({ signal }));
        if (usage === undefined) {
          throw new TypeError("usage() must resolve to { usedBytes, objectCount }");
        }
        return usage;
      },
      ended: (end) => {
        if (end.status === "failed") this.#fail("usage", end.cause, end.isTimeout);
      },
    });
    return call.result?.value;
  }

  /** Current status and counters, including the adapter's own status. */
  reportStatus(): AdapterStatus {
    let details: Readonly<Record<string, unknown>> = {};
    try {
      details = this.#adapter.reportStatus?.() ?? {};
    } catch (cause) {
      this.#lastError =
        new AdapterError({ adapter: this.type, operation: "status", cause }).message;
    }
    const problems = [...this.#problems(), ...problemsIn(details)];
    const { store, lookup, load, delete: remove } = this.#circuits;
    return {
      id: this.id,
      type: this.type,
      state: this.#state,
      isHealthy: problems.length === 0,
      problems,
      capabilities: this.#adapter.capabilities,
      circuits: {
        store: statusOf(store),
        lookup: statusOf(lookup),
        load: statusOf(load),
        delete: statusOf(remove),
      },
      ...this.#counters,
      damagedObjects: { ...this.#damaged },
      lockedKeys: this.#lockedKeys,
      callsInFlight: this.#calls.inFlight,
      hungCalls: this.#calls.hung,
      loadBytesPerMs: this.#speed.bytesPerMs,
      lookupMs: this.#speed.lookupMs,
      lastError: this.#lastError,
      details,
    };
  }

  /**
   * Closes the adapter. Failures are counted; a close that does not end is abandoned. From now on
   * every call is skipped. Calls in flight have until their deadline, and at most until the adapter
   * is closed.
   *
   * @param ms Maximum time in milliseconds, if less than the deadline.
   */
  close(ms = Infinity): Promise<void> {
    return this.#closed ??= this.#close(Math.min(ms, this.#timeouts.closeMs));
  }

  async #close(timeoutMs: number): Promise<void> {
    this.#proceedTo("closed");
    await this.#calls.run({
      timeoutMs,
      work: () => this.#adapter[Symbol.asyncDispose](),
      ended: (end) => {
        if (end.status === "failed") this.#fail("close", end.cause, end.isTimeout);
      },
    });
    this.#lockedKeys = 0;
    this.#calls.abandonAll();
    this.#wakeIfIdle();
  }

  async #load<T extends AdapterObject>(
    given: readonly T[],
    verify: (object: T) => TrailerFault | null,
  ): Promise<GuardedAnswer> {
    const objects = given.slice();
    const keys = objects.map(({ key }) => key);
    const pass = this.#enter("load");
    if (pass === undefined) {
      this.#counters.missedLoads += objects.length;
      this.unlock(keys);
      return new GuardedAnswer("skipped", objects.length);
    }
    // `undefined` until the object has been verified.
    const checked = new Array<TrailerFault | null | undefined>(objects.length);
    // Objects that the adapter itself reported as faulty.
    let refused: Set<number> | undefined;
    let isOver = false;
    const onLoaded = (index: number, fault?: TrailerFault): void => {
      const object = objects[index];
      if (isOver || object === undefined) return;
      checked[index] = fault ?? verify(object);
      if (fault !== undefined) (refused ??= new Set()).add(index);
    };
    const call = await this.#calls.run({
      timeoutMs: this.#timeouts.loadMs,
      work: async (signal) => {
        const answer = await this.#adapter.load(this.#asStored(objects), { signal, onLoaded });
        const loaded = copyBits(answer, objects.length);
        if (loaded === undefined) {
          throw new TypeError("load() must resolve to one bit for each object");
        }
        return loaded;
      },
      ended: (end) => {
        this.#measureLoad(objects, end);
        this.#judge("load", pass, end);
      },
    });
    if (call.late === undefined) this.#unlockInAdapter(keys);
    else call.late.then(() => this.#unlockInAdapter(keys));
    this.#giveBackLocks(keys.length);
    isOver = true;
    const verified = new Bitmap(objects.length);
    const damaged: ObjectKey[] = [];
    let faults: Map<number, TrailerFault> | undefined;
    for (const [i, object] of objects.entries()) {
      if (call.result === undefined) break;
      if (!call.result.value.test(i) && !refused?.has(i)) continue;
      const known = checked[i];
      const fault = known === undefined ? verify(object) : known;
      if (fault === null) {
        verified.set(i);
        this.#counters.loadedBytes += object.byteLength;
        if (this.#isUnsealed) this.#counters.unverifiedLoads++;
      } else {
        (faults ??= new Map()).set(i, fault);
        this.#noteDamage(object.key, fault);
        // With another layout, format or key, it may be an intact object of another reader. A store
        // that folds the case of names returns such objects.
        if (!FOREIGN_FAULTS.has(fault)) damaged.push(object.key);
      }
    }
    const count = verified.popcount();
    this.#counters.loadedObjects += count;
    this.#counters.missedLoads += objects.length - count;
    if (count > 0 && this.#listeners.size > 0) {
      const accessed = verified.gather(keys);
      this.#listeners.tell((listener) => listener.accessed?.(accessed));
    }
    if (damaged.length > 0) await this.delete(damaged);
    return new GuardedAnswer(call.status, verified, { faults, settled: settledOf(call) });
  }

  get #isUnsealed(): boolean {
    return this.#adapter.capabilities.unsealed === true;
  }

  /** Objects as the adapter stores them: with trailers, or without. */
  #asStored(objects: readonly AdapterObject[]): readonly AdapterObject[] {
    if (!this.#isUnsealed) return objects;
    return objects.map(({ key, parts, byteLength: sealed }) => {
      const byteLength = sealed - tailBytes(key);
      return { key, parts: frontOfParts(parts, byteLength), byteLength };
    });
  }

  /** Returns a pass for a call, or `undefined` if the call is to be skipped. */
  #enter(operation: CircuitName): number | undefined {
    const isRefused = (operation === "store" && !this.takesStores) ||
      // Skip lookups of objects that could not be loaded anyway.
      (operation === "lookup" && !(this.takesLookups && this.#circuits.load.canEnter));
    const isSkipped = isRefused || this.#isPaused;
    const pass = isSkipped ? undefined : this.#circuits[operation].tryEnter();
    if (pass === undefined) this.#counters.skippedCalls++;
    return pass;
  }

  #isSkipped(): boolean {
    if (this.#isPaused) this.#counters.skippedCalls++;
    return this.#isPaused;
  }

  get #isPaused(): boolean {
    return this.#state === "closed" || this.#calls.hung >= MAX_HUNG_CALLS;
  }

  get #isIdle(): boolean {
    return this.#calls.inFlight === 0 && this.#lockedKeys === 0;
  }

  #wakeIfIdle(): void {
    if (!this.#isIdle) return;
    for (const wake of this.#idleWaiters) wake();
    this.#idleWaiters.clear();
  }

  #giveBackLocks(count: number): void {
    this.#lockedKeys = Math.max(0, this.#lockedKeys - count);
    this.#wakeIfIdle();
  }

  #unlockInAdapter(keys: readonly ObjectKey[]): void {
    if (keys.length === 0 || this.#adapter.unlock === undefined) return;
    if (this.#state === "closed") return;
    // An `async` unlock may reject, which would otherwise end the process as an unhandled
    // rejection.
    const unlocked = (async () => await this.#adapter.unlock?.(keys))();
    unlocked.catch((cause: unknown) => this.#fail("lookup", cause));
  }

  #proceedTo(state: AdapterState): void {
    if (STATES.indexOf(state) <= STATES.indexOf(this.#state)) return;
    this.#state = state;
    this.#listeners.tell((listener) => listener.stateChanged?.());
  }

  #onCircuitChange(name: CircuitName, state: "open" | "closed"): void {
    const { id, type } = this;
    if (state === "closed") {
      this.#openCircuits.delete(name);
      logger.info("{type}: {operation} works again", { id, type, operation: name });
    } else if (!this.#openCircuits.has(name)) {
      this.#openCircuits.add(name);
      const { retryInMs } = this.#circuits[name];
      logger.warn("{type}: {operation} failed and is paused for {seconds} s: {error}", {
        id,
        type,
        operation: name,
        retryInMs,
        seconds: (retryInMs / 1000).toFixed(1),
        error: this.#lastErrors.get(name),
      });
    }
    this.#listeners.tell((listener) => listener.stateChanged?.());
  }

  #noteDamage(key: ObjectKey, fault: TrailerFault): void {
    this.#damaged[fault] = (this.#damaged[fault] ?? 0) + 1;
    logger.warn("{type}: object is damaged: {fault}", { type: this.type, fault, key: key.id });
    this.#listeners.tell((listener) => listener.damaged?.(key, fault));
  }

  #measureLoad(objects: readonly AdapterObject[], end: CallEnd<Bitmap>): void {
    if (end.status === "abandoned") return;
    // On a timeout, at most these bytes were moved by the deadline.
    const moved = end.status === "answered"
      ? end.value.gather(objects)
      : end.isTimeout
      ? objects
      : [];
    const bytes = moved.reduce((sum, { byteLength }) => sum + byteLength, 0);
    // An answer without objects is a miss, which says nothing about load speed.
    if (bytes > 0 || end.status === "failed") this.#speed.addLoad(end.ms, bytes);
  }

  /** Updates the circuit of an operation with the outcome of a call. */
  #judge(operation: CircuitName, pass: number, end: CallEnd<unknown>, hasWorked = true): void {
    const circuit = this.#circuits[operation];
    if (end.status === "failed") {
      this.#fail(operation, end.cause, end.isTimeout);
      circuit.failure(pass, { trip: end.isTimeout });
    } else if (end.status === "abandoned" && !end.hasWorked) {
      circuit.release(pass);
    } else if (hasWorked) {
      circuit.success(pass);
    } else {
      circuit.failure(pass);
    }
  }

  #fail(operation: Operation, cause: unknown, isTimeout = false): void {
    this.#counters.failedCalls++;
    if (isTimeout) this.#counters.timeouts++;
    const error = cause instanceof AdapterError
      ? cause
      : new AdapterError({ adapter: this.type, operation, cause });
    this.reportError(error);
    this.#lastErrors.set(operation, error.message);
  }

  #problems(): string[] {
    const failing = CIRCUITS.flatMap((name) => {
      const { state, retryInMs, failuresInARow } = this.#circuits[name];
      const reason = this.#lastErrors.get(name) ?? "nothing was stored";
      if (state === "open") {
        return `${name} is paused for another ${Math.ceil(retryInMs / 1000)} s: ${reason}`;
      }
      if (state === "half-open") return `${name} is retried with the next call: ${reason}`;
      if (failuresInARow < UNHEALTHY_FAILURES) return [];
      return `${name} failed ${failuresInARow} times in a row: ${reason}`;
    });
    const { hung } = this.#calls;
    if (hung < MAX_HUNG_CALLS) return failing;
    return [...failing, `${hung} calls hang: the adapter is paused until one of them ends`];
  }
}

/** Problems that an adapter reports about itself. */
function problemsIn({ problems }: Readonly<Record<string, unknown>>): string[] {
  return Array.isArray(problems) ? problems.filter((text) => typeof text === "string") : [];
}

function settledOf({ late }: CallOutcome<unknown>): Promise<void> | undefined {
  return late?.then(() => {});
}

function sizedAs(sizes: readonly number[]): (object: AdapterObject, i: number) => StoredObject {
  return ({ key, byteLength }, i) => ({ key, byteLength: sizes[i] ?? byteLength });
}

function statusOf({ state, openCount, retryInMs }: CircuitBreaker): CircuitStatus {
  return { state, openCount, retryInMs };
}
