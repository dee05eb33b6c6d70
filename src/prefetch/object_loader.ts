import { pooledMap } from "@std/async";
import { getLogger } from "@logtape/logtape";
import { frontOfParts } from "../base/byte_parts.ts";
import type { Clock } from "../base/clock.ts";
import { Limiter } from "../base/limiter.ts";
import type { L1Cache, StagedObject } from "../l1/l1_cache.ts";
import type { AdapterGuard, GuardedObject } from "../l2/adapter_guard.ts";
import type { AdapterSet } from "../l2/adapter_set.ts";
import type { ForgetBarrier } from "../lifecycle/forget_barrier.ts";
import { countThatFit, packObjects, type StagingPool } from "../memory/staging_pool.ts";
import type { ChunkTable } from "./chunk_table.ts";
import { Lookup, type Source } from "./lookup.ts";
import { plan } from "./plan.ts";
import { isFull, type PrefetchRequest } from "./prefetch_request.ts";

/** Batches in flight for each request and adapter: one is read while the other is verified. */
const BATCHES_IN_FLIGHT = 2;
/**
 * Maximum bytes of a batch. Larger batches touch more host memory, whose first use costs more than
 * reading into it.
 */
const BATCH_BYTES = 8 * 2 ** 20;
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

/** One search of the adapters for objects of a request. */
interface Search {
  readonly request: PrefetchRequest;
  readonly table: ChunkTable;
  readonly lookup: Lookup;
  /** Whether to wait for slow adapters rather than hedge. */
  readonly waitsForSlow: boolean;
  /** Aborts when the request is answered or the search is complete. */
  readonly over: AbortSignal;
}

/** One attempt of an adapter to load a batch. */
interface Attempt {
  /** Its number, unique in the loader. */
  readonly id: number;
  /** Aborts when the load is hedged. */
  readonly hedged: AbortController;
  /**
   * Whether the attempt waits for buffers in use by other loads, which does not make its adapter
   * slow.
   */
  isWaitingForBuffers: boolean;
}

/** Objects of a batch with memory reserved in L1, and that memory. */
interface StagedBatch {
  readonly slots: number[];
  readonly staged: StagedObject[];
}

const logger = getLogger(["kvtier", "prefetch"]);

/** Loads objects of requests from the adapters into L1: lookup, plan, load. */
export class ObjectLoader {
  readonly #options: ObjectLoaderOptions;
  readonly #limiters = new Map<AdapterGuard, Limiter>();
  /** Slow adapters, with the number of hedged loads that they have not finished. */
  readonly #slowAdapters = new Map<AdapterGuard, number>();
  #attempts = 0;

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
   * @param slots Slots of the objects, in order; their state is `asked`.
   */
  async load(request: PrefetchRequest, slots: readonly number[]): Promise<void> {
    const { table } = request;
    try {
      const lookup = await this.#search(request, slots, false);
      // Objects whose load was hedged and that no other adapter could load are worth waiting for
      // after all.
      const isRetryable = (slot: number): boolean =>
        lookup.wasReleased(slot) && !this.#options.barrier.blocks(table.key(slot));
      const { slots: needed } = plan(table, (slot) => isExpected(table, slot) || isRetryable(slot));
      const retried = needed.filter(isRetryable);
      if (retried.length === 0 || request.isPublished) return;
      await this.#search(request, retried, true);
      // Without the objects that turned out to be absent, the others may serve a shorter prefix. If
      // none is absent, this request gives up on all of them, which decides nothing for requests
      // that wait for them.
      if (retried.some((slot) => !table.isPossible(slot))) return;
      for (const slot of table.abandon(retried)) table.miss(slot, "failed");
    } finally {
      table.abandon(slots);
    }
  }

