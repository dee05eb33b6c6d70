import { pooledMap } from "@std/async";
import { getLogger } from "@logtape/logtape";
import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { L1Cache, L1Pin, ReadReservation, WriteReservation } from "../l1/l1_cache.ts";
import type { AdapterGuard, GuardedObject } from "../l2/adapter_guard.ts";
import { payloadPieces, sealedBytes } from "../l2/object_trailer.ts";
import type { MemoryRange } from "../memory/memory_device.ts";
import { countThatFit, packPieces, type StagingPool } from "../memory/staging_pool.ts";
import type { Clock } from "../runtime/clock.ts";

/** Batches that one adapter loads at a time: one is read while the other is verified. */
const BATCHES_IN_FLIGHT = 2;
/** Larger batches only touch more host memory, whose first use costs more than reading into it. */
const BATCH_BYTES = 8 * 2 ** 20;

/** How a {@linkcode PrefetchController} is set up. */
export interface PrefetchControllerOptions {
  /** Where objects go. */
  readonly l1: L1Cache;
  /** Where they come from; of several that have an object, the first serves it. */
  readonly adapters: readonly AdapterGuard[];
  /** Host memory that adapters load into. */
  readonly scratch: StagingPool<Uint8Array<ArrayBuffer>>;
  /** Source of time. */
  readonly clock: Clock;
}

/** Options of {@linkcode PrefetchController.prefetch}. */
export interface PrefetchOptions {
  /** After this time the caller gets what is there; left out, the adapters' deadlines count. */
  readonly deadlineMs?: number;
  /** Gives up: the call rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** The longest prefix that could be had, pinned. */
export interface PrefetchResult {
  /** One pin for each object of the prefix. */
  readonly pins: readonly L1Pin[];
  /** How many of them were in L1 before. */
  readonly l1Objects: number;
}

/** Counters of a {@linkcode PrefetchController}. */
export interface PrefetchStatus {
  /** Requests so far. */
  readonly requests: number;
  /** Requests that the caller waits for, or that still move bytes. */
  readonly inFlightRequests: number;
  /** Requests answered at their deadline. */
  readonly deadlines: number;
  /** Objects asked for. */
  readonly requestedObjects: number;
  /** Objects served that were in L1. */
  readonly l1Objects: number;
  /** Objects served that came from an adapter. */
  readonly l2Objects: number;
  /** Requests cut short because device memory was full. */
  readonly outOfMemory: number;
}

const logger = getLogger(["kvtier", "prefetch"]);

/** Brings the longest available prefix of a chain of objects into L1 and pins it there. */
export class PrefetchController {
  readonly #options: PrefetchControllerOptions;
  readonly #running = new Set<Promise<void>>();
  readonly #counters = {
    requests: 0,
    deadlines: 0,
    requestedObjects: 0,
    l1Objects: 0,
    l2Objects: 0,
    outOfMemory: 0,
  };

  /** Starts nothing yet. */
  constructor(options: PrefetchControllerOptions) {
    this.#options = options;
  }

