import { frontOfParts } from "../base/byte_parts.ts";
import type { Clock } from "../base/clock.ts";
import { Limiter } from "../base/limiter.ts";
import type { L1Cache, StagedObject } from "../l1/l1_cache.ts";
import type { AdapterGuard, GuardedObject } from "../l2/adapter_guard.ts";
import type { AdapterSet } from "../l2/adapter_set.ts";
import type { ForgetBarrier } from "../lifecycle/forget_barrier.ts";
import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import { bytesWithTrailer } from "../adapter/object_trailer.ts";
import type { Upload } from "../memory/memory_device.ts";
import { packObjects, type StagedPart, type StagingPool } from "../memory/staging_pool.ts";
import type { ChunkTable } from "./chunk_table.ts";
import type { LoadGate } from "./load_gate.ts";
import type { Lookup, Source } from "./lookup.ts";
import { isFull, type PrefetchRequest } from "./prefetch_request.ts";

/** Parts of the cache that loads work with. */
export interface LoadParts {
  /** Cache that objects are loaded into. */
  readonly l1: L1Cache;
  readonly adapters: AdapterSet;
  /** Host memory that adapters load into. Its capacity limits the bytes in flight. */
  readonly scratch: StagingPool<Uint8Array>;
  /** Clock for deadlines and hedging. */
  readonly clock: Clock;
  /** Blocks objects that are being forgotten: they must not be loaded. */
  readonly barrier: Pick<ForgetBarrier, "blocks">;
}

/** Options of {@linkcode ObjectLoader}. */
export interface ObjectLoaderOptions extends LoadParts {
  /** Called when L1 is full. */
  readonly onOutOfMemory: () => void;
  /** Tracks work that may outlive the call that started it. */
  readonly track: (work: Promise<void>, request: PrefetchRequest) => void;
}

/** One search of the adapters for objects of a request. */
export interface Search {
  readonly request: PrefetchRequest;
  readonly table: ChunkTable;
  readonly lookup: Lookup;
  /** Whether to wait for slow adapters rather than hedge. */
  readonly waitsForSlow: boolean;
  /** Aborts when the request is answered or the search is complete. */
  readonly over: AbortSignal;
  /** Decides how much is loaded; everything without one. */
  readonly gate: LoadGate | undefined;
}

/** One attempt of an adapter to load a batch. */
export interface Attempt {
  /** Its number, unique in the loader. */
  readonly id: number;
  /** Aborts when the load is hedged. */
  readonly hedged: AbortController;
  phase: AttemptPhase;
}

/**
 * Phase of an attempt. In the first one its adapter may be slow, so that the load is hedged.
 *
 * - `loading`: it waits for its adapter.
 * - `waiting`: it waits for buffers in use by other loads.
 * - `filling`: other threads may be copying what was loaded into L1.
 */
export type AttemptPhase = "loading" | "waiting" | "filling";

/** Objects of a batch with memory reserved in L1, and that memory. */
interface StagedBatch {
  readonly slots: number[];
  readonly staged: StagedObject[];
}

/** Moves batches of objects from adapters through host memory into L1. */
export class BatchMover {
  readonly #options: ObjectLoaderOptions;
  /** Each adapter's share of the host memory. */
  readonly #limiters = new Map<AdapterGuard, Limiter>();

  /** Follows changes of the adapter set. */
  constructor(options: ObjectLoaderOptions) {
    this.#options = options;
    options.adapters.onChange(({ all }) => {
      for (const guard of this.#limiters.keys()) {
        if (!all.includes(guard)) this.#limiters.delete(guard);
      }
    });
  }