  async #search(
    request: PrefetchRequest,
    slots: readonly number[],
    waitsForSlow: boolean,
  ): Promise<Lookup> {
    const { table } = request;
    const controller = new AbortController();
    const over = controller.signal;
    const { adapters: { serving: adapters }, clock } = this.#options;
    const lookup = new Lookup({ table, slots, adapters, clock, over });
    const end = (): void => {
      controller.abort(ANSWERED);
      lookup.release(slots);
    };
    const cancel = request.onPublished(() => {
      end();
      table.abandon(slots.filter((slot) => table.state(slot) !== "loading"));
    });
    try {
      lookup.ask();
      await this.#loadAll({ request, table, lookup, waitsForSlow, over });
      return lookup;
    } finally {
      cancel();
      end();
    }
  }

  /** Loads objects found so far, repeatedly, until the rest is known to be absent. */
  async #loadAll(search: Search): Promise<void> {
    const { table, lookup, over } = search;
    const isReady = (source: Source): boolean => !this.#isSlow(source);
    const canHave = (slot: number): boolean => isExpected(table, slot);
    const canHaveSoon = (slot: number): boolean =>
      canHave(slot) && (table.state(slot) !== "found" || lookup.isHeld(slot, isReady));
    const isFound = (slot: number): boolean => table.state(slot) === "found";
    for (;;) {
      let { length, slots } = plan(table, canHave);
      while (!over.aborted && !lookup.isComplete) {
        if (plan(table, canHaveSoon).length === table.end) break;
        if (lookup.isGraceOver && slots.some(isFound)) break;
        await lookup.next();
        ({ length, slots } = plan(table, canHave));
      }
      const found = slots.filter(isFound);
      if (over.aborted || found.length === 0) return;
      // Behind a prefix that can only become shorter, no lock is needed.
      if (lookup.isComplete && !table.hasWindows) lookup.releaseFrom(length);
      await this.#loadFound(search, found);
    }
  }

  /**
   * Loads each object from the adapter with the lowest expected completion time; slow adapters come
   * last.
   */
  async #loadFound(search: Search, found: readonly number[]): Promise<void> {
    const { table, lookup } = search;
    const shares = lookup.sources.map((source) => ({ source, slots: [] as number[], bytes: 0 }));
    for (const slot of found) {
      const bytes = table.bytes(slot);
      let best: typeof shares[number] | undefined;
      let leastMs = Infinity;
      for (const share of shares) {
        const { source } = share;
        if (!lookup.holds(source, slot)) continue;
        const ms = this.#isSlow(source)
          ? Infinity
          : source.adapter.estimateLoadMs(share.bytes + bytes);
        if (best === undefined || ms < leastMs) [best, leastMs] = [share, ms];
      }
      if (best === undefined) continue;
      best.slots.push(slot);
      best.bytes += bytes;
    }
    await Promise.all(shares.map(({ source, slots }) => this.#loadFrom(search, source, slots)));
  }

  async #loadFrom(search: Search, source: Source, slots: readonly number[]): Promise<void> {
    const { scratch } = this.#options;
    const batchBytes = Math.min(BATCH_BYTES, scratch.capacityBytes / (2 * BATCHES_IN_FLIGHT));
    const sizes = slots.map((slot) => search.table.bytes(slot));
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
      (batch) => this.#loadBatch(search, source, batch),
    );
    for await (const _ of loads);
  }

  /**
   * Loads one batch. Resolves when its objects are in L1 or will not be. If the adapter takes far
   * longer than expected and others have the objects too, the load is hedged.
   */
  async #loadBatch(search: Search, source: Source, batch: readonly number[]): Promise<void> {
    const { request, table, lookup, over } = search;
    const { adapter } = source;
    const isOther = (other: Source): boolean => other !== source && !this.#isSlow(other);
    const isElsewhere = (): boolean =>
      !search.waitsForSlow &&
      batch.every((slot) => table.state(slot) === "resident" || lookup.isHeld(slot, isOther));
    if (this.#isSlow(source) && isElsewhere()) return lookup.release(batch, [source]);

    const attempt: Attempt = {
      id: ++this.#attempts,
      hedged: new AbortController(),
      isWaitingForBuffers: false,
    };
    const gaveUp = Promise.withResolvers<void>();
    const giveUp = (): void => {
      this.#markSlow(adapter, work);
      gaveUp.resolve();
    };
    const bytes = batch.reduce((sum, slot) => sum + table.bytes(slot), 0);
    const hedgeMs = Math.max(MIN_HEDGE_MS, HEDGE_FACTOR * adapter.estimateLoadMs(bytes));
    const hedge = (): void => {
      if (over.aborted) {
        // This request is answered, but other requests may wait for the objects and can look
        // elsewhere.
        if (lookup.sources.length > 1 && !attempt.isWaitingForBuffers) giveUp();
      } else if (!attempt.isWaitingForBuffers && isElsewhere()) {
        attempt.hedged.abort(ANSWERED);
        lookup.release(batch, [source]);
        this.#settle(search, attempt, batch);
        giveUp();
      } else {
        cancelHedge = this.#options.clock.schedule(hedge, hedgeMs);
      }
    };
    let cancelHedge = this.#options.clock.schedule(hedge, hedgeMs);
    const work = this.#moveBatch(search, source, batch, attempt).catch((error: unknown) => {
      logger.error("Loading failed: {error}", { error });
      lookup.release(batch, [source]);
    });
    this.#options.track(work, request);
    await Promise.race([work, gaveUp.promise]);
    cancelHedge();
    this.#settle(search, attempt, batch);
  }

  /** Moves the objects that an attempt was to load, and is no longer loading, to their next state. */
  #settle({ table, lookup, over }: Search, { id }: Attempt, batch: readonly number[]): void {
    const left = batch.filter((slot) => table.isLoading(slot, id));
    if (over.aborted) table.abandon(left);
    else for (const slot of left) lookup.settle(slot);
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
    search: Search,
    source: Source,
    batch: readonly number[],
    attempt: Attempt,
  ): Promise<void> {
    const { scratch, l1 } = this.#options;
    const { request, table, lookup } = search;
    const { adapter } = source;
    const hedged = attempt.hedged.signal;
    using cleanup = new DisposableStack();
    const packing = packObjects(batch.map((slot) => table.bytes(slot)), scratch.blockBytes);
    const bytes = packing.usedBytes.length * scratch.blockBytes;
    // A hanging adapter keeps its share of the buffers, but never those of other adapters.
    const limiter = this.#limiterOf(adapter);
    const isWanted = AbortSignal.any([search.over, hedged]);
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

    const { slots, staged } = this.#stage(search, source, batch, attempt);
    if (slots.length === 0) return;
    const unstage = (): void => void l1.finishWriteAndDelete(staged);
    cleanup.defer(unstage);
    hedged.addEventListener("abort", unstage, { once: true });

    const packed = new Map(batch.map((slot, i) => [slot, packing.objects[i] ?? []]));
    const objects = slots.map((slot): GuardedObject => ({
      key: table.key(slot),
      layout: table.layout(slot),
      byteLength: table.bytes(slot),
      parts: (packed.get(slot) ?? []).map(({ block, byteOffset, byteLength }) =>
        (blocks[block] as Uint8Array<ArrayBuffer>).subarray(byteOffset, byteOffset + byteLength)
      ),
    }));
    const answer = await adapter.load(objects);
    const { done } = answer;
    // An adapter past its deadline may still write into the blocks, so they are not reused.
    isAbandoned = answer.settled !== undefined;
    for (const [i, slot] of slots.entries()) {
      if (!done.test(i)) lookup.record(source, slot, answer.outcomeOf(i));
    }
    for (const i of done.indices()) {
      const reserved = staged[i];
      const object = objects[i];
      if (reserved !== undefined && object !== undefined && l1.isReserved(reserved)) {
        l1.device.upload(reserved.range, frontOfParts(object.parts, object.layout.byteLength));
      } else {
        done.clear(i);
      }
    }
    const loaded = done.gather(slots);
    const admitted = request.admit(loaded, done.gather(staged), adapter);
    if (admitted !== undefined) await admitted;
    lookup.release(loaded);
    this.#settle(search, attempt, slots);
    this.#narrow(search, slots);
  }

  /**
   * Reserves memory for the objects of a batch that still have to be loaded. The load unlocks
   * those; the others are given up at once.
   */
  #stage(
    search: Search,
    source: Source,
    batch: readonly number[],
    { id }: Attempt,
  ): StagedBatch {
    const { l1, barrier, onOutOfMemory } = this.#options;
    const { request, table, lookup } = search;
    const slots: number[] = [];
    const staged: StagedObject[] = [];
    for (const slot of batch) {
      if (slot >= table.size) break;
      if (!lookup.holds(source, slot)) continue;
      const key = table.key(slot);
      if (barrier.blocks(key)) {
        table.transition(slot, "blocked");
        this.#narrow(search, [slot]);
        continue;
      }
      const reservation = request.reserve(slot, id);
      if (reservation.status === "success") {
        lookup.take(source, slot, id);
        slots.push(slot);
        staged.push(reservation.staged);
      } else if (reservation.status !== "already-present") {
        table.miss(slot, isFull(reservation) ? "no-room" : "lost");
        request.narrow(table.chunkOf(slot));
        if (isFull(reservation)) onOutOfMemory();
        break;
      } else if (!request.lease(slot)) {
        // An engine wrote it: as an object of another layout, or it is not confirmed yet.
        if (l1.whenFilled(key) === undefined) table.miss(slot, "damaged");
        else table.transition(slot, "wanted");
      }
    }
    const others = batch.filter((slot) => !table.isLoading(slot, id));
    lookup.release(others);
    table.abandon(others);
    this.#narrow(search, others);
    return { slots, staged };
  }

  /** Shortens the prefix at objects that cannot be had any more. */
  #narrow({ request, table, lookup }: Search, slots: readonly number[]): void {
    for (const slot of table.hasWindows ? [] : slots) {
      if (!table.isPossible(slot)) request.narrow(table.chunkOf(slot));
    }
    lookup.releaseFrom(table.end);
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

/** Whether an object is or may become resident, as far as the adapters have answered. */
function isExpected(table: ChunkTable, slot: number): boolean {
  return table.isPossible(slot) && table.state(slot) !== "asked";
}
