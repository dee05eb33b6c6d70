import { pooledMap } from "@std/async";
import { getLogger } from "@logtape/logtape";
import type { ObjectKey } from "../keys/object_key.ts";
import type { L1Cache } from "../l1/l1_cache.ts";
import type { AdapterGuard, GuardedObject } from "../l2/adapter_guard.ts";
import { payloadPieces } from "../l2/object_trailer.ts";
import { countThatFit, packPieces, type StagingPool } from "../memory/staging_pool.ts";
import type { Clock } from "../runtime/clock.ts";
import type { AdapterSet } from "./adapter_set.ts";
import { ByteBudget } from "./byte_budget.ts";
import { FoundObjects, type Source } from "./found_objects.ts";
import type { PrefetchRequest, StagedBatch } from "./prefetch_request.ts";

/** Batches of one request that one adapter loads at a time: one is read, one is verified. */
const BATCHES_IN_FLIGHT = 2;
/** Larger batches only touch more host memory, whose first use costs more than reading into it. */
const BATCH_BYTES = 8 * 2 ** 20;
/** Once an adapter has found something, the others may take this many times as long to answer. */
const GRACE_FACTOR = 4;
const LEAST_GRACE_MS = 20;
/** An adapter that takes this many times as long as expected is passed over for another one. */
const HEDGE_FACTOR = 8;
const LEAST_HEDGE_MS = 100;

/** Why a search ended: made once, because an error with its stack costs more than a lookup. */
const OVER = new DOMException("The request has its answer", "AbortError");

/** How an {@linkcode ObjectLoader} is set up. */
export interface ObjectLoaderOptions {
  /** Where objects go. */
  readonly l1: L1Cache;
  /** Where they come from. */
  readonly adapters: AdapterSet;
  /** Host memory that adapters load into. */
  readonly scratch: StagingPool<Uint8Array<ArrayBuffer>>;
  /** Source of time. */
  readonly clock: Clock;
  /** Objects that must not be loaded now. */
  readonly isBarred: (key: ObjectKey) => boolean;
  /** Told when L1 had no room. */
  readonly onOutOfMemory: () => void;
  /** Keeps an eye on work that outlives the call which began it. */
  readonly track: (work: Promise<void>, request: PrefetchRequest) => void;
}

/** What became of an object that was to be loaded. */
export type Landing =
  /** It is in L1, at this moment. */
  | "resident"
  /** No adapter has it, or none could load it. */
  | "absent"
  /** There was no room for it. */
  | "full"
  /** Nobody tries any more: it was not needed, or the caller has left. */
  | "unknown";

/** Options of {@linkcode ObjectLoader.load}. */
export interface LoadOptions {
  /** Whether an object is to come from somebody else. */
  readonly isComing: (cell: number) => boolean;
  /** Told of each object as soon as its fate is known; what it is told later is no news. */
  readonly landed: (cell: number, landing: Landing) => void;
}

/** One call of {@linkcode ObjectLoader.load}. */
interface Load extends LoadOptions {
  readonly request: PrefetchRequest;
  readonly found: FoundObjects;
  /** The last attempt at an object that is under way; its signal aborts when it is passed over. */
  readonly moving: Map<number, AbortSignal>;
  /** Whether no adapter is passed over. */
  readonly isPatient: boolean;
  /** Objects that nobody was allowed to load when it was their turn. */
  readonly barred: Set<number>;
  /** Objects that an engine had written when it was their turn, and the device not confirmed. */
  readonly filling: Set<number>;
  /** Aborts when nobody waits any more, or nothing is left to do. */
  readonly over: AbortSignal;
}

/** One adapter's attempt to load a batch. */
interface Attempt {
  /** Aborts when others are asked instead. */
  readonly passedOver: AbortController;
  /** Whether it waits for what others hold: that is not its adapter's fault. */
  isHeldUp: boolean;
}

const logger = getLogger(["kvtier", "prefetch"]);

/** Brings objects of requests from the adapters into L1: lookup, plan, load. */
export class ObjectLoader {
  readonly #options: ObjectLoaderOptions;
  readonly #budgets = new Map<AdapterGuard, ByteBudget>();
  /** Adapters that were passed over and have not finished yet what they were asked for. */
  readonly #laggards = new Map<AdapterGuard, number>();

  /** Starts nothing yet. */
  constructor(options: ObjectLoaderOptions) {
    this.#options = options;
    options.adapters.onChange(({ all }) => {
      for (const guard of this.#budgets.keys()) {
        if (!all.includes(guard)) this.#budgets.delete(guard);
      }
    });
  }