  /** Loads a batch into L1; releases the reserved memory when the load is hedged. */
  async move(
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
    attempt.phase = "waiting";
    const blocks = await scratch.acquire(packing.usedBytes.length);
    attempt.phase = "loading";
    let isAbandoned = false;
    cleanup.defer(() => isAbandoned ? scratch.discard(blocks) : scratch.release(blocks));
    if (isWanted.aborted) return;

    const { slots, staged } = this.#stage(search, source, batch, attempt);
    if (slots.length === 0) return;
    const unstage = (): void => void l1.finishWriteAndDelete(staged);
    cleanup.defer(unstage);
    hedged.addEventListener("abort", unstage, { once: true });

    const packed = new Map(batch.map((slot, i) => [slot, packing.objects[i]]));
    const objects = slots.map((slot): GuardedObject => ({
      key: table.key(slot),
      layout: table.layout(slot),
      byteLength: table.bytes(slot),
      parts: partsIn(blocks, packed.get(slot)),
    }));
    const answer = await adapter.load(objects);
    const { done } = answer;
    // An adapter past its deadline may still write into the blocks, so they are not reused.
    isAbandoned = answer.settled !== undefined;
    for (const [i, slot] of slots.entries()) {
      if (!done.test(i)) lookup.record(source, slot, answer.outcomeOf(i));
    }
    const uploads: Upload[] = [];
    for (const i of done.indices()) {
      const reserved = staged[i];
      const object = objects[i];
      if (reserved !== undefined && object !== undefined && l1.isReserved(reserved)) {
        const parts = frontOfParts(object.parts, object.layout.byteLength);
        uploads.push({ range: reserved.range, parts });
      } else {
        done.clear(i);
      }
    }
    attempt.phase = "filling";
    const copied = l1.device.uploadAll(uploads);
    if (copied !== undefined) {
      // Other threads must not write into memory that has become another object's.
      l1.holdWrite(done.gather(staged));
      await copied;
    }
    const loaded = done.gather(slots);
    const admitted = request.admit(loaded, done.gather(staged), adapter);
    if (admitted !== undefined) await admitted;
    lookup.release(loaded);
    this.settle(search, attempt, slots);
    this.#narrow(search, slots);
  }

  /**
   * Loads an object into host memory alone, which measures the adapter.
   *
   * @returns Whether the adapter delivered it.
   */
  async probe(adapter: AdapterGuard, key: ObjectKey, layout: ObjectLayout): Promise<boolean> {
    const { scratch, barrier } = this.#options;
    const byteLength = bytesWithTrailer(key, layout);
    const { objects: [parts], usedBytes } = packObjects([byteLength], scratch.blockBytes);
    const limiter = this.#limiterOf(adapter);
    const bytes = usedBytes.length * scratch.blockBytes;
    await limiter.acquire(bytes);
    const blocks = await scratch.acquire(usedBytes.length);
    let isAbandoned = false;
    try {
      if (barrier.blocks(key)) return false;
      const { done: found } = await adapter.lookup([key], { prefix: true });
      if (found.popcount() === 0) return false;
      if (barrier.blocks(key)) {
        adapter.unlock([key]);
        return false;
      }
      const object = { key, layout, byteLength, parts: partsIn(blocks, parts) };
      const { done, settled } = await adapter.load([object]);
      isAbandoned = settled !== undefined;
      return done.popcount() > 0;
    } finally {
      if (isAbandoned) scratch.discard(blocks);
      else scratch.release(blocks);
      limiter.release(bytes);
    }
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
      const reservation = request.reserve(slot);
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

  /** Moves the objects that an attempt was to load, and is no longer loading, to their next state. */
  settle({ table, lookup, over }: Search, { id }: Attempt, batch: readonly number[]): void {
    const left = batch.filter((slot) => table.isLoading(slot, id));
    if (over.aborted) table.abandon(left);
    else for (const slot of left) lookup.settle(slot);
  }
}

function partsIn(
  blocks: readonly Uint8Array[],
  parts: readonly StagedPart[] = [],
): Uint8Array[] {
  return parts.map(({ block, byteOffset, byteLength }) =>
    (blocks[block] as Uint8Array).subarray(byteOffset, byteOffset + byteLength)
  );
}
