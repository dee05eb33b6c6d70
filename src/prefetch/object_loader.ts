import { pooledMap } from "@std/async";
import { getLogger } from "@logtape/logtape";
import { Limiter } from "../base/limiter.ts";
import { frontOfParts } from "../base/byte_parts.ts";
import type { L1Cache } from "../l1/l1_cache.ts";
import type { AdapterGuard, GuardedObject } from "../l2/adapter_guard.ts";
import { countThatFit, packObjects, type StagingPool } from "../memory/staging_pool.ts";
import type { Clock } from "../base/clock.ts";
import type { AdapterSet } from "../l2/adapter_set.ts";
import type { ForgetBarrier } from "../lifecycle/forget_barrier.ts";
import { FoundObjects, type Source } from "./found_objects.ts";
import type { PrefetchRequest, StagedBatch } from "./prefetch_request.ts";

/** Batches in flight for each request and adapter: one is read while the other is verified. */
const BATCHES_IN_FLIGHT = 2;
/**
 * Maximum bytes of a batch. Larger batches touch more host memory, whose first use costs more than
 * reading into it.
 */
const BATCH_BYTES = 8 * 2 ** 20;
/**
 * Once an adapter has found an object, the others get this many times its lookup time to answer.
 */
const GRACE_FACTOR = 4;
const MIN_GRACE_MS = 20;
/** A load that takes this many times its expected time is hedged: another adapter is asked. */
const HEDGE_FACTOR = 8;
const MIN_HEDGE_MS = 100;

/**
 * Abort reason of an answered request. Created once, because an error with its stack costs more
 * than a lookup.
 */
const ANSWERED = new DOMException("The request has been answered", "AbortError");

/** Options of {@linkcode ObjectLoader}. */
export interface ObjectLoaderOptions {
  /** Cache that objects are loaded into. */
  readonly l1: L1Cache;
  readonly adapters: AdapterSet;
  /** Host memory that adapters load into. */
  readonly scratch: StagingPool<Uint8Array<ArrayBuffer>>;
  /** Clock for hedging. */
  readonly clock: Clock;
  /** Blocks objects that are being forgotten. */
  readonly barrier: Pick<ForgetBarrier, "blocks">;
  /** Called when L1 is full. */
  readonly onOutOfMemory: () => void;
  /** Tracks work that may outlive the call that started it. */
  readonly track: (work: Promise<void>, request: PrefetchRequest) => void;
}

/** Outcome of loading an object. */
export type LoadOutcome =
  /** It is resident in L1 at this moment. */
  | "loaded"
  /** No adapter has it, or none could load it. */
  | "absent"
  /** L1 had no memory for it. */
  | "no-room"
  /** No load is in progress any more: the object was not needed, or the request was answered. */
  | "abandoned";

/** Callbacks of {@linkcode ObjectLoader.load}. */
export interface LoadCallbacks {
  /** Whether another request is loading an object. */
  readonly isInFlight: (slot: number) => boolean;
  /**
   * Called with the outcome of each object as soon as it is known. Later calls for the same object
   * have no effect.
   */
  readonly onOutcome: (slot: number, outcome: LoadOutcome) => void;
}

/** State of one search. */
interface Load extends LoadCallbacks {
  readonly request: PrefetchRequest;
  readonly found: FoundObjects;
  /** Latest attempt in flight for each slot. Its signal aborts when the attempt is hedged. */
  readonly moving: Map<number, AbortSignal>;
  /** Whether to wait for slow adapters rather than hedge. */
  readonly waitsForSlow: boolean;
  /** Objects that were blocked when their batch started. */
  readonly blocked: Set<number>;
  /**
   * Objects that an engine had written but the device had not confirmed when their batch started.
   */
  readonly filling: Set<number>;
  /** Aborts when the request is answered or the search is complete. */
  readonly over: AbortSignal;
}