  /**
   * Looks objects up in all adapters and loads those that the prefix needs. When the caller has its
   * answer, only what is being loaded is brought to its end.
   *
   * @param cells The objects, in order.
   * @returns The objects that are not to be tried again.
   */
  async load(
    request: PrefetchRequest,
    cells: readonly number[],
    options: LoadOptions,
  ): Promise<Iterable<number>> {
    const { isComing, landed } = options;
    const absent = new Set<number>();
    const barred = new Set<number>();
    const filling = new Set<number>();
    const marks = { ...options, barred, filling };
    try {
      const found = await this.#search(request, cells, { ...marks, isPatient: false });
      for (const cell of cells) if (found.isAbsent(cell)) absent.add(cell);
      // For what was passed over, and nobody else could load, it is worth to wait after all.
      const isLeft = (cell: number): boolean =>
        found.isLeft(cell) && !filling.has(cell) && !this.#options.isBarred(request.key(cell));
      const plan = request.plan((cell) => isComing(cell) || isLeft(cell));
      const left = plan.cells.filter(isLeft);
      if (left.length === 0 || request.isPublished) return absent;
      const again = await this.#search(request, left, { ...marks, isPatient: true });
      const gone = left.filter((cell) => again.isAbsent(cell));
      for (const cell of gone) absent.add(cell);
      // Without those that turned out to be nowhere, the others may serve a shorter prefix. If there
      // are none, this request gives them up, which says nothing to those who wait for them.
      return gone.length > 0 ? absent : absent.union(new Set(left).difference(filling));
    } finally {
      // Who waits for an object may have come when it was barred no more.
      const isAbsent = (cell: number): boolean => absent.has(cell) && !barred.has(cell);
      for (const cell of cells) landed(cell, isAbsent(cell) ? "absent" : "unknown");
    }
  }