  /**
   * Pins the prefix: what is in L1, and behind it what the adapters have, without a gap.
   *
   * @param keys Keys of one chain, in order.
   * @param layout Layout of all objects.
   */
  async prefetch(
    keys: readonly ObjectKey[],
    layout: ObjectLayout,
    options: PrefetchOptions = {},
  ): Promise<PrefetchResult> {
    options.signal?.throwIfAborted();
    this.#counters.requests++;
    this.#counters.requestedObjects += keys.length;
    const { l1, adapters, clock } = this.#options;
    const request = new Request(keys, layout, l1, this.#counters.requests);
    if (request.isComplete || adapters.length === 0) {
      request.publish();
    } else {
      const cancelDeadline = options.deadlineMs === undefined
        ? (): void => {}
        : clock.schedule(() => {
          this.#counters.deadlines++;
          request.publish();
        }, options.deadlineMs);
      const onAbort = (): void => request.publish(options.signal?.reason);
      options.signal?.addEventListener("abort", onAbort, { once: true });
      const work = this.#load(request).catch((error: unknown) => {
        logger.error("Prefetch failed: {error}", { error });
      }).finally(() => {
        request.publish();
        this.#running.delete(work);
      });
      this.#running.add(work);
      await request.published.finally(() => {
        cancelDeadline();
        options.signal?.removeEventListener("abort", onAbort);
      });
    }
    const result = await request.published;
    this.#counters.l1Objects += result.l1Objects;
    this.#counters.l2Objects += result.pins.length - result.l1Objects;
    return result;
  }

  /** Resolves when nothing moves any more. */
  async idle(): Promise<void> {
    await Promise.all(this.#running);
  }

  /** Counters now. */
  reportStatus(): PrefetchStatus {
    return { ...this.#counters, inFlightRequests: this.#running.size };
  }

  async #load(request: Request): Promise<void> {
    const { adapters } = this.#options;
    const missing = request.missing();
    const keys = missing.map((index) => request.key(index));
    // A chain may be searched only by an adapter that must hold all of it.
    const prefix = adapters.length === 1;
    const found = await Promise.all(
      adapters.map((adapter) => adapter.lookup(keys, { prefix, signal: request.signal })),
    );
    const plans = adapters.map((): number[] => []);
    let end = request.isPublished ? 0 : request.keys.length;
    for (const [position, index] of missing.entries()) {
      const chosen = found.findIndex((bits) => bits.test(position));
      if (chosen < 0) end = Math.min(end, index);
      for (const [a, bits] of found.entries()) {
        if (!bits.test(position)) continue;
        if (a === chosen && index < end) plans[a]?.push(index);
        else adapters[a]?.unlock([request.key(index)]);
      }
    }
    request.limit(end);
    await Promise.all(
      adapters.map((adapter, a) => this.#loadPlan(request, adapter, plans[a] ?? [])),
    );
  }

  async #loadPlan(request: Request, adapter: AdapterGuard, plan: readonly number[]): Promise<void> {
    const { scratch } = this.#options;
    const batches: number[][] = [];
    const batchBytes = Math.min(BATCH_BYTES, scratch.capacityBytes / (2 * BATCHES_IN_FLIGHT));
    const sizes = plan.map((index) => request.bytes(index));
    for (let start = 0; start < plan.length;) {
      const fitting = countThatFit(sizes.slice(start), scratch.blockBytes, batchBytes);
      const end = start + Math.max(1, fitting);
      batches.push(plan.slice(start, end));
      start = end;
    }
    const loads = pooledMap(
      BATCHES_IN_FLIGHT,
      batches,
      (batch) =>
        this.#loadBatch(request, adapter, batch).catch((error: unknown) => {
          logger.error("Loading failed: {error}", { error });
          request.limit(batch[0] ?? 0);
        }),
    );
    for await (const _ of loads);
  }

  async #loadBatch(
    request: Request,
    adapter: AdapterGuard,
    batch: readonly number[],
  ): Promise<void> {
    const { scratch, l1 } = this.#options;
    using cleanup = new DisposableStack();
    // The lookup locked the whole batch; a load gives up the locks of what it loads.
    let locked = batch;
    cleanup.defer(() => adapter.unlock(locked.map((index) => request.key(index))));
    const sizes = batch.map((index) => request.bytes(index));
    const packing = packPieces(sizes, scratch.blockBytes);
    // Who waits here holds no device memory, and goes on only if its caller still waits.
    const blocks = await scratch.acquire(packing.usedBytes.length);
    let isAbandoned = false;
    cleanup.defer(() => isAbandoned ? scratch.discard(blocks) : scratch.release(blocks));
    const { staged, isOutOfMemory } = request.stage(batch);
    if (isOutOfMemory) this.#counters.outOfMemory++;
    if (staged.length === 0) return;
    const indices = staged.map(({ position }) => batch[position] ?? 0);
    cleanup.defer(() => request.unstage(indices));

    const objects = staged.map(({ position }, i): GuardedObject => ({
      key: request.key(indices[i] ?? 0),
      layout: request.layout,
      byteLength: sizes[position] ?? 0,
      parts: (packing.objects[position] ?? []).map(({ block, byteOffset, byteLength }) =>
        (blocks[block] as Uint8Array<ArrayBuffer>).subarray(byteOffset, byteOffset + byteLength)
      ),
    }));
    const loading = new Set(indices);
    locked = batch.filter((index) => !loading.has(index));
    const { done, settled } = await adapter.load(objects);
    // An adapter past its deadline may still write into the blocks: nobody else gets them.
    isAbandoned = settled !== undefined;
    for (const i of done.indices()) {
      const range = staged[i]?.range;
      const parts = objects[i]?.parts;
      const index = indices[i];
      if (range !== undefined && parts !== undefined && request.isStaged(index)) {
        l1.device.upload(range, payloadPieces(request.layout, parts));
      } else {
        done.clear(i);
      }
    }
    request.admit(done.gather(indices));
    const failed = done.invert().indices().at(0);
    if (failed !== undefined) request.limit(indices[failed] ?? 0);
  }
}

/** One call of `prefetch`: which objects are pinned so far, and whether the caller has its answer. */
class Request {
  readonly keys: readonly ObjectKey[];
  readonly layout: ObjectLayout;
  readonly published: Promise<PrefetchResult>;
  readonly #l1: L1Cache;
  readonly #writer: string;
  readonly #pins: (L1Pin | undefined)[];
  readonly #inL1: ReadonlySet<number>;
  readonly #answer = Promise.withResolvers<PrefetchResult>();
  readonly #answered = new AbortController();
  /** Nothing from this index on can be part of the prefix. */
  #end: number;

