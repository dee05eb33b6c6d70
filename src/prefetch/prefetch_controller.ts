import { getLogger } from "@logtape/logtape";
import { Listeners } from "../base/listeners.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { L1Cache } from "../l1/l1_cache.ts";
import type { StagingPool } from "../memory/staging_pool.ts";
import type { Clock } from "../base/clock.ts";
import type { AdapterSet } from "../l2/adapter_set.ts";
import type { ForgetBarrier } from "../lifecycle/forget_barrier.ts";
import type { ChunkTable } from "./chunk_table.ts";
import type { KeyGroup } from "./key_group.ts";
import { MISS_REASONS, type MissReason } from "./miss_reason.ts";
import { ObjectLoader } from "./object_loader.ts";
import { plan } from "./plan.ts";
import type { PrefetchPolicy } from "./prefetch_policy.ts";
import { PrefetchRequest, type PrefetchResult } from "./prefetch_request.ts";

/** Maximum number of active requests; others are queued. */
const ACTIVE_REQUESTS = 64;

/** Options of {@linkcode PrefetchController}. */
export interface PrefetchControllerOptions {
  /** Cache that objects are loaded into. */
  readonly l1: L1Cache;
  readonly adapters: AdapterSet;
  /** Host memory that adapters load into. Its capacity limits the bytes in flight. */
  readonly scratch: StagingPool<Uint8Array<ArrayBuffer>>;
  /** Policy that decides whether loaded objects stay in L1. */
  readonly policy: PrefetchPolicy;
  /** Clock for deadlines and hedging. */
  readonly clock: Clock;
  /** Blocks objects that are being forgotten: they must not be loaded. */
  readonly barrier: Pick<ForgetBarrier, "blocks">;
  /** Called with the result of each request. */
  readonly onServed?: (groups: readonly KeyGroup[], result: PrefetchResult) => void;
}

/** Options of a match. */
export interface PrefetchOptions {
  /**
   * Time in milliseconds after which the call returns the prefix available so far; if left out,
   * only the deadlines of the adapters apply.
   */
  readonly deadlineMs?: number;
  /** Aborts the call, which then rejects with the reason of the signal. */
  readonly signal?: AbortSignal;
}

/** Status and counters of a {@linkcode PrefetchController}. */
export interface PrefetchStatus {
  /** Name of the policy. */
  readonly policy: string;
  /** Requests received. */
  readonly requests: number;
  /** Requests in the queue. */
  readonly queuedRequests: number;
  /** Requests in progress that have not been answered. */
  readonly activeRequests: number;
  /** Answered requests that still have loads in flight. */
  readonly drainingRequests: number;
  /** Requests answered at their deadline. */
  readonly deadlines: number;
  /** Objects requested. */
  readonly requestedObjects: number;
  /** Objects served from L1. */
  readonly l1Objects: number;
  /** Objects served from an adapter. */
  readonly l2Objects: number;
  /** Objects for which a request waited for an in-flight load of another request. */
  readonly sharedLoads: number;
  /** Requests that did not get the whole prefix, by the reason of the first missing chunk. */
  readonly misses: Readonly<Record<MissReason, number>>;
  /** Requests shortened because device memory was full. */
  readonly outOfMemory: number;
  /** Bytes of host memory in use by loads. */
  readonly loadBytesInUse: number;
}

/** Callbacks of a {@linkcode PrefetchController}. */
export interface PrefetchListener {
  /** A request was answered at its deadline. */
  deadline?(details: { objects: number; servedObjects: number; deadlineMs: number }): void;
}

/** One call of `prefetch` or `warm`. */
interface PrefetchCall extends PrefetchOptions {
  readonly id: number;
  readonly groups: readonly KeyGroup[];
  readonly isLeasing: boolean;
  readonly startedAt: number;
}

/** A queued request. There may be very many. */
interface QueuedRequest {
  readonly call: PrefetchCall;
  readonly resolve: (result: Promise<PrefetchResult>) => void;
  /** Cancels the deadline and stops listening to the signal. */
  cancelWait: () => void;
}

/** A request that waits for an object that another one is to load. */
interface SharedLoad {
  readonly request: PrefetchRequest;
  readonly slot: number;
}

const logger = getLogger(["kvtier", "prefetch"]);

/**
 * Loads the longest available prefix of a chain of objects into L1 and leases it. Each object is
 * loaded once, however many requests want it (single-flight). If several adapters have an object,
 * the one with the lowest expected completion time loads it; if that fails, the next one does.
 */