/** One attempt of an adapter to load a batch. */
interface Attempt {
  /** Aborts when the load is hedged. */
  readonly hedged: AbortController;
  /**
   * Whether the attempt waits for buffers in use by other loads, which does not make its adapter
   * slow.
   */
  isWaitingForBuffers: boolean;
}

const logger = getLogger(["kvtier", "prefetch"]);

/** Loads objects of requests from the adapters into L1: lookup, plan, load. */
export class ObjectLoader {
  readonly #options: ObjectLoaderOptions;
  readonly #limiters = new Map<AdapterGuard, Limiter>();
  /** Slow adapters, with the number of hedged loads that they have not finished. */
  readonly #slowAdapters = new Map<AdapterGuard, number>();

  /** Creates a loader that follows changes of the adapter set. */
  constructor(options: ObjectLoaderOptions) {
    this.#options = options;
    options.adapters.onChange(({ all }) => {
      for (const guard of this.#limiters.keys()) {
        if (!all.includes(guard)) this.#limiters.delete(guard);
      }
    });
  }

  /**
   * Looks objects up in all adapters and loads those that the prefix needs. Once the request is
   * answered, only loads in flight are completed.
   *
   * @param slots Slots of the objects, in order.
   * @returns The slots that must not be tried again.
   */
  async load(
    request: PrefetchRequest,
    slots: readonly number[],
    options: LoadCallbacks,
  ): Promise<Iterable<number>> {
    const { isInFlight, onOutcome } = options;
    const absent = new Set<number>();
    const blocked = new Set<number>();
    const filling = new Set<number>();
    const marks = { ...options, blocked, filling };
    try {
      const found = await this.#search(request, slots, { ...marks, waitsForSlow: false });
      for (const slot of slots) if (found.isAbsent(slot)) absent.add(slot);
      // Objects that were hedged and that no other adapter could load are worth waiting for after
      // all.
      const isRetryable = (slot: number): boolean =>
        found.wasHedged(slot) && !filling.has(slot) &&
        !this.#options.barrier.blocks(request.key(slot));
      const plan = request.plan((slot) => isInFlight(slot) || isRetryable(slot));
      const retried = plan.slots.filter(isRetryable);
      if (retried.length === 0 || request.isPublished) return absent;
      const again = await this.#search(request, retried, { ...marks, waitsForSlow: true });
      const gone = retried.filter((slot) => again.isAbsent(slot));
      for (const slot of gone) absent.add(slot);
      // Without the objects that turned out to be absent, the others may serve a shorter prefix. If
      // none is absent, this request gives up on all of them, which decides nothing for requests
      // that wait for them.
      return gone.length > 0 ? absent : absent.union(new Set(retried).difference(filling));
    } finally {
      // A request that waits for a blocked object may have started after the block was lifted.
      const isAbsent = (slot: number): boolean => absent.has(slot) && !blocked.has(slot);
      for (const slot of slots) onOutcome(slot, isAbsent(slot) ? "absent" : "abandoned");
    }
  }

