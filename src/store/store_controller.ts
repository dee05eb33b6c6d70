import { within } from "../base/clock.ts";
import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { L1Listener, L1RemovalReason, WrittenObject } from "../l1/l1_cache.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import { DirtyObject, type StoreWaiter } from "./dirty_object.ts";
import type { DropReason, FlushReport } from "./flush_report.ts";
import { StoreAdmission } from "./store_admission.ts";
import { StoreLane } from "./store_lane.ts";
import { StoreLosses } from "./store_losses.ts";
import { chooseTargets } from "./store_policy.ts";
import type { StoreControllerOptions, StoreStatus } from "./store_types.ts";
import { StoreWriter } from "./store_writer.ts";

/** Dirty objects to store now. */
export interface DirtySelection {
  readonly matches: (key: ObjectKey) => boolean;
  /** The only keys that can match, if known. */
  readonly keys?: readonly ObjectKey[];
}

/**
 * Stores what engines put into L1 in the adapters, in the background and in batches. The device is
 * awaited once for each batch, because each wait can block the event loop until the device is idle.
 * An object stays dirty in L1, and can therefore be found, until every adapter has answered for it.
 * Each adapter has a lane of its own, so a slow adapter delays only itself.
 */
export class StoreController implements L1Listener, Disposable {
  readonly #options: StoreControllerOptions;
  readonly #dirty = new Map<string, DirtyObject>();
  /** Objects that left L1 while adapters were storing them. */
  readonly #doomed = new Set<DirtyObject>();
  readonly #lanes = new Map<AdapterGuard, StoreLane>();
  readonly #waiting = { objects: 0, bytes: 0 };
  /** Calls that wait for shorter queues. */
  readonly #waits = new Set<{ readonly isOver: () => boolean; readonly resolve: () => void }>();
  readonly #writer: StoreWriter;
  readonly #losses: StoreLosses;
  readonly #admission: StoreAdmission;
  #retriedObjects = 0;
  #cancelIdle = (): void => {};
  #isDisposed = false;

