import { pooledMap } from "@std/async";
import { getLogger } from "@logtape/logtape";
import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import { countThatFit } from "../memory/staging_pool.ts";
import { type Attempt, BatchMover, type ObjectLoaderOptions, type Search } from "./batch_mover.ts";
import type { ChunkTable } from "./chunk_table.ts";
import type { LoadGate } from "./load_gate.ts";
import { Lookup, type Source } from "./lookup.ts";
import { plan } from "./plan.ts";
import type { PrefetchRequest } from "./prefetch_request.ts";

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

const logger = getLogger(["kvtier", "prefetch"]);

/** Loads objects of requests from the adapters into L1: lookup, plan, load. */
export class ObjectLoader {
  readonly #options: ObjectLoaderOptions;
  readonly #mover: BatchMover;
  /** Slow adapters, with the number of hedged loads that they have not finished. */
  readonly #slowAdapters = new Map<AdapterGuard, number>();
  #attempts = 0;

  constructor(options: ObjectLoaderOptions) {
    this.#options = options;
    this.#mover = new BatchMover(options);
  }

  /**
   * Looks objects up in all adapters and loads those that the prefix needs. Once the request is
   * answered, only loads in flight are completed.
   *
   * @param slots Slots of the objects, in order; their state is `asked`.
   */
  async load(request: PrefetchRequest, slots: readonly number[], gate?: LoadGate): Promise<void> {
    const { table } = request;
    try {
      const lookup = await this.#search({ request, slots, gate, waitsForSlow: false });
      // Objects whose load was hedged and that no other adapter could load are worth waiting for
      // after all.
      const isRetryable = (slot: number): boolean =>
        lookup.wasReleased(slot) && !this.#options.barrier.blocks(table.key(slot));
      const { slots: needed } = plan(table, (slot) => isExpected(table, slot) || isRetryable(slot));
      const retried = needed.filter(isRetryable);
      if (retried.length === 0 || request.isPublished) return;
      await this.#search({ request, slots: retried, gate, waitsForSlow: true });
      // Without the objects that turned out to be absent, the others may serve a shorter prefix. If
      // none is absent, this request gives up on all of them, which decides nothing for requests
      // that wait for them.
      if (retried.some((slot) => !table.isPossible(slot))) return;
      for (const slot of table.abandon(retried)) table.miss(slot, "failed");
    } finally {
      table.abandon(slots);
    }
  }

