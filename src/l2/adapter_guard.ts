import { Bitmap } from "../keys/bitmap.ts";
import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type {
  AdapterCapabilities,
  AdapterObject,
  AdapterUsage,
  DeleteResult,
  L2Adapter,
  ListedObject,
  StoreResult,
  SweepResult,
} from "../adapter/contract.ts";
import { AdapterError } from "../adapter/errors.ts";
import { verifyAnyLayout, verifyObject } from "../adapter/object_trailer.ts";
import {
  copyBits,
  copyDeleteResult,
  copyStoreResult,
  copySweepResult,
  copyUsage,
  problemsIn,
} from "./adapter_answers.ts";
import type { AdapterState, AdapterStatus } from "./adapter_status.ts";
import { type GuardListener, GuardListeners } from "./guard_listener.ts";
import { GuardedAnswer } from "./guarded_answer.ts";
import { GuardedCalls, type GuardedCallsOptions } from "./guarded_calls.ts";
import { type GuardedListOptions, listGuarded } from "./guarded_listing.ts";
import { isBeyondUse, LoadCheck, withoutTrailers } from "./load_check.ts";
import { type LoadEstimate, LoadSpeed, type RunningLoad } from "./load_speed.ts";

/** An object with the layout needed to verify it. */
export interface GuardedObject extends AdapterObject {
  /** Layout of the payload; the trailer follows it. */
  readonly layout: ObjectLayout;
}

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
  readonly #calls: GuardedCalls;
  readonly #listeners: GuardListeners;
  readonly #speed: LoadSpeed;
  readonly #closeMs: number;
  #closed: Promise<void> | undefined;

  /** Wraps `adapter` and takes ownership of it. */
  constructor(adapter: L2Adapter, options: GuardedCallsOptions) {
    const { id, type, clock, timeouts } = options;
    this.#adapter = adapter;
    this.id = id;
    this.type = type;
    this.#closeMs = timeouts.closeMs;
    this.#listeners = new GuardListeners(id, type, clock);
    this.#speed = new LoadSpeed(clock);
    this.#calls = new GuardedCalls(options, {
      onChange: () => this.#listeners.tell((listener) => listener.stateChanged?.()),
      onCalled: (call) => this.#listeners.tell((listener) => listener.called?.(call)),
    });
  }

  get capabilities(): AdapterCapabilities {
    return this.#adapter.capabilities;
  }

  /** Life-cycle state. */
  get state(): AdapterState {
    return this.#calls.life.state;
  }

  /** Whether it accepts new objects. */
  get takesStores(): boolean {
    return this.#calls.life.takesStores;
  }

  /** Whether stores currently work: they are accepted, and the circuit is closed. */
  get isStoring(): boolean {
    return this.takesStores && !this.#calls.isPaused &&
      this.#calls.circuits.of("store").state === "closed";
  }

  /** Whether a store would be attempted now. */
  get canStore(): boolean {
    return this.#calls.canEnter("store");
  }

  /** Whether it accepts lookups. */
  get takesLookups(): boolean {
    return this.#calls.life.takesLookups;
  }

  get canList(): boolean {
    return this.#adapter.list !== undefined;
  }

  get canDelete(): boolean {
    return this.#adapter.delete !== undefined;
  }

  /** Whether it can remove what dead writers left behind. */
  get canSweep(): boolean {
    return this.#adapter.sweep !== undefined;
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
    return this.#calls.lastError;
  }

  /** Lookup locks that have not been released. */
  get lockedKeys(): number {
    return this.#calls.life.locks;
  }

  /** Calls in flight that have not missed their deadline. */
  get callsInFlight(): number {
    return this.#calls.inFlight;
  }

  /** Stops accepting stores, if it is active. */
  migrate(): void {
    this.#calls.life.enter("migrating");
  }

  /** Stops accepting stores and lookups; objects that are locked already can still be loaded. */
  drain(): void {
    this.#calls.life.enter("draining");
  }

  /**
   * Resolves when no call is in flight, hanging calls aside, and no lookup lock is left.
   *
   * @throws The reason of `signal` if that aborts first.
   */
  idle(signal?: AbortSignal): Promise<void> {
    return this.#calls.life.idle(signal);
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
    this.#calls.reportError(error);
  }

  /** Tells listeners about objects that the adapter evicted by itself. */
  reportEvicted(keys: readonly ObjectKey[]): void {
    this.#listeners.tell((listener) => listener.evicted?.(keys));
  }

  /** Marks objects that device memory served as used. Keys are in prefix order. Never throws. */
  touch(keys: readonly ObjectKey[]): void {
    this.#listeners.tell((listener) => listener.used?.(keys));
    if (this.#adapter.touch === undefined || this.#calls.isPaused) return;
    const touched = (async () => await this.#adapter.touch?.(keys.slice()))();
    touched.catch((cause: unknown) => {
      this.reportError(new AdapterError({ adapter: this.type, operation: "touch", cause }));
    });
  }

  /** Expected duration in milliseconds of a load of `bytes`, based on measurements. */
  estimateLoadMs(bytes: number): number {
    return this.#speed.estimateMs(bytes);
  }

  /** What loads cost, by the last measurements, however old; `undefined` without any. */
  get loadEstimate(): LoadEstimate | undefined {
    return this.#speed.lastEstimate;
  }

  /**
   * Duration of a lookup in milliseconds, by the last measurements, however old; `undefined` if the
   * last one missed its deadline.
   */
  get lookupMs(): number | undefined {
    return this.#speed.lastLookupMs;
  }

  /** Bytes of the loads in progress. */
  get loadBytesInFlight(): number {
    return this.#speed.bytesInFlight;
  }

  /** Stores objects, which include their trailers. */
  async store(given: readonly AdapterObject[]): Promise<GuardedAnswer> {
    const objects = given.slice();
    const { length } = objects;
    const tell = (result: StoreResult): void => this.#listeners.tellStored(objects, result);
    const { status, value, settled } = await this.#calls.run({
      operation: "store",
      work: async (signal) =>
        copyStoreResult(await this.#adapter.store(this.#asStored(objects), { signal }), length),
      hasWorked: ({ stored }) => length === 0 || stored.popcount() > 0,
      late: (value) => void (value !== undefined && tell(value)),
    });
    const stored = value?.stored ?? new Bitmap(length);
    this.#calls.counters.addStore(stored, value?.bytes ?? 0);
    if (value !== undefined) tell(value);
    return new GuardedAnswer(status, stored, { settled });
  }

  /**
   * Looks objects up. Objects found stay locked until {@linkcode unlock} or {@linkcode load}.
   * Objects that an adapter finds after the deadline, or after `signal` aborts, are unlocked here.
   * Skipped while loads are paused.
   */
  async lookup(
    given: readonly ObjectKey[],
    { prefix, signal: caller }: { prefix: boolean; signal?: AbortSignal },
  ): Promise<GuardedAnswer> {
    const keys = given.slice();
    const { length } = keys;
    if (caller?.aborted) return new GuardedAnswer("abandoned", length);
    const { status, value: found = new Bitmap(length) } = await this.#calls.run({
      operation: "lookup",
      signal: caller,
      work: async (signal) => {
        const answer = await this.#adapter.lookupAndLock(keys, { prefix, signal });
        return copyBits("lookupAndLock()", answer, length);
      },
      measure: (end) => {
        const isTimeout = end.status === "failed" && end.isTimeout;
        if (end.status !== "abandoned") this.#speed.addLookup(end.ms, isTimeout);
        if (end.status === "answered") this.#calls.life.addLocks(end.value.popcount());
      },
      late: (found) => this.#unlockInAdapter(found?.gather(keys) ?? []),
    });
    if (status !== "skipped") this.#calls.counters.addLookup(found);
    return new GuardedAnswer(status, found);
  }

  /** Releases the locks of a lookup. */
  unlock(keys: readonly ObjectKey[]): void {
    this.#unlockInAdapter(keys);
    this.#calls.life.releaseLocks(keys.length);
  }

  /**
   * Loads objects locked by a lookup, and verifies them: without a layout, each against its own
   * trailer, which an adapter that stores no trailers does not have. Releases the locks as soon as
   * the adapter has released the buffers, and removes damaged objects, so that later lookups miss
   * them.
   *
   * @param options.keepsDamaged Whether damaged objects stay in the adapter.
   */
  async load(
    given: readonly (AdapterObject & Partial<Pick<GuardedObject, "layout">>)[],
    { keepsDamaged = false }: { readonly keepsDamaged?: boolean } = {},
  ): Promise<GuardedAnswer> {
    const objects = given.slice();
    const keys = objects.map(({ key }) => key);
    const check = new LoadCheck(objects, ({ key, layout, byteLength, parts }, proof) => {
      if (layout === undefined) return verifyAnyLayout(key, byteLength, parts, proof);
      return this.#isUnsealed ? null : verifyObject(key, layout, parts, proof);
    });
    const { onLoaded } = check;
    let running: RunningLoad;
    const { status, value, settled } = await this.#calls.run({
      operation: "load",
      work: async (signal) => {
        running = this.#speed.startLoad(objects);
        const answer = await this.#adapter.load(this.#asStored(objects), { signal, onLoaded });
        return copyBits("load()", answer, objects.length);
      },
      measure: (end) => this.#speed.endLoad(running, end, objects),
      late: () => this.#unlockInAdapter(keys),
    });
    if (settled === undefined) this.#unlockInAdapter(keys);
    const { life, counters } = this.#calls;
    life.releaseLocks(keys.length);
    const { done, faults } = check.finish(value);
    for (const [i, fault] of faults) {
      counters.addDamage(fault);
      this.#listeners.tellDamaged(keys[i] as ObjectKey, fault);
    }
    counters.addLoad(done, objects, this.#isUnsealed);
    this.#listeners.tellAccessed(keys, done);
    const damaged = keys.filter((_, i) => isBeyondUse(faults.get(i)));
    if (damaged.length > 0 && !keepsDamaged) await this.delete(damaged);
    return new GuardedAnswer(status, done, { faults, settled });
  }

  /** Deletes objects: those that existed are `done`, and `bytes` were freed. */
  async delete(given: readonly ObjectKey[]): Promise<GuardedAnswer> {
    const keys = given.slice();
    const { length } = keys;
    if (!this.canDelete) return new GuardedAnswer("skipped", length);
    const tell = (result: DeleteResult): void => this.#listeners.tellDeleted(keys, result);
    const { status, value } = await this.#calls.run({
      operation: "delete",
      work: async (signal) =>
        copyDeleteResult(await this.#adapter.delete?.(keys, { signal }), length),
      late: (value) => void (value !== undefined && tell(value)),
    });
    if (value !== undefined) tell(value);
    return new GuardedAnswer(status, value?.deleted ?? length, { bytes: value?.bytes });
  }

  /**
   * Lists all objects. The listing ends early if the adapter fails or misses its deadline for the
   * next object.
   *
   * @param options.onKeyless Called for each object that is left out because its key is unknown.
   */
  async *list(options: GuardedListOptions = {}): AsyncGenerator<ListedObject, void> {
    if (!this.canList) return options.onIncomplete?.();
    const { signal } = options;
    yield* listGuarded(this.#adapter, options, {
      next: (work) => this.#calls.run({ operation: "list", signal, work }),
      leave: (work) => this.#calls.run({ operation: "list", isForced: true, work }),
    });
  }

  /** Reported usage of the adapter; `undefined` if unknown. */
  async usage(): Promise<AdapterUsage | undefined> {
    if (this.#adapter.usage === undefined) return undefined;
    const { value } = await this.#calls.run({
      operation: "usage",
      work: async (signal) => copyUsage(await this.#adapter.usage?.({ signal })),
    });
    return value;
  }

  /** Removes what dead writers left behind; `undefined` if the adapter cannot, or fails. */
  async sweep(): Promise<SweepResult | undefined> {
    if (this.#adapter.sweep === undefined) return undefined;
    const { value } = await this.#calls.run({
      operation: "sweep",
      work: async (signal) => copySweepResult(await this.#adapter.sweep?.({ signal })),
    });
    return value;
  }

  /** Current status and counters, including the adapter's own status. */
  reportStatus(): AdapterStatus {
    const details = this.#reportDetails();
    const problems = [...this.#calls.problems, ...problemsIn(details)];
    return {
      id: this.id,
      type: this.type,
      isHealthy: problems.length === 0,
      problems,
      capabilities: this.#adapter.capabilities,
      ...this.#calls.status,
      loadBytesPerMs: this.#speed.bytesPerMs,
      lookupMs: this.#speed.lookupMs,
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
    return this.#closed ??= this.#close(Math.min(ms, this.#closeMs));
  }

  async #close(timeoutMs: number): Promise<void> {
    this.#calls.life.enter("closed");
    await this.#calls.run({
      operation: "close",
      isForced: true,
      timeoutMs,
      work: () => this.#adapter[Symbol.asyncDispose](),
    });
    this.#calls.abandonAll();
    this.#calls.life.releaseLocks(Infinity);
  }

  get #isUnsealed(): boolean {
    return this.#adapter.capabilities.unsealed === true;
  }

  /** Objects as the adapter stores them: with trailers, or without. */
  #asStored(objects: readonly AdapterObject[]): readonly AdapterObject[] {
    return this.#isUnsealed ? withoutTrailers(objects) : objects;
  }

  #unlockInAdapter(keys: readonly ObjectKey[]): void {
    if (keys.length === 0 || this.#adapter.unlock === undefined) return;
    if (this.state === "closed") return;
    // An `async` unlock may reject, which would otherwise end the process as an unhandled
    // rejection.
    const unlocked = (async () => await this.#adapter.unlock?.(keys))();
    unlocked.catch((cause: unknown) => this.#calls.fail("lookup", cause));
  }

  #reportDetails(): Readonly<Record<string, unknown>> {
    try {
      return this.#adapter.reportStatus?.() ?? {};
    } catch (cause) {
      const error = new AdapterError({ adapter: this.type, operation: "status", cause });
      this.#calls.lastError = error.message;
      return {};
    }
  }
}