  /** Subscribes to L1 and to the adapter set. */
  constructor(options: StoreControllerOptions) {
    this.#options = options;
    this.#losses = new StoreLosses(options.clock, options.onDropped);
    const { policy, bytesPerDay = Infinity, clock } = options;
    this.#admission = new StoreAdmission(policy, bytesPerDay, clock);
    this.#writer = new StoreWriter({
      ...options,
      lanes: () => this.#lanes.values(),
      onTaken: () => this.#wake(),
      onAnswered: (...answer) => this.#afterBatch(...answer),
    });
    options.l1.addListener(this);
    options.adapters.onChange(() => this.#closeRemovedLanes());
  }

  /** Marks new objects dirty and queues them as the policy demands. */
  written(objects: readonly WrittenObject[]): void {
    const { l1, adapters, policy } = this.#options;
    if (adapters.storing.length === 0) return;
    const fresh = objects.map((object) => new DirtyObject(object));
    for (const dirty of fresh) this.#dirty.set(dirty.object.key.id, dirty);
    l1.markDirty(objects.map(({ key }) => key));
    if (policy.writes === "at-once") this.#enqueue(fresh);
  }

  /** Queues those objects of a hit that were refused when they were written. */
  served(
    groups: readonly { keys: readonly ObjectKey[]; layout: ObjectLayout }[],
    length: number,
  ): void {
    if (!this.#admission.hasWaiting) return;
    const { l1 } = this.#options;
    for (const { keys, layout } of groups) {
      const again = keys.slice(0, length).filter((key) =>
        this.#admission.isWaiting(key.id) && !this.#dirty.has(key.id) && l1.has(key)
      );
      if (again.length > 0) this.written(again.map((key) => ({ key, layout })));
    }
  }

  /** With a `before-eviction` policy, stores objects when L1 is above its high watermark. */
  admitted(): void {
    const { l1, policy, watermark, flushBytes } = this.#options;
    if (policy.writes === "at-once") return;
    const { usedBytes, capacityBytes } = l1;
    if (usedBytes <= watermark.high * capacityBytes) return;
    const wantedBytes = usedBytes - watermark.low * capacityBytes;
    let pendingBytes = this.#waiting.bytes;
    for (const { storing } of this.#lanes.values()) pendingBytes += storing.bytes;
    // Finding candidates skips everything already queued, so it is done once for each batch rather
    // than for each object.
    if (pendingBytes > 0 && wantedBytes < pendingBytes + flushBytes) return;
    this.#enqueueCandidates(wantedBytes);
  }

  /** Gives up an object that left L1, since its bytes are gone. */
  removed(key: ObjectKey, reason: L1RemovalReason): void {
    const dirty = this.#dirty.get(key.id);
    if (dirty === undefined) return;
    this.#giveUp(dirty, reason === "forgotten" ? "forgotten" : "lost");
    this.#wake();
  }

  /**
   * Stores the objects that L1 would have to evict to free `bytes`. Called when a reservation
   * failed because dirty objects cannot be evicted.
   */
  relieve(bytes: number): void {
    this.#enqueueCandidates(bytes);
    this.#writeNow();
  }

  /**
   * Stores every dirty object. Resolves when every adapter has answered, or after `deadlineMs`
   * milliseconds; objects not stored by then stay queued.
   */
  async flush(deadlineMs = Infinity): Promise<FlushReport> {
    const { l1, adapters, clock } = this.#options;
    const report = this.#losses.startReport();
    const startedAt = clock.now();
    const filled = l1.filled();
    if (filled !== undefined) await within(clock, filled, deadlineMs);
    const chosen = this.#chosen({ matches: () => true });
    await this.#settle(chosen, Math.max(0, deadlineMs - (clock.now() - startedAt)));
    const unanswered = chosen.flatMap(({ shares }) => [...shares.keys()]);
    const unconfirmed = l1.filled() === undefined ? 0 : l1.reportStatus().fillingObjectCount;
    for (let i = 0; i < unconfirmed; i++) unanswered.push(...adapters.storing);
    return report(unanswered);
  }

  /** Stores the dirty objects that match. Resolves when every adapter has answered for them. */
  settle(selection: DirtySelection): Promise<void> {
    return this.#settle(this.#chosen(selection));
  }

  /** Resolves when every queue has room, regardless of `whenFull`. */
  ready(): Promise<void> {
    // Objects that the device has not confirmed yet are queued only afterwards.
    const filled = this.#options.l1.filled();
    if (filled !== undefined) return filled.then(() => this.ready());
    return this.#until(() => this.#hasRoom());
  }

  /** Resolves when no object is queued for an adapter, backing off or being stored. */
  emptied(guard: AdapterGuard): Promise<void> {
    return this.#until(() => this.#lanes.get(guard)?.isEmpty ?? true);
  }

  reportStatus(): StoreStatus {
    const { policy, whenFull } = this.#options;
    let [inFlightObjects, inFlightBytes] = [0, 0];
    for (const { storing } of this.#lanes.values()) {
      inFlightObjects += storing.size;
      inFlightBytes += storing.bytes;
    }
    return {
      policy: policy.name,
      whenFull,
      unsavedObjects: this.#dirty.size,
      pendingObjects: this.#waiting.objects,
      pendingBytes: this.#waiting.bytes,
      inFlightObjects,
      inFlightBytes,
      retriedObjects: this.#retriedObjects,
      ...this.#writer.counters,
      ...this.#losses.counters,
      refusedObjects: this.#admission.refused,
    };
  }

  /** Current problems, as sentences with a remedy. */
  problems(): string[] {
    return this.#losses.problems();
  }

  /**
   * Drops every dirty object, clears the marks in L1, resolves all waits and cancels all timers.
   */
  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.#options.l1.removeListener(this);
    this.#cancelIdle();
    for (const dirty of [...this.#dirty.values()]) {
      this.#options.l1.markClean([dirty.object.key]);
      this.#giveUp(dirty, "removed");
    }
    for (const dirty of this.#doomed) dirty.tellWaiters();
    for (const { resolve } of this.#waits) resolve();
    this.#waits.clear();
  }

  #chosen({ matches, keys }: DirtySelection): DirtyObject[] {
    const ids = keys === undefined ? this.#dirty.keys() : new Set(keys.map(({ id }) => id));
    const dirty = [...ids].flatMap((id) => this.#dirty.get(id) ?? []);
    return [...dirty, ...this.#doomed].filter(({ object }) => matches(object.key));
  }

  /** Stores objects. Resolves when every adapter has answered for them, or at the deadline. */
  #settle(chosen: readonly DirtyObject[], deadlineMs = Infinity): Promise<void> {
    if (chosen.length === 0) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    const waiter: StoreWaiter = { left: chosen.length, resolve };
    for (const { waiters } of chosen) waiters.add(waiter);
    this.#enqueue(chosen.filter(({ shares }) => shares.size === 0), Infinity);
    this.#writeNow();
    if (deadlineMs === Infinity) return promise;
    return within(this.#options.clock, promise, deadlineMs).then(() => {
      for (const { waiters } of chosen) waiters.delete(waiter);
    });
  }

  /** Resolves when `isOver` returns `true`. */
  #until(isOver: () => boolean): Promise<void> {
    if (isOver()) return Promise.resolve();
    this.#writeNow();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waits.add({ isOver, resolve });
    return promise;
  }

  #enqueueCandidates(bytes: number): void {
    const candidates = this.#options.l1.evictionCandidates(bytes).flatMap(({ key }) => {
      const dirty = this.#dirty.get(key.id);
      return dirty === undefined || dirty.shares.size > 0 ? [] : [dirty];
    });
    this.#enqueue(candidates);
  }

  /** Queues objects for the adapters that the policy chooses. */
  #enqueue(objects: readonly DirtyObject[], maxQueuedBytes = this.#options.maxQueuedBytes): void {
    if (objects.length === 0) return;
    const { adapters, policy, whenFull, clock, idleMs } = this.#options;
    const guards = adapters.storing;
    for (const dirty of objects) {
      const targets = chooseTargets(policy, dirty.object, guards);
      if (this.#isRefused(dirty, targets.length)) {
        this.#finish(dirty);
        continue;
      }
      for (const guard of targets) {
        const lane = this.#laneOf(guard);
        // An adapter that does not work must not slow down producers.
        const limit = whenFull === "wait" && guard.isStoring ? Infinity : maxQueuedBytes;
        if (whenFull === "drop_oldest") this.#makeRoom(lane, dirty.bytes, limit);
        if (lane.waitingBytes + dirty.bytes <= limit) lane.queue(dirty);
        else this.#losses.count([guard], dirty, "full");
      }
      if (dirty.shares.size === 0) this.#finish(dirty);
    }
    this.#cancelIdle();
    this.#cancelIdle = clock.schedule(() => this.#writeNow(), idleMs);
    this.#proceed();
  }

  #isRefused({ object: { key }, bytes }: DirtyObject, adapters: number): boolean {
    return adapters > 0 && this.#admission.refusal(key.id, bytes * adapters) !== undefined;
  }

  /** Drops the oldest objects of a lane until `bytes` fit, if they can. */
  #makeRoom(lane: StoreLane, bytes: number, limit: number): void {
    if (bytes > limit) return;
    for (const oldest of lane.waiting()) {
      if (lane.waitingBytes + bytes <= limit) break;
      this.#drop(lane, oldest, "full");
    }
  }

  /** Records that one adapter will not get an object. */
  #drop(lane: StoreLane, dirty: DirtyObject, reason: DropReason): void {
    this.#losses.count([lane.guard], dirty, reason);
    this.#end(lane, dirty, "dropped");
  }

  /** Ends the interest of one adapter in an object. */
  #end(lane: StoreLane, dirty: DirtyObject, phase: "stored" | "dropped"): void {
    lane.end(dirty, phase);
    if (dirty.shares.size === 0) this.#finish(dirty);
  }

  /** Finishes an object that no adapter is to get any more. */
  #finish(dirty: DirtyObject): void {
    const { l1, policy } = this.#options;
    const { key } = dirty.object;
    if (dirty.gone !== undefined) {
      this.#doomed.delete(dirty);
    } else {
      this.#dirty.delete(key.id);
      l1.markClean([key]);
      if (dirty.isStored && !policy.keepsInL1) l1.release([key]);
    }
    dirty.tellWaiters();
  }

  /** Drops an object for every adapter. Stores in flight may still complete. */
  #giveUp(dirty: DirtyObject, gone: NonNullable<DirtyObject["gone"]>): void {
    const { adapters, policy } = this.#options;
    const { shares, object } = dirty;
    const reason = gone === "removed" ? "removed" : "lost";
    dirty.gone = gone;
    this.#dirty.delete(object.key.id);
    this.#doomed.add(dirty);
    if (shares.size === 0) {
      this.#losses.count(chooseTargets(policy, object, adapters.storing), dirty, reason);
      this.#finish(dirty);
    }
    for (const [guard, { phase }] of [...shares]) {
      if (phase !== "storing") this.#drop(this.#laneOf(guard), dirty, reason);
    }
  }

  #laneOf(guard: AdapterGuard): StoreLane {
    let lane = this.#lanes.get(guard);
    if (lane === undefined) {
      lane = new StoreLane(guard, {
        ...this.#options,
        waiting: this.#waiting,
        onRetryDue: () => this.#proceed(),
      });
      this.#lanes.set(guard, lane);
    }
    return lane;
  }

  #closeRemovedLanes(): void {
    for (const [guard, lane] of this.#lanes) {
      if (this.#isPresent(guard)) continue;
      for (const dirty of lane.waiting()) this.#drop(lane, dirty, "removed");
      this.#wake();
    }
  }

  #isPresent(guard: AdapterGuard): boolean {
    return this.#options.adapters.all.includes(guard);
  }

  #hasRoom(): boolean {
    const { maxQueuedBytes } = this.#options;
    return this.#lanes.values().every((lane) =>
      lane.waitingBytes < maxQueuedBytes || !lane.guard.isStoring
    );
  }

  /** Stores everything queued, even less than a batch. */
  #writeNow(): void {
    for (const lane of this.#lanes.values()) lane.makeDue();
    this.#proceed();
  }

  /**
   * Continues after queues have become shorter: resolves waits, drops empty lanes of removed
   * adapters, and starts batches.
   */
  #wake(): void {
    for (const [guard, lane] of this.#lanes) {
      if (lane.isEmpty && !this.#isPresent(guard)) this.#lanes.delete(guard);
    }
    for (const wait of this.#waits) {
      if (!wait.isOver()) continue;
      this.#waits.delete(wait);
      wait.resolve();
    }
    this.#proceed();
  }

  /** Starts storing if a lane is ready, and cancels the idle timer if nothing waits for it. */
  #proceed(): void {
    if (!this.#isDisposed && this.#lanes.values().some(({ isReady }) => isReady)) {
      this.#writer.run();
    }
    if (!this.#lanes.values().some((lane) => lane.queued.size > 0 && !lane.isDue)) {
      this.#cancelIdle();
    }
  }

  /** Finishes the objects that an adapter stored; retries or drops the others. */
  #afterBatch(
    lane: StoreLane,
    taken: readonly DirtyObject[],
    stored: ReadonlySet<DirtyObject>,
  ): void {
    lane.endBatch();
    const again: DirtyObject[] = [];
    for (const dirty of taken) {
      const reason = this.#dropReasonOf(lane, dirty);
      if (stored.has(dirty)) {
        dirty.isStored = true;
        this.#end(lane, dirty, "stored");
      } else if (reason === undefined) again.push(dirty);
      else this.#drop(lane, dirty, reason);
    }
    this.#retriedObjects += again.length;
    lane.retryLater(again);
    this.#wake();
  }

  /** Reason not to retry an object whose attempt failed; `undefined` to retry. */
  #dropReasonOf(lane: StoreLane, dirty: DirtyObject): DropReason | undefined {
    const { guard } = lane;
    if (this.#isDisposed || !guard.takesStores || !this.#isPresent(guard)) return "removed";
    if (dirty.gone !== undefined) return "lost";
    return lane.hasAttemptsLeft(dirty) ? undefined : "failed";
  }
}