  /** Asks the adapters, and loads objects found so far until the rest is known to be absent. */
  async #search(
    { request, slots: asked, gate, waitsForSlow }:
      & Pick<Search, "request" | "gate" | "waitsForSlow">
      & { readonly slots: readonly number[] },
  ): Promise<Lookup> {
    const { table } = request;
    const controller = new AbortController();
    const over = controller.signal;
    const { adapters: { serving }, clock } = this.#options;
    const isWorthAsking = (adapter: AdapterGuard): boolean =>
      gate?.isWorthAsking(adapter) !== false;
    const options = { table, slots: asked, adapters: serving, isWorthAsking, clock, over };
    const lookup = new Lookup(options);
    const adapters = lookup.asked.map(({ adapter }) => adapter);
    const search: Search = { request, table, lookup, waitsForSlow, over, gate };
    using cleanup = new DisposableStack();
    const end = (): void => {
      controller.abort(ANSWERED);
      lookup.release(asked);
    };
    cleanup.defer(end);
    cleanup.defer(request.onPublished(() => {
      end();
      table.abandon(asked.filter((slot) => table.state(slot) !== "loading"));
    }));
    const isReady = ({ adapter }: Source): boolean => !this.isSlow(adapter);
    const canHave = (slot: number): boolean => isExpected(table, slot);
    const canHaveSoon = (slot: number): boolean =>
      canHave(slot) && (table.state(slot) !== "found" || lookup.isHeld(slot, isReady));
    const isFound = (slot: number): boolean => table.state(slot) === "found";
    gate?.startLookup();
    if (adapters.length === 0) gate?.endUnasked();
    lookup.ask();
    for (;;) {
      let { length, slots } = plan(table, canHave);
      while (!over.aborted && !lookup.isComplete) {
        if (plan(table, canHaveSoon).length === table.end) break;
        if (lookup.isGraceOver && slots.some(isFound)) break;
        if (lookup.isGivenUp) {
          gate?.endUnanswered();
          return lookup;
        }
        gate?.limitLookup(adapters, () => lookup.giveUp());
        await lookup.next();
        ({ length, slots } = plan(table, canHave));
      }
      const found = slots.filter(isFound);
      if (over.aborted || found.length === 0) return lookup;
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
    const { table, lookup, gate, over } = search;
    const shares = lookup.sources.map((source) => ({ source, slots: [] as number[], bytes: 0 }));
    for (const slot of found) {
      const bytes = table.bytes(slot);
      let best: typeof shares[number] | undefined;
      let leastMs = Infinity;
      for (const share of shares) {
        const { source } = share;
        if (!lookup.holds(source, slot)) continue;
        const ms = this.isSlow(source.adapter)
          ? Infinity
          : source.adapter.estimateLoadMs(share.bytes + bytes);
        if (best === undefined || ms < leastMs) [best, leastMs] = [share, ms];
      }
      if (best === undefined) continue;
      best.slots.push(slot);
      best.bytes += bytes;
    }
    for (const { source, slots } of shares) gate?.assign(source.adapter, slots);
    gate?.weigh();
    if (over.aborted) return;
    lookup.releaseFrom(table.end);
    await Promise.all(shares.map(async ({ source, slots }) => {
      const batches = this.#batchesOf(table, slots.filter((slot) => slot < table.size));
      const load = (batch: readonly number[]): Promise<void> =>
        this.#loadBatch(search, source, batch);
      for await (const _ of pooledMap(BATCHES_IN_FLIGHT, batches, load));
    }));
  }

  #batchesOf(table: ChunkTable, slots: readonly number[]): (readonly number[])[] {
    const { scratch } = this.#options;
    const batchBytes = Math.min(BATCH_BYTES, scratch.capacityBytes / (2 * BATCHES_IN_FLIGHT));
    const sizes = slots.map((slot) => table.bytes(slot));
    const batches: (readonly number[])[] = [];
    for (let start = 0; start < slots.length;) {
      const fitting = countThatFit(sizes.slice(start), scratch.blockBytes, batchBytes);
      const end = start + Math.max(1, fitting);
      batches.push(slots.slice(start, end));
      start = end;
    }
    return batches;
  }

  /**
   * Loads one batch. Resolves when its objects are in L1 or will not be. If the adapter takes far
   * longer than expected and others have the objects too, the load is hedged.
   */
  async #loadBatch(search: Search, source: Source, batch: readonly number[]): Promise<void> {
    const { request, table, lookup, over, gate } = search;
    const { adapter } = source;
    const isOther = (other: Source): boolean => other !== source && !this.isSlow(other.adapter);
    const isElsewhere = (): boolean =>
      !search.waitsForSlow &&
      batch.every((slot) => table.state(slot) === "resident" || lookup.isHeld(slot, isOther));
    if (this.isSlow(adapter) && isElsewhere()) return lookup.release(batch, [source]);

    const attempt: Attempt = {
      id: ++this.#attempts,
      hedged: new AbortController(),
      phase: "loading",
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
        if (lookup.sources.length > 1 && attempt.phase === "loading") giveUp();
      } else if (attempt.phase === "loading" && isElsewhere()) {
        attempt.hedged.abort(ANSWERED);
        lookup.release(batch, [source]);
        this.#mover.settle(search, attempt, batch);
        giveUp();
      } else {
        cancelHedge = this.#options.clock.schedule(hedge, hedgeMs);
      }
    };
    let cancelHedge = this.#options.clock.schedule(hedge, hedgeMs);
    const work = this.#mover.move(search, source, batch, attempt).catch((error: unknown) => {
      logger.error("Loading failed: {error}", { error });
      lookup.release(batch, [source]);
    });
    this.#options.track(work, request);
    const unwatch = request.onPublished(() => {
      if (gate?.isLate && attempt.phase === "loading") this.#markSlow(adapter, work);
    });
    await Promise.race([work, gaveUp.promise]);
    unwatch();
    cancelHedge();
    this.#mover.settle(search, attempt, batch);
    gate?.weigh();
    lookup.releaseFrom(table.end);
  }

  /**
   * Loads an object from each adapter into host memory alone, which measures the adapters.
   *
   * @returns Whether any adapter delivered it.
   */
  async probe(key: ObjectKey, layout: ObjectLayout): Promise<boolean> {
    const { adapters: { serving } } = this.#options;
    const probes = serving.map((adapter) => this.#mover.probe(adapter, key, layout));
    return (await Promise.all(probes)).includes(true);
  }

  /** Whether loads of an adapter are overdue. */
  isSlow(adapter: AdapterGuard): boolean {
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
}

/** Whether an object is or may become resident, as far as the adapters have answered. */
function isExpected(table: ChunkTable, slot: number): boolean {
  return table.isPossible(slot) && table.state(slot) !== "asked";
}
