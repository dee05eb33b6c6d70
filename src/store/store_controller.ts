import { getLogger } from "@logtape/logtape";
import { backoffMs } from "../base/backoff.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { L1Lease, L1Listener, L1RemovalReason, WrittenObject } from "../l1/l1_cache.ts";
import type { AdapterGuard, GuardedObject } from "../l2/adapter_guard.ts";
import { bytesWithTrailer, tailBytes } from "../adapter/object_trailer.ts";
import { ObjectWithTrailer } from "../l2/object_to_seal.ts";
import type { ReadBack } from "../memory/memory_device.ts";
import { MAX_TIMER_MS } from "../base/clock.ts";
import type { FlushReport } from "./flush_report.ts";
import {
  type DirtyObject,
  type FlushWaiter,
  StoreLane,
  type WaitingObjects,
} from "./store_lane.ts";
import { StoreLosses } from "./store_losses.ts";
import type {
  DropReason,
  StoreControllerOptions,
  StoreListener,
  StoreStatus,
} from "./store_types.ts";

export type {
  DropReason,
  StoreControllerOptions,
  StoreListener,
  StoreStatus,
  WhenFull,
} from "./store_types.ts";

/** Dirty objects to store now. */
export interface DirtySelection {
  readonly matches: (key: ObjectKey) => boolean;
  /** The only keys that can match, if known. */
  readonly keys?: readonly ObjectKey[];
}

/** One batch read back from the device, shared by the adapters that store it. */
interface ReadBackBatch {
  readonly readBack: ReadBack;
  readonly objects: ReadonlyMap<DirtyObject, GuardedObject>;
  /** Number of adapters that still use the batch. */
  borrowers: number;
  /** Each resolves when an adapter that missed its deadline has released the buffers. */
  readonly unsettled: Promise<void>[];
}

/** Objects of a batch that one adapter stores, with their failed attempts. */
interface BatchShare {
  readonly lane: StoreLane;
  readonly attempts: ReadonlyMap<DirtyObject, number>;
}

/** Maximum delay between two attempts, unless the first delay is longer. */
const MAX_BACK_OFF_MS = 30_000;