  async #search(
    request: PrefetchRequest,
    slots: readonly number[],
    options: LoadCallbacks & Pick<Load, "waitsForSlow" | "blocked" | "filling">,
  ): Promise<FoundObjects> {
    const found = new FoundObjects(request, slots, this.#options.adapters.serving);
    const over = new AbortController();
    const load: Load = { ...options, request, found, moving: new Map(), over: over.signal };
    const cancel = request.onPublished(() => {
      over.abort(ANSWERED);
      found.unlockAll();
      for (const slot of slots) {
        if (load.moving.get(slot)?.aborted !== false) load.onOutcome(slot, "abandoned");
      }
    });
    try {
      await this.#loadAll(load);
      return found;
    } finally {
      cancel();
      over.abort(ANSWERED);
      found.unlockAll();
    }
  }

  /** Loads objects found so far, repeatedly, until the rest is known to be absent. */
  async #loadAll(load: Load): Promise<void> {
    const { request, found, over, isInFlight } = load;
    const isReady = (source: Source): boolean => !this.#isSlow(source);
    const canHave = (slot: number): boolean => isInFlight(slot) || found.isFound(slot);
    const canHaveSoon = (slot: number): boolean => isInFlight(slot) || found.isFound(slot, isReady);
    const lookups = this.#lookUp(load);
    for (;;) {
      let plan = request.plan(canHave);
      while (!over.aborted && !found.isComplete) {
        if (request.plan(canHaveSoon).length === request.end) break;
        if (lookups.isGraceOver && plan.slots.some((slot) => found.isFound(slot))) break;
        await lookups.nextAnswer();
        plan = request.plan(canHave);
      }
      const wanted = plan.slots.filter((slot) => found.isFound(slot));
      if (over.aborted || wanted.length === 0) return;
      found.unlockBehind(plan.length);
      await this.#loadCells(load, wanted);
    }
  }

  /** Sends the lookup to all adapters at once. */
  #lookUp({ found, over }: Load): { readonly isGraceOver: boolean; nextAnswer(): Promise<void> } {
    const { clock } = this.#options;
    const startedAt = clock.now();
    const lookups = {
      isGraceOver: false,
      notify: (): void => {},
      nextAnswer: () => new Promise<void>((resolve) => lookups.notify = resolve),
    };
    let cancelGrace: (() => void) | undefined;
    over.addEventListener("abort", () => {
      cancelGrace?.();
      lookups.notify();
    }, { once: true });
    const options = { prefix: found.isChain, signal: over };
    for (const source of found.sources) {
      source.adapter.lookup(found.keys, options).then(({ done }) => {
        if (over.aborted) return source.adapter.unlock(done.gather(found.keys));
        found.answer(source, done);
        if (cancelGrace === undefined && !found.isComplete && done.popcount() > 0) {
          const graceMs = Math.max(MIN_GRACE_MS, GRACE_FACTOR * (clock.now() - startedAt));
          cancelGrace = clock.schedule(() => {
            lookups.isGraceOver = true;
            lookups.notify();
          }, graceMs);
        }
        lookups.notify();
      });
    }
    return lookups;
  }

  /**
   * Loads each object from the adapter with the lowest expected completion time; slow adapters come
   * last.
   */
  async #loadCells(load: Load, wanted: readonly number[]): Promise<void> {
    const { request, found } = load;
    const plans = found.sources.map((source) => ({ source, slots: [] as number[], bytes: 0 }));
    for (const slot of wanted) {
      const bytes = request.bytes(slot);
      let best: typeof plans[number] | undefined;
      let leastMs = Infinity;
      for (const plan of plans) {
        const { source } = plan;
        if (!found.has(source, slot)) continue;
        const ms = this.#isSlow(source)
          ? Infinity
          : source.adapter.estimateLoadMs(plan.bytes + bytes);
        if (best === undefined || ms < leastMs) [best, leastMs] = [plan, ms];
      }
      if (best === undefined) continue;
      best.slots.push(slot);
      best.bytes += bytes;
    }
    await Promise.all(plans.map(({ source, slots }) => this.#loadFrom(load, source, slots)));
  }

  async #loadFrom(load: Load, source: Source, slots: readonly number[]): Promise<void> {
    const { scratch } = this.#options;
    const batchBytes = Math.min(BATCH_BYTES, scratch.capacityBytes / (2 * BATCHES_IN_FLIGHT));
    const sizes = slots.map((slot) => load.request.bytes(slot));
    const batches: (readonly number[])[] = [];
    for (let start = 0; start < slots.length;) {
      const fitting = countThatFit(sizes.slice(start), scratch.blockBytes, batchBytes);
      const end = start + Math.max(1, fitting);
      batches.push(slots.slice(start, end));
      start = end;
    }
    const loads = pooledMap(
      BATCHES_IN_FLIGHT,
      batches,
      (batch) => this.#loadBatch(load, source, batch),
    );
    for await (const _ of loads);
  }

  /**
   * Loads one batch. Resolves when its objects are in L1 or will not be. If the adapter takes far
   * longer than expected and others have the objects too, the load is hedged.
   */
  async #loadBatch(load: Load, source: Source, batch: readonly number[]): Promise<void> {
    const { request, found } = load;
    const { adapter } = source;
    const isOther = (other: Source): boolean => other !== source && !this.#isSlow(other);
    const isElsewhere = (): boolean =>
      !load.waitsForSlow &&
      batch.every((slot) => request.has(slot) || found.isFound(slot, isOther));
    if (this.#isSlow(source) && isElsewhere()) return found.releaseLocks(source, batch);

    const attempt: Attempt = { hedged: new AbortController(), isWaitingForBuffers: false };
    const gaveUp = Promise.withResolvers<void>();
    const giveUp = (): void => {
      this.#markSlow(adapter, work);
      gaveUp.resolve();
    };
    const bytes = batch.reduce((sum, slot) => sum + request.bytes(slot), 0);
    const hedgeMs = Math.max(MIN_HEDGE_MS, HEDGE_FACTOR * adapter.estimateLoadMs(bytes));
    const hedge = (): void => {
      if (load.over.aborted) {
        // This request is answered, but other requests may wait for the objects and can look
        // elsewhere.
        if (found.sources.length > 1 && !attempt.isWaitingForBuffers) giveUp();
      } else if (!attempt.isWaitingForBuffers && isElsewhere()) {
        attempt.hedged.abort(ANSWERED);
        found.releaseLocks(source, batch);
        giveUp();
      } else {
        cancelHedge = this.#options.clock.schedule(hedge, hedgeMs);
      }
    };
    let cancelHedge = this.#options.clock.schedule(hedge, hedgeMs);
    const work = this.#moveBatch(load, source, batch, attempt).catch((error: unknown) => {
      logger.error("Loading failed: {error}", { error });
      found.releaseLocks(source, batch);
    });
    this.#options.track(work, request);
    await Promise.race([work, gaveUp.promise]);
    cancelHedge();
    if (!load.over.aborted) return;
    for (const slot of batch) load.onOutcome(slot, "abandoned");
  }

  #isSlow({ adapter }: Source): boolean {
    return this.#slowAdapters.has(adapter);
  }

  /** Counts an adapter as slow until `work` has ended. */
  #markSlow(adapter: AdapterGuard, work: Promise<void>): void {
    this.#slowAdapters.set(adapter, (this.#slowAdapters.get(adapter) ?? 0) + 1);
    work.then(() => {
      const count = (this.#slowAdapters.get(adapter) ?? 0) - 1;
      if (count > 0) this.#slowAdapters.set(adapter, count);
      else this.#slowAdapters.delete(adapter);
    });
  }

  /** Loads a batch into L1; releases the reserved memory when the load is hedged. */
  async #moveBatch(
    load: Load,
    source: Source,
    batch: readonly number[],
    attempt: Attempt,
  ): Promise<void> {
    const { scratch, l1 } = this.#options;
    const { request, found } = load;
    const { adapter } = source;
    const hedged = attempt.hedged.signal;
    using cleanup = new DisposableStack();
    const packing = packObjects(batch.map((slot) => request.bytes(slot)), scratch.blockBytes);
    const bytes = packing.usedBytes.length * scratch.blockBytes;
    // A hanging adapter keeps its share of the buffers, but never those of other adapters.
    const limiter = this.#limiterOf(adapter);
    const isWanted = AbortSignal.any([load.over, hedged]);
    if (!await limiter.acquire(bytes, isWanted)) return;
    cleanup.defer(() => limiter.release(bytes));
    // No device memory is reserved during this wait; the load continues only if the request still
    // waits for it.
    attempt.isWaitingForBuffers = true;
    const blocks = await scratch.acquire(packing.usedBytes.length);
    attempt.isWaitingForBuffers = false;
    let isAbandoned = false;
    cleanup.defer(() => isAbandoned ? scratch.discard(blocks) : scratch.release(blocks));
    if (isWanted.aborted) return;

    const { slots, staged } = this.#stage(load, source, batch);
    if (slots.length === 0) return;
    const unstage = (): void => void l1.finishWriteAndDelete(staged);
    cleanup.defer(unstage);
    hedged.addEventListener("abort", unstage, { once: true });
    for (const slot of slots) load.moving.set(slot, hedged);
    cleanup.defer(() => {
      for (const slot of slots) {
        if (load.moving.get(slot) === hedged) load.moving.delete(slot);
      }
    });

    const packed = new Map(batch.map((slot, i) => [slot, packing.objects[i] ?? []]));
    const objects = slots.map((slot): GuardedObject => ({
      key: request.key(slot),
      layout: request.layout(slot),
      byteLength: request.bytes(slot),
      parts: (packed.get(slot) ?? []).map(({ block, byteOffset, byteLength }) =>
        (blocks[block] as Uint8Array<ArrayBuffer>).subarray(byteOffset, byteOffset + byteLength)
      ),
    }));
    const { done, settled } = await adapter.load(objects);
    // An adapter past its deadline may still write into the blocks, so they are not reused.
    isAbandoned = settled !== undefined;
    found.fail(source, done.invert().gather(slots));
    for (const i of done.indices()) {
      const reserved = staged[i];
      const object = objects[i];
      if (reserved !== undefined && object !== undefined && l1.isReserved(reserved)) {
        l1.device.upload(reserved.range, frontOfParts(object.parts, object.layout.byteLength));
      } else {
        done.clear(i);
      }
    }
    const resident = done.gather(slots);
    const admitted = request.admit(
      resident,
      done.gather(staged),
      (slot) => load.onOutcome(slot, "loaded"),
    );
    if (admitted !== undefined) await admitted;
    found.unlock(resident);
    found.narrow(slots);
  }

  /**
   * Reserves memory for the objects of a batch that still have to be loaded. The load unlocks
   * those; objects without memory are given up at once.
   */
  #stage(
    { request, found, blocked, filling, onOutcome }: Load,
    source: Source,
    batch: readonly number[],
  ): StagedBatch {
    const { l1, barrier, onOutOfMemory } = this.#options;
    const giveUp = (slots: readonly number[]): void => {
      for (const slot of slots) {
        if (request.has(slot)) onOutcome(slot, "loaded");
        else if (l1.whenFilled(request.key(slot)) !== undefined) filling.add(slot);
        else if (request.chunkOf(slot) < request.end) found.failEverywhere(slot);
      }
      found.unlock(slots);
      found.narrow(slots);
    };
    const nowBlocked = batch.filter((slot) => barrier.blocks(request.key(slot)));
    for (const slot of nowBlocked) blocked.add(slot);
    giveUp(nowBlocked);
    const staged = request.stage(batch.filter((slot) => found.has(source, slot)));
    found.handOver(source, staged.slots);
    const isStaged = new Set(staged.slots);
    const others = batch.filter((slot) => !isStaged.has(slot));
    giveUp(others);
    if (staged.isOutOfMemory) onOutOfMemory();
    for (const slot of staged.hasRoom ? [] : others) onOutcome(slot, "no-room");
    return staged;
  }

  #limiterOf(adapter: AdapterGuard): Limiter {
    let limiter = this.#limiters.get(adapter);
    if (limiter === undefined) {
      const { scratch, adapters } = this.#options;
      limiter = new Limiter({
        bytes: () => scratch.capacityBytes / Math.max(1, adapters.all.length),
      });
      this.#limiters.set(adapter, limiter);
    }
    return limiter;
  }
}