export class PrefetchController {
  readonly #options: PrefetchControllerOptions;
  /** For each object that a request is to load, the requests that wait for it. */
  readonly #inFlight = new Map<string, SharedLoad[]>();
  readonly #loader: ObjectLoader;
  readonly #listeners = new Listeners<PrefetchListener>((error) =>
    logger.error("A listener of prefetches failed: {error}", { error })
  );
  /** Work in flight and the request that it belongs to. */
  readonly #running = new Map<Promise<void>, PrefetchRequest | undefined>();
  readonly #queue = new Set<QueuedRequest>();
  readonly #misses = Object.fromEntries(MISS_REASONS.map((reason) => [reason, 0])) as Record<
    MissReason,
    number
  >;
  #active = 0;
  readonly #counters = {
    requests: 0,
    deadlines: 0,
    requestedObjects: 0,
    l1Objects: 0,
    l2Objects: 0,
    sharedLoads: 0,
    outOfMemory: 0,
  };

  /** Creates a controller that loads through an {@linkcode ObjectLoader}. */
  constructor(options: PrefetchControllerOptions) {
    this.#options = options;
    this.#loader = new ObjectLoader({
      ...options,
      onOutOfMemory: () => this.#counters.outOfMemory++,
      track: (work, request) => this.#track(work, request),
    });
  }

  addListener(listener: PrefetchListener): void {
    this.#listeners.add(listener);
  }

  /**
   * Leases the longest prefix available in L1 and the adapters.
   *
   * @param groups Keys of one chain: one entry for each group of layers, all of the same length.
   */
  prefetch(groups: readonly KeyGroup[], options: PrefetchOptions = {}): Promise<PrefetchResult> {
    return this.#run(groups, options, true);
  }

  /** Loads the longest available prefix into L1 and keeps it there, without leases. */
  warm(groups: readonly KeyGroup[], options: PrefetchOptions = {}): Promise<PrefetchResult> {
    return this.#run(groups, options, false);
  }

  /** Resolves when no load is in flight. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running.keys());
  }

  reportStatus(): PrefetchStatus {
    const answered = this.#running.values().filter((request) => request?.isPublished);
    return {
      policy: this.#options.policy.name,
      ...this.#counters,
      misses: { ...this.#misses },
      queuedRequests: this.#queue.size,
      activeRequests: this.#active,
      drainingRequests: new Set(answered).size,
      loadBytesInUse: this.#options.scratch.lentBytes,
    };
  }

  #run(
    groups: readonly KeyGroup[],
    options: PrefetchOptions,
    isLeasing: boolean,
  ): Promise<PrefetchResult> {
    if (options.signal?.aborted) return Promise.reject(options.signal.reason);
    const { l1, clock, adapters } = this.#options;
    const id = ++this.#counters.requests;
    this.#counters.requestedObjects += groups.reduce((sum, { keys }) => sum + keys.length, 0);
    const call: PrefetchCall = { ...options, id, groups, isLeasing, startedAt: clock.now() };
    const isQueued = this.#active >= ACTIVE_REQUESTS && adapters.all.length > 0 &&
      !groups.every(({ keys }) => keys.every((key) => l1.has(key)));
    return isQueued ? this.#enqueue(call) : this.#serve(call);
  }

  /** Queues a request. At its deadline it is answered from L1. */
  #enqueue(call: PrefetchCall): Promise<PrefetchResult> {
    return new Promise((resolve) => {
      const { deadlineMs, signal } = call;
      const request: QueuedRequest = { call, resolve, cancelWait: () => {} };
      this.#queue.add(request);
      if (deadlineMs === undefined && signal === undefined) return;
      const onDeadline = (): void => {
        this.#dequeue(request);
        resolve(this.#answerNow(call).then((result) => this.#notifyDeadline(call, result)));
      };
      const onAbort = (): void => {
        this.#dequeue(request);
        resolve(Promise.reject(signal?.reason));
      };
      const cancel = deadlineMs === undefined
        ? undefined
        : this.#options.clock.schedule(onDeadline, deadlineMs);
      signal?.addEventListener("abort", onAbort, { once: true });
      request.cancelWait = () => {
        cancel?.();
        signal?.removeEventListener("abort", onAbort);
      };
    });
  }

  #dequeue(request: QueuedRequest): void {
    this.#queue.delete(request);
    request.cancelWait();
  }

  #open({ id, groups, isLeasing }: PrefetchCall): PrefetchRequest {
    const { l1, policy } = this.#options;
    const retains = (key: ObjectKey): boolean => !isLeasing || policy.retains(key);
    const onSettled = this.#onSettled.bind(this);
    return new PrefetchRequest({ id, groups, l1, retains, isLeasing, onSettled });
  }

  /** Answers a queued request from L1 alone, at its deadline. */
  async #answerNow(call: PrefetchCall): Promise<PrefetchResult> {
    const request = this.#open(call);
    request.publish(true);
    return this.#count(call, await request.published);
  }

  /** Serves a request, and starts the next one when it is answered. */
  async #serve(call: PrefetchCall): Promise<PrefetchResult> {
    const { deadlineMs, signal, startedAt } = call;
    const { clock } = this.#options;
    const request = this.#open(call);
    const own = this.#divide(request);
    if (needsNothing(request.table)) {
      request.table.abandon(own);
      request.publish();
      return this.#count(call, await request.published);
    }
    this.#active++;
    let isAtDeadline = false;
    const onDeadline = (): void => {
      isAtDeadline = !request.isPublished;
      request.publish(true);
    };
    const onAbort = (): void => request.reject(signal?.reason);
    const cancelDeadline = deadlineMs === undefined
      ? undefined
      : clock.schedule(onDeadline, startedAt + deadlineMs - clock.now());
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#track(this.#load(request, own));
    try {
      const result = this.#count(call, await request.published);
      return isAtDeadline ? this.#notifyDeadline(call, result) : result;
    } finally {
      cancelDeadline?.();
      signal?.removeEventListener("abort", onAbort);
      this.#endTurn();
    }
  }

  #endTurn(): void {
    this.#active--;
    for (const request of this.#queue) {
      if (this.#active >= ACTIVE_REQUESTS) return;
      this.#dequeue(request);
      request.resolve(this.#serve(request.call));
    }
  }

  #count({ groups }: PrefetchCall, result: PrefetchResult): PrefetchResult {
    const served = result.leases.reduce((sum, { length }) => sum + length, 0);
    this.#counters.l1Objects += result.l1Objects;
    this.#counters.l2Objects += served - result.l1Objects;
    if (result.miss !== undefined) this.#misses[result.miss.reason]++;
    this.#options.onServed?.(groups, result);
    return result;
  }

  #notifyDeadline(
    { groups, deadlineMs = 0 }: PrefetchCall,
    result: PrefetchResult,
  ): PrefetchResult {
    this.#counters.deadlines++;
    const objects = groups.reduce((sum, { keys }) => sum + keys.length, 0);
    const servedObjects = result.leases.reduce((sum, { length }) => sum + length, 0);
    this.#listeners.tell((listener) => {
      listener.deadline?.({ objects, servedObjects, deadlineMs });
    });
    return result;
  }

  #track(work: Promise<void>, request?: PrefetchRequest): void {
    const running = work.catch((error: unknown) => {
      logger.error("Prefetch failed: {error}", { error });
    }).finally(() => this.#running.delete(running));
    this.#running.set(running, request);
  }

  /**
   * Loads missing objects of the prefix, and answers the request when no more can be loaded.
   *
   * @param own Slots of the objects that this request is to load first.
   */
  async #load(request: PrefetchRequest, own: readonly number[]): Promise<void> {
    using _answer = { [Symbol.dispose]: () => request.publish() };
    const { table } = request;
    for (let slots = own;; slots = this.#divide(request)) {
      if (slots.length > 0) await this.#loader.load(request, slots);
      if (request.isPublished || needsNothing(table)) return;
      await Promise.race([table.whenQuiet(), request.published.catch(() => {})]);
      if (request.isPublished || needsNothing(table)) return;
      request.leaseResident();
    }
  }

  /**
   * Decides what is done about each object that is wanted.
   *
   * @returns The slots of those that this request is to load.
   */
  #divide(request: PrefetchRequest): number[] {
    const { l1, adapters, barrier } = this.#options;
    const { table } = request;
    const own: number[] = [];
    for (let slot = 0; slot < table.size; slot++) {
      if (!table.hasWindows && !table.isPossible(slot)) break;
      if (table.state(slot) !== "wanted") continue;
      const key = table.key(slot);
      const waiters = this.#inFlight.get(key.id);
      const filled = l1.whenFilled(key);
      if (waiters !== undefined) {
        this.#counters.sharedLoads++;
        table.transition(slot, "shared");
        waiters.push({ request, slot });
      } else if (filled !== undefined) {
        table.transition(slot, "filling");
        filled.then(() => {
          if (table.state(slot) !== "filling") return;
          if (!request.leaseWritten(slot)) table.transition(slot, "wanted");
        });
      } else if (barrier.blocks(key)) table.transition(slot, "blocked");
      else if (adapters.serving.length === 0) table.miss(slot, "absent");
      else {
        table.transition(slot, "asked");
        this.#inFlight.set(key.id, []);
        own.push(slot);
      }
    }
    return own;
  }

  /** Passes what became of an object to the requests that wait for it. */
  #onSettled(loading: PrefetchRequest, slot: number): void {
    const { table } = loading;
    const { id } = table.key(slot);
    const waiters = this.#inFlight.get(id) ?? [];
    this.#inFlight.delete(id);
    const reason = table.reason(slot);
    for (const { request, slot: waiting } of waiters) {
      if (request.table.state(waiting) !== "shared") continue;
      if (table.state(slot) === "resident" && request.leaseLoaded(waiting, loading, slot)) {
        continue;
      }
      const isFull = reason === "no-room" || reason === "lost";
      if (reason === undefined || isFull) request.table.transition(waiting, "wanted");
      else request.table.miss(waiting, reason);
      if (isFull) request.endBefore(waiting);
    }
  }
}

/** Whether no object that is missing can make the prefix longer. */
function needsNothing(table: ChunkTable): boolean {
  return plan(table, (slot) => table.isPossible(slot)).slots.length === 0;
}