  constructor(keys: readonly ObjectKey[], layout: ObjectLayout, l1: L1Cache, id: number) {
    this.keys = keys;
    this.layout = layout;
    this.published = this.#answer.promise;
    this.#l1 = l1;
    this.#writer = `prefetch:${id}`;
    this.#end = keys.length;
    this.#pins = keys.map(() => undefined);
    for (const [index, reservation] of l1.reserveRead(keys).entries()) {
      this.#keep(index, reservation);
    }
    this.#inL1 = new Set(this.#pins.flatMap((pin, index) => pin === undefined ? [] : [index]));
  }

  get isComplete(): boolean {
    return this.#inL1.size === this.keys.length;
  }

  get isPublished(): boolean {
    return this.#answered.signal.aborted;
  }

  /** Aborts when the caller has its answer. */
  get signal(): AbortSignal {
    return this.#answered.signal;
  }

  key(index: number): ObjectKey {
    return this.keys[index] as ObjectKey;
  }

  /** Bytes of an object as an adapter has it. */
  bytes(index: number): number {
    return sealedBytes(this.key(index), this.layout);
  }

  /** Indices that are not in L1. */
  missing(): number[] {
    return [...this.keys.keys()].filter((index) => !this.#inL1.has(index));
  }

  /** Gives up everything from `end` on. */
  limit(end: number): void {
    if (this.isPublished || end >= this.#end) return;
    this.#end = end;
    this.#release(end);
  }

  /**
   * Reserves room for objects that can still be part of the prefix; pins those that came into L1
   * meanwhile.
   */
  stage(
    batch: readonly number[],
  ): { staged: { position: number; range: MemoryRange }[]; isOutOfMemory: boolean } {
    const staged: { position: number; range: MemoryRange }[] = [];
    for (const [position, index] of batch.entries()) {
      if (this.isPublished || index >= this.#end) break;
      const reservation = this.#reserve(index);
      if (reservation?.status === "success") {
        staged.push({ position, range: reservation.range });
      } else if (reservation?.status !== "key-not-writable" || !this.#pin(index)) {
        this.limit(index);
        return { staged, isOutOfMemory: reservation?.status === "out-of-memory" };
      }
    }
    return { staged, isOutOfMemory: false };
  }

  /** Whether the room of a staged object is still its own. */
  isStaged(index: number | undefined): boolean {
    return index !== undefined &&
      this.#l1.isReserved(this.key(index), { writer: this.#writer });
  }

  /** Makes staged objects resident, pinned if the caller still waits for them. */
  admit(indices: readonly number[]): void {
    const keys = indices.map((index) => this.key(index));
    const reservations = this.#l1.finishWriteAndReserveRead(keys, { writer: this.#writer });
    for (const [i, reservation] of reservations.entries()) {
      this.#keep(indices[i] ?? 0, reservation);
    }
  }

  /** Gives up what is still staged. */
  unstage(indices: readonly number[]): void {
    this.#l1.finishWriteAndDelete(indices.map((index) => this.key(index)), {
      writer: this.#writer,
    });
  }

  /** Answers the caller, once: with the pinned prefix, or with a reason why not. */
  publish(reason?: unknown): void {
    if (this.isPublished) return;
    const gap = this.#pins.indexOf(undefined);
    const length = reason === undefined ? gap < 0 ? this.#pins.length : gap : 0;
    this.#release(length);
    this.#answered.abort();
    if (reason !== undefined) return this.#answer.reject(reason);
    const pins = this.#pins.slice(0, length) as L1Pin[];
    this.#l1.touch(pins.map(({ key }) => key));
    const l1Objects = pins.filter((_, index) => this.#inL1.has(index)).length;
    this.#answer.resolve({ pins, l1Objects });
  }

  /** Reserves room for an object; if there is none, pins behind it are given up for it. */
  #reserve(index: number): WriteReservation | undefined {
    for (;;) {
      const [reservation] = this.#l1.reserveWrite([this.key(index)], this.layout, {
        writer: this.#writer,
      });
      const lastPinned = this.#pins.findLastIndex((pin) => pin !== undefined);
      if (reservation?.status !== "out-of-memory" || lastPinned < index) return reservation;
      this.limit(lastPinned);
    }
  }

  #pin(index: number): boolean {
    const [reservation] = this.#l1.reserveRead([this.key(index)]);
    return reservation !== undefined && this.#keep(index, reservation);
  }

  /** Keeps a pin if it can be part of the prefix. */
  #keep(index: number, reservation: ReadReservation): boolean {
    if (reservation.status !== "success") return false;
    const { pin } = reservation;
    const isWanted = !this.isPublished && index < this.#end &&
      isSameLayout(pin.layout, this.layout);
    if (isWanted) this.#pins[index] = pin;
    else this.#l1.finishRead([pin]);
    return isWanted;
  }

  #release(from: number): void {
    this.#l1.finishRead(this.#pins.splice(from).filter((pin) => pin !== undefined));
  }
}

function isSameLayout(a: ObjectLayout, b: ObjectLayout): boolean {
  return a === b ||
    (a.byteLength === b.byteLength && a.fingerprint.toHex() === b.fingerprint.toHex());
}