  async #search(
    request: PrefetchRequest,
    cells: readonly number[],
    options: LoadOptions & Pick<Load, "isPatient" | "barred" | "filling">,
  ): Promise<FoundObjects> {
    const found = new FoundObjects(request, cells, this.#options.adapters.serving);
    const over = new AbortController();
    const load: Load = { ...options, request, found, moving: new Map(), over: over.signal };
    const cancel = request.onPublished(() => {
      over.abort(OVER);
      found.unlockAll();
      for (const cell of cells) {
        if (load.moving.get(cell)?.aborted !== false) load.landed(cell, "unknown");
      }
    });
    try {
      await this.#loadAll(load);
      return found;
    } finally {
      cancel();
      over.abort(OVER);
      found.unlockAll();
    }
  }

  /** Loads what is known to be there, again and again, until the rest is known to be nowhere. */
  async #loadAll(load: Load): Promise<void> {
    const { request, found, over, isComing } = load;
    const isReady = (source: Source): boolean => !this.#isLate(source);
    const canHave = (cell: number): boolean => isComing(cell) || found.isFound(cell);
    const canHaveSoon = (cell: number): boolean => isComing(cell) || found.isFound(cell, isReady);
    const lookups = this.#lookUp(load);
    for (;;) {
      let plan = request.plan(canHave);
      while (!over.aborted && !found.isComplete) {
        if (request.plan(canHaveSoon).length === request.end) break;
        if (lookups.isGraceOver && plan.cells.some((cell) => found.isFound(cell))) break;
        await lookups.news();
        plan = request.plan(canHave);
      }
      const wanted = plan.cells.filter((cell) => found.isFound(cell));
      if (over.aborted || wanted.length === 0) return;
      found.unlockBehind(plan.length);
      await this.#loadCells(load, wanted);
    }
  }

  /** Asks all adapters at once. */
  #lookUp({ found, over }: Load): { readonly isGraceOver: boolean; news(): Promise<void> } {
    const { clock } = this.#options;
    const startedAt = clock.now();
    const lookups = {
      isGraceOver: false,
      tell: (): void => {},
      news: () => new Promise<void>((resolve) => lookups.tell = resolve),
    };
    let cancelGrace: (() => void) | undefined;
    over.addEventListener("abort", () => {
      cancelGrace?.();
      lookups.tell();
    }, { once: true });
    const options = { prefix: found.isChain, signal: over };
    for (const source of found.sources) {
      source.adapter.lookup(found.keys, options).then((answer) => {
        if (over.aborted) return source.adapter.unlock(answer.gather(found.keys));
        found.answer(source, answer);
        if (cancelGrace === undefined && !found.isComplete && answer.popcount() > 0) {
          const graceMs = Math.max(LEAST_GRACE_MS, GRACE_FACTOR * (clock.now() - startedAt));
          cancelGrace = clock.schedule(() => {
            lookups.isGraceOver = true;
            lookups.tell();
          }, graceMs);
        }
        lookups.tell();
      });
    }
    return lookups;
  }

  /**
   * Loads each object from the adapter that is expected to be done first; one that lets others wait
   * comes last.
   */
  async #loadCells(load: Load, wanted: readonly number[]): Promise<void> {
    const { request, found } = load;
    const plans = found.sources.map((source) => ({ source, cells: [] as number[], bytes: 0 }));
    for (const cell of wanted) {
      const bytes = request.bytes(cell);
      let best: typeof plans[number] | undefined;
      let leastMs = Infinity;
      for (const plan of plans) {
        const { source } = plan;
        if (!found.has(source, cell)) continue;
        const ms = this.#isLate(source)
          ? Infinity
          : source.adapter.estimateLoadMs(plan.bytes + bytes);
        if (best === undefined || ms < leastMs) [best, leastMs] = [plan, ms];
      }
      if (best === undefined) continue;
      best.cells.push(cell);
      best.bytes += bytes;
    }
    await Promise.all(plans.map(({ source, cells }) => this.#loadFrom(load, source, cells)));
  }

  async #loadFrom(load: Load, source: Source, cells: readonly number[]): Promise<void> {
    const { scratch } = this.#options;
    const batchBytes = Math.min(BATCH_BYTES, scratch.capacityBytes / (2 * BATCHES_IN_FLIGHT));
    const sizes = cells.map((cell) => load.request.bytes(cell));
    const batches: (readonly number[])[] = [];
    for (let start = 0; start < cells.length;) {
      const fitting = countThatFit(sizes.slice(start), scratch.blockBytes, batchBytes);
      const end = start + Math.max(1, fitting);
      batches.push(cells.slice(start, end));
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
   * Loads one batch. Resolves when its objects are in L1, or will not be: if the adapter takes far
   * longer than expected and others have them too, those are asked instead.
   */
  async #loadBatch(load: Load, source: Source, batch: readonly number[]): Promise<void> {
    const { request, found } = load;
    const { adapter } = source;
    const isOther = (other: Source): boolean => other !== source && !this.#isLate(other);
    const isElsewhere = (): boolean =>
      !load.isPatient && batch.every((cell) => request.has(cell) || found.isFound(cell, isOther));
    if (this.#isLate(source) && isElsewhere()) return found.passOver(source, batch);

    const attempt: Attempt = { passedOver: new AbortController(), isHeldUp: false };
    const left = Promise.withResolvers<void>();
    const leave = (): void => {
      this.#callLate(adapter, work);
      left.resolve();
    };
    const bytes = batch.reduce((sum, cell) => sum + request.bytes(cell), 0);
    const hedgeMs = Math.max(LEAST_HEDGE_MS, HEDGE_FACTOR * adapter.estimateLoadMs(bytes));
    const hedge = (): void => {
      if (load.over.aborted) {
        // Nobody waits here, but others may, who can look elsewhere.
        if (found.sources.length > 1 && !attempt.isHeldUp) leave();
      } else if (!attempt.isHeldUp && isElsewhere()) {
        attempt.passedOver.abort(OVER);
        found.passOver(source, batch);
        leave();
      } else {
        cancelHedge = this.#options.clock.schedule(hedge, hedgeMs);
      }
    };
    let cancelHedge = this.#options.clock.schedule(hedge, hedgeMs);
    const work = this.#moveBatch(load, source, batch, attempt).catch((error: unknown) => {
      logger.error("Loading failed: {error}", { error });
      found.passOver(source, batch);
    });
    this.#options.track(work, request);
    await Promise.race([work, left.promise]);
    cancelHedge();
    if (!load.over.aborted) return;
    for (const cell of batch) load.landed(cell, "unknown");
  }

  #isLate({ adapter }: Source): boolean {
    return this.#laggards.has(adapter);
  }

  /** An adapter lets others wait, until some work of it has ended. */
  #callLate(adapter: AdapterGuard, work: Promise<void>): void {
    this.#laggards.set(adapter, (this.#laggards.get(adapter) ?? 0) + 1);
    work.then(() => {
      const count = (this.#laggards.get(adapter) ?? 0) - 1;
      if (count > 0) this.#laggards.set(adapter, count);
      else this.#laggards.delete(adapter);
    });
  }

  /** Loads a batch into L1; gives up its room when it is passed over. */
  async #moveBatch(
    load: Load,
    source: Source,
    batch: readonly number[],
    attempt: Attempt,
  ): Promise<void> {
    const { scratch, l1 } = this.#options;
    const { request, found } = load;
    const { adapter } = source;
    const passedOver = attempt.passedOver.signal;
    using cleanup = new DisposableStack();
    const packing = packPieces(batch.map((cell) => request.bytes(cell)), scratch.blockBytes);
    const bytes = packing.usedBytes.length * scratch.blockBytes;
    // An adapter that hangs keeps the buffers that it has, but never those of the others.
    const budget = this.#budgetOf(adapter);
    const isWanted = AbortSignal.any([load.over, passedOver]);
    if (!await budget.acquire(bytes, isWanted)) return;
    cleanup.defer(() => budget.release(bytes));
    // Who waits here holds no device memory, and goes on only if its caller still waits.
    attempt.isHeldUp = true;
    const blocks = await scratch.acquire(packing.usedBytes.length);
    attempt.isHeldUp = false;
    let isAbandoned = false;
    cleanup.defer(() => isAbandoned ? scratch.discard(blocks) : scratch.release(blocks));
    if (isWanted.aborted) return;

    const { cells, staged } = this.#stage(load, source, batch);
    if (cells.length === 0) return;
    const unstage = (): void => void l1.finishWriteAndDelete(staged);
    cleanup.defer(unstage);
    passedOver.addEventListener("abort", unstage, { once: true });
    for (const cell of cells) load.moving.set(cell, passedOver);
    cleanup.defer(() => {
      for (const cell of cells) {
        if (load.moving.get(cell) === passedOver) load.moving.delete(cell);
      }
    });

    const packed = new Map(batch.map((cell, i) => [cell, packing.objects[i] ?? []]));
    const objects = cells.map((cell): GuardedObject => ({
      key: request.key(cell),
      layout: request.layout(cell),
      byteLength: request.bytes(cell),
      parts: (packed.get(cell) ?? []).map(({ block, byteOffset, byteLength }) =>
        (blocks[block] as Uint8Array<ArrayBuffer>).subarray(byteOffset, byteOffset + byteLength)
      ),
    }));
    const { done, settled } = await adapter.load(objects);
    // An adapter past its deadline may still write into the blocks: nobody else gets them.
    isAbandoned = settled !== undefined;
    found.fail(source, done.invert().gather(cells));
    for (const i of done.indices()) {
      const room = staged[i];
      const object = objects[i];
      if (room !== undefined && object !== undefined && l1.isReserved(room)) {
        l1.device.upload(room.range, payloadPieces(object.layout.byteLength, object.parts));
      } else {
        done.clear(i);
      }
    }
    const resident = done.gather(cells);
    const admitted = request.admit(
      resident,
      done.gather(staged),
      (cell) => load.landed(cell, "resident"),
    );
    if (admitted !== undefined) await admitted;
    found.unlock(resident);
    found.narrow(cells);
  }

  /**
   * Reserves room for what is still to be loaded of a batch, whose locks the load then gives up.
   * What gets none is given up at once.
   */
  #stage(
    { request, found, barred, filling, landed }: Load,
    source: Source,
    batch: readonly number[],
  ): StagedBatch {
    const { l1, isBarred, onOutOfMemory } = this.#options;
    const giveUp = (cells: readonly number[]): void => {
      for (const cell of cells) {
        if (request.has(cell)) landed(cell, "resident");
        else if (l1.whenFilled(request.key(cell)) !== undefined) filling.add(cell);
        else if (request.chunkOf(cell) < request.end) found.lose(cell);
      }
      found.unlock(cells);
      found.narrow(cells);
    };
    const forbidden = batch.filter((cell) => isBarred(request.key(cell)));
    for (const cell of forbidden) barred.add(cell);
    giveUp(forbidden);
    const staged = request.stage(batch.filter((cell) => found.has(source, cell)));
    found.hand(source, staged.cells);
    const isStaged = new Set(staged.cells);
    const others = batch.filter((cell) => !isStaged.has(cell));
    giveUp(others);
    if (staged.isOutOfMemory) onOutOfMemory();
    for (const cell of staged.hasRoom ? [] : others) landed(cell, "full");
    return staged;
  }

  #budgetOf(adapter: AdapterGuard): ByteBudget {
    let budget = this.#budgets.get(adapter);
    if (budget === undefined) {
      const { scratch, adapters } = this.#options;
      budget = new ByteBudget(() => scratch.capacityBytes / Math.max(1, adapters.all.length));
      this.#budgets.set(adapter, budget);
    }
    return budget;
  }
}