const logger = getLogger(["kvtier", "store"]);
const NONE: ReadonlySet<DirtyObject> = new Set();

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
  readonly #waiting: WaitingObjects = { objects: 0, bytes: 0 };
  readonly #readyWaiters = new Set<() => void>();
  readonly #laneWaiters = new Map<() => void, StoreLane>();
  readonly #counters = {
    batches: 0,
    readBackBytes: 0,
    readBackMs: 0,
    retriedObjects: 0,
    failedReadBacks: 0,
  };
  /** Objects that adapters did not get. */
  readonly #losses: StoreLosses;
  #cancelIdle = (): void => {};
  #isPumping = false;
  #isDisposed = false;

  /** Subscribes to L1 and to the adapter set. */
  constructor(options: StoreControllerOptions) {
    this.#options = options;
    this.#losses = new StoreLosses(options.clock);
    options.l1.addListener(this);
    options.adapters.onChange(() => this.#closeRemovedLanes());
  }

  addListener(listener: StoreListener): void {
    this.#losses.addListener(listener);
  }

  /** Marks new objects dirty and queues them as the policy demands. */
  written(objects: readonly WrittenObject[]): void {
    const { l1, adapters, policy } = this.#options;
    if (adapters.storing.length === 0) return;
    const fresh = objects.map((object): DirtyObject => {
      return {
        object,
        lanes: new Set(),
        waiting: 0,
        waiters: new Set(),
        isStored: false,
        gone: undefined,
      };
    });
    for (const dirty of fresh) this.#dirty.set(dirty.object.key.id, dirty);
    l1.markDirty(objects.map(({ key }) => key));
    if (policy.writes === "at-once") this.#enqueue(fresh);
  }

  /** With a `before-eviction` policy, stores objects when L1 is above its high watermark. */
  admitted(): void {
    const { l1, policy, watermark, flushBytes } = this.#options;
    if (policy.writes === "at-once") return;
    const { usedBytes, capacityBytes } = l1;
    if (usedBytes <= watermark.high * capacityBytes) return;
    const wantedBytes = usedBytes - watermark.low * capacityBytes;
    let pendingBytes = this.#waiting.bytes;
    for (const { bytesInFlight } of this.#lanes.values()) pendingBytes += bytesInFlight;
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
    const confirmed = this.#confirmed(deadlineMs);
    if (confirmed !== undefined) await confirmed;
    const chosen = this.#chosen(() => true);
    await this.#settle(chosen, Math.max(0, deadlineMs - (clock.now() - startedAt)));
    const unanswered = chosen.flatMap(({ lanes }) => [...lanes].map(({ guard }) => guard));
    const unconfirmed = l1.filled() === undefined ? 0 : l1.reportStatus().fillingObjectCount;
    for (let i = 0; i < unconfirmed; i++) unanswered.push(...adapters.storing);
    return report(unanswered);
  }

  /** Stores the dirty objects that match. Resolves when every adapter has answered for them. */
  settle({ matches, keys }: DirtySelection): Promise<void> {
    return this.#settle(this.#chosen(matches, keys));
  }

  /** Resolves when every queue has room, regardless of `whenFull`. */
  ready(): Promise<void> {
    // Objects that the device has not confirmed yet are queued only afterwards.
    const filled = this.#options.l1.filled();
    if (filled !== undefined) return filled.then(() => this.ready());
    if (this.#hasRoom()) return Promise.resolve();
    this.#writeNow();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#readyWaiters.add(resolve);
    return promise;
  }

  /** Resolves when no object is queued for an adapter, backing off or being stored. */
  emptied(guard: AdapterGuard): Promise<void> {
    const lane = this.#lanes.get(guard);
    if (lane === undefined || lane.isEmpty) return Promise.resolve();
    this.#writeNow();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#laneWaiters.set(resolve, lane);
    return promise;
  }

  reportStatus(): StoreStatus {
    const { policy, whenFull } = this.#options;
    let inFlightObjects = 0;
    for (const lane of this.#lanes.values()) inFlightObjects += lane.objectsInFlight;
    return {
      policy: policy.name,
      whenFull,
      unsavedObjects: this.#dirty.size,
      pendingObjects: this.#waiting.objects,
      pendingBytes: this.#waiting.bytes,
      inFlightObjects,
      ...this.#counters,
      ...this.#losses.counters,
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
    for (const dirty of this.#doomed) tellWaiters(dirty);
    for (const resolve of [...this.#readyWaiters, ...this.#laneWaiters.keys()]) resolve();
    this.#readyWaiters.clear();
    this.#laneWaiters.clear();
  }

  #chosen(test: (key: ObjectKey) => boolean, keys?: readonly ObjectKey[]): DirtyObject[] {
    const ids = keys === undefined ? this.#dirty.keys() : new Set(keys.map(({ id }) => id));
    const dirty = [...ids].flatMap((id) => this.#dirty.get(id) ?? []);
    return [...dirty, ...this.#doomed].filter(({ object }) => test(object.key));
  }

  /** Resolves when the device has confirmed every filling object, or at the deadline. */
  #confirmed(deadlineMs: number): Promise<void> | undefined {
    const filled = this.#options.l1.filled();
    if (filled === undefined || deadlineMs > MAX_TIMER_MS) return filled;
    const { promise, resolve } = Promise.withResolvers<void>();
    const cancel = this.#options.clock.schedule(resolve, deadlineMs);
    filled.then(() => {
      cancel();
      resolve();
    });
    return promise;
  }

  /** Stores objects. Resolves when every adapter has answered for them, or at the deadline. */
  #settle(chosen: readonly DirtyObject[], deadlineMs = Infinity): Promise<void> {
    if (chosen.length === 0) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    const giveUp = (): void => {
      for (const dirty of chosen) dirty.waiters.delete(waiter);
      resolve();
    };
    const cancelDeadline = deadlineMs > MAX_TIMER_MS
      ? () => {}
      : this.#options.clock.schedule(giveUp, deadlineMs);
    const waiter: FlushWaiter = {
      left: chosen.length,
      resolve: () => {
        cancelDeadline();
        resolve();
      },
    };
    for (const dirty of chosen) dirty.waiters.add(waiter);
    this.#enqueue(chosen.filter(({ lanes }) => lanes.size === 0), Infinity);
    this.#writeNow();
    return promise;
  }

  #enqueueCandidates(bytes: number): void {
    const candidates = this.#options.l1.evictionCandidates(bytes).flatMap(({ key }) => {
      const dirty = this.#dirty.get(key.id);
      return dirty === undefined || dirty.lanes.size > 0 ? [] : [dirty];
    });
    this.#enqueue(candidates);
  }

  /** Queues objects for the adapters that the policy chooses. */
  #enqueue(objects: readonly DirtyObject[], maxQueuedBytes = this.#options.maxQueuedBytes): void {
    if (objects.length === 0) return;
    const { adapters, clock, idleMs } = this.#options;
    const guards = adapters.storing;
    for (const dirty of objects) {
      for (const guard of this.#targetsOf(dirty, guards)) {
        this.#queue(this.#laneOf(guard), dirty, maxQueuedBytes);
      }
      if (dirty.lanes.size === 0) this.#finish(dirty);
    }
    this.#cancelIdle();
    this.#cancelIdle = clock.schedule(() => this.#writeNow(), idleMs);
    this.#proceed();
  }

  /** Adapters that the policy chooses for an object and that accept its size. */
  #targetsOf({ object }: DirtyObject, guards: readonly AdapterGuard[]): readonly AdapterGuard[] {
    const { policy } = this.#options;
    let targets: readonly { readonly id: number }[] | undefined;
    try {
      targets = policy.targets?.(object, guards);
    } catch (error) {
      const { name } = policy;
      logger.error("Store policy {name} failed, all adapters get the object: {error}", {
        name,
        error,
      });
    }
    const bytes = bytesWithTrailer(object.key, object.layout);
    return guards.filter(({ id, capabilities: { maxObjectBytes = Infinity } }) =>
      bytes <= maxObjectBytes && (targets?.some((target) => target.id === id) ?? true)
    );
  }

  /** Queues an object if the lane has room or can make some; otherwise counts it as dropped. */
  #queue(lane: StoreLane, dirty: DirtyObject, maxQueuedBytes: number): void {
    const { whenFull } = this.#options;
    const bytes = dirty.object.layout.byteLength;
    // An adapter that does not work must not slow down producers.
    const isBounded = whenFull !== "wait" || !lane.guard.isStoring;
    if (isBounded && whenFull === "drop_oldest" && bytes <= maxQueuedBytes) {
      for (const oldest of lane.waiting()) {
        if (lane.waitingBytes + bytes <= maxQueuedBytes) break;
        lane.remove(oldest);
        this.#drop(lane, oldest, "full");
      }
    }
    if (isBounded && lane.waitingBytes + bytes > maxQueuedBytes) {
      this.#losses.count([lane.guard], dirty, "full");
    } else lane.queue(dirty);
  }

  /** Records that one adapter will not get an object. */
  #drop(lane: StoreLane, dirty: DirtyObject, reason: DropReason): void {
    this.#losses.count([lane.guard], dirty, reason);
    this.#removeFromLane(lane, dirty);
  }

  /** Ends the interest of one adapter in an object, stored or not. */
  #removeFromLane(lane: StoreLane, dirty: DirtyObject): void {
    dirty.lanes.delete(lane);
    if (dirty.lanes.size === 0) this.#finish(dirty);
  }

  /** Finishes an object that no lane contains any more. */
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
    tellWaiters(dirty);
  }

  /** Drops an object from every lane. Stores in flight may still complete. */
  #giveUp(dirty: DirtyObject, gone: NonNullable<DirtyObject["gone"]>): void {
    const { lanes, object } = dirty;
    const reason = gone === "removed" ? "removed" : "lost";
    dirty.gone = gone;
    this.#dirty.delete(object.key.id);
    this.#doomed.add(dirty);
    if (lanes.size === 0) {
      const guards = this.#targetsOf(dirty, this.#options.adapters.storing);
      this.#losses.count(guards, dirty, reason);
      this.#finish(dirty);
    }
    for (const lane of [...lanes]) {
      if (lane.remove(dirty)) this.#drop(lane, dirty, reason);
    }
  }

  #laneOf(guard: AdapterGuard): StoreLane {
    let lane = this.#lanes.get(guard);
    if (lane === undefined) {
      const { clock } = this.#options;
      lane = new StoreLane({
        guard,
        clock,
        waiting: this.#waiting,
        onRetryDue: () => this.#proceed(),
      });
      this.#lanes.set(guard, lane);
    }
    return lane;
  }

  #closeRemovedLanes(): void {
    for (const [guard, lane] of this.#lanes) {
      if (!this.#isPresent(guard)) this.#close(lane);
    }
  }

  #close(lane: StoreLane): void {
    for (const dirty of lane.waiting()) {
      lane.remove(dirty);
      this.#drop(lane, dirty, "removed");
    }
    this.#wake();
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
    for (const [resolve, lane] of this.#laneWaiters) {
      if (!lane.isEmpty) continue;
      this.#laneWaiters.delete(resolve);
      resolve();
    }
    for (const [guard, lane] of this.#lanes) {
      if (lane.isEmpty && !this.#isPresent(guard)) this.#lanes.delete(guard);
    }
    if (this.#readyWaiters.size > 0 && this.#hasRoom()) {
      for (const resolve of this.#readyWaiters) resolve();
      this.#readyWaiters.clear();
    }
    this.#proceed();
  }

  /** Starts storing if a lane is ready, and cancels the idle timer if nothing waits for it. */
  #proceed(): void {
    if (this.#lanes.values().some((lane) => this.#isReady(lane))) this.#pump();
    if (!this.#lanes.values().some((lane) => lane.hasQueued && !lane.isDue)) this.#cancelIdle();
  }

  #isReady(lane: StoreLane): boolean {
    return lane.isDue || lane.queuedBytes >= this.#options.flushBytes;
  }

  #pump(): void {
    if (this.#isPumping || this.#isDisposed) return;
    this.#isPumping = true;
    this.#writeBatches().catch((error: unknown) => {
      this.#isPumping = false;
      logger.error("Storing failed: {error}", { error });
    });
  }

  /** Reads back one batch after the other; adapters store them in the meantime. */
  async #writeBatches(): Promise<void> {
    // Let the caller finish its own work first.
    await Promise.resolve();
    for (;;) {
      const free = this.#lanes.values().filter((lane) =>
        lane.hasQueued && lane.hasRoomInFlight(this.#maxLaneBytes)
      ).toArray();
      const ready = free.filter((lane) => this.#isReady(lane));
      if (ready.length === 0) break;
      const fullest = ready.reduce((a, b) => b.queuedBytes > a.queuedBytes ? b : a);
      await this.#writeBatch(this.#nextBatch(fullest), free);
    }
    // Reset in the same turn as the last check of the lanes, so that an object queued later starts
    // a new pump.
    this.#isPumping = false;
  }

  /** Share of the read-back buffers for one adapter, so that no adapter waits for another. */
  get #maxLaneBytes(): number {
    const { adapters, maxInFlightBytes } = this.#options;
    return maxInFlightBytes / Math.max(1, adapters.all.length);
  }

  /** Next batch of a lane. */
  #nextBatch(lane: StoreLane): DirtyObject[] {
    const { l1, flushBytes } = this.#options;
    const limit = Math.min(flushBytes, this.#maxLaneBytes / 2);
    const objects: DirtyObject[] = [];
    let bytes = 0;
    for (const dirty of lane.queued()) {
      const { byteLength } = dirty.object.layout;
      if (objects.length > 0 && bytes + byteLength > limit) break;
      objects.push(dirty);
      bytes += byteLength;
    }
    const sizes = objects.map(({ object }) => bytesWithTrailer(object.key, object.layout));
    return objects.slice(0, Math.max(1, l1.device.countReadable(sizes)));
  }

  /** Reads a batch back once and stores it in every adapter that has it queued. */
  async #writeBatch(chosen: readonly DirtyObject[], lanes: readonly StoreLane[]): Promise<void> {
    const shares = lanes.map((lane): BatchShare => ({ lane, attempts: lane.take(chosen) }))
      .filter(({ attempts }) => attempts.size > 0);
    this.#wake();
    // Skip the read-back if no adapter would be called.
    const isOffered = shares.some(({ lane }) => lane.guard.canStore);
    const batch = isOffered ? await this.#readBack(chosen, shares.length) : undefined;
    for (const share of shares) this.#store(share, batch);
  }

  /** Reads objects back from the device; `undefined` if that fails. */
  async #readBack(
    chosen: readonly DirtyObject[],
    borrowers: number,
  ): Promise<ReadBackBatch | undefined> {
    const { l1, clock } = this.#options;
    const startedAt = clock.now();
    const leased = new Map<L1Lease, DirtyObject>();
    const reservations = l1.reserveRead(chosen.map(({ object }) => object.key));
    for (const [i, reservation] of reservations.entries()) {
      if (reservation.status === "success") leased.set(reservation.lease, chosen[i] as DirtyObject);
    }
    const leases = [...leased.keys()];
    using cleanup = new DisposableStack();
    try {
      const requests = leases.map(({ key, range }) => ({ range, tailBytes: tailBytes(key) }));
      const readBack = cleanup.use(await l1.device.readBack(requests));
      const objects = new Map<DirtyObject, GuardedObject>();
      for (const [i, lease] of leases.entries()) {
        const { key, layout } = lease;
        const [dirty, parts] = [leased.get(lease), readBack.objects[i]];
        // If the lease expired, the bytes may belong to another object.
        if (dirty === undefined || parts === undefined || !l1.isLeased(lease)) continue;
        objects.set(dirty, new ObjectWithTrailer(key, layout, parts));
        this.#counters.readBackBytes += layout.byteLength;
      }
      this.#counters.batches++;
      cleanup.move();
      return { readBack, objects, borrowers, unsettled: [] };
    } catch (error) {
      this.#counters.failedReadBacks++;
      logger.warn("Objects could not be read back: {error}", { error, count: leases.length });
      return undefined;
    } finally {
      this.#counters.readBackMs += clock.now() - startedAt;
      l1.finishRead(leases);
    }
  }

  /** Stores one adapter's share of a batch, if the read-back succeeded. */
  async #store({ lane, attempts }: BatchShare, batch: ReadBackBatch | undefined): Promise<void> {
    if (batch === undefined) return this.#afterBatch(lane, attempts, NONE);
    const { objects, unsettled } = batch;
    const offered = attempts.keys()
      .filter((dirty) => dirty.gone === undefined && objects.has(dirty)).toArray();
    let stored = NONE;
    if (offered.length > 0) {
      const { done, settled } = await lane.guard.store(
        offered.map((dirty) => objects.get(dirty) as GuardedObject),
      );
      if (settled !== undefined) unsettled.push(settled);
      stored = new Set(done.gather(offered));
    }
    batch.borrowers--;
    if (batch.borrowers === 0) giveBack(batch);
    this.#afterBatch(lane, attempts, stored);
  }

  /** Finishes the objects that were stored; retries or drops the others. */
  #afterBatch(
    lane: StoreLane,
    attempts: ReadonlyMap<DirtyObject, number>,
    stored: ReadonlySet<DirtyObject>,
  ): void {
    lane.finish(attempts);
    const again: DirtyObject[] = [];
    for (const [dirty, count] of attempts) {
      if (stored.has(dirty)) {
        dirty.isStored = true;
        this.#removeFromLane(lane, dirty);
        continue;
      }
      const reason = this.#dropReasonOf(lane, dirty, count + 1);
      if (reason === undefined) again.push(dirty);
      else this.#drop(lane, dirty, reason);
    }
    const byCount = Map.groupBy(again, (dirty) => (attempts.get(dirty) ?? 0) + 1);
    for (const [count, objects] of byCount) this.#retryLater(lane, objects, count);
    this.#wake();
  }

  /**
   * Reason not to retry an object in a lane after this many failed attempts; `undefined` to retry.
   */
  #dropReasonOf(lane: StoreLane, { gone }: DirtyObject, attempts: number): DropReason | undefined {
    const { guard } = lane;
    if (this.#isDisposed || !guard.takesStores || !this.#isPresent(guard)) return "removed";
    if (gone !== undefined) return "lost";
    return attempts >= this.#options.attempts ? "failed" : undefined;
  }

  #retryLater(lane: StoreLane, objects: readonly DirtyObject[], attempts: number): void {
    const { random, backOffMs } = this.#options;
    this.#counters.retriedObjects += objects.length;
    const jitter = 0.5 + (random.bytes(1)[0] ?? 0) / 256;
    const maxMs = Math.max(backOffMs, MAX_BACK_OFF_MS);
    const delayMs = backoffMs({ firstMs: backOffMs, maxMs }, attempts);
    lane.backOff(objects, attempts, delayMs * jitter);
  }
}

/** Returns the buffers as soon as no adapter uses them. */
function giveBack({ readBack, unsettled }: ReadBackBatch): void {
  if (unsettled.length === 0) return readBack[Symbol.dispose]();
  // An adapter past its deadline may still read the buffers, so they are not reused until then.
  readBack.abandon();
  Promise.all(unsettled).then(() => readBack[Symbol.dispose]());
}

function tellWaiters(dirty: DirtyObject): void {
  if (dirty.waiters.size === 0) return;
  const waiters = [...dirty.waiters];
  dirty.waiters.clear();
  for (const waiter of waiters) {
    waiter.left--;
    if (waiter.left === 0) waiter.resolve();
  }
}
