import { getLogger } from "@logtape/logtape";
import { Listeners } from "../base/listeners.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { L1Cache } from "../l1/l1_cache.ts";
import type { StagingPool } from "../memory/staging_pool.ts";
import type { Clock } from "../base/clock.ts";
import type { AdapterSet } from "../l2/adapter_set.ts";
import type { ForgetBarrier } from "../lifecycle/forget_barrier.ts";
import type { KeyGroup } from "./key_rows.ts";
import { type LoadOutcome, ObjectLoader } from "./object_loader.ts";
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

/** An object that a request is loading: callbacks of the requests that wait for it. */
type InFlightLoad = ((outcome: LoadOutcome) => void)[];

const logger = getLogger(["kvtier", "prefetch"]);

/**
 * Loads the longest available prefix of a chain of objects into L1 and leases it. Each object is
 * loaded once, however many requests want it (single-flight). If several adapters have an object,
 * the one with the lowest expected completion time loads it; if that fails, the next one does.
 */
export class PrefetchController {
  readonly #options: PrefetchControllerOptions;
  readonly #inFlight = new Map<string, InFlightLoad>();
  readonly #loader: ObjectLoader;
  readonly #listeners = new Listeners<PrefetchListener>((error) =>
    logger.error("A listener of prefetches failed: {error}", { error })
  );
  /** Work in flight and the request that it belongs to. */
  readonly #running = new Map<Promise<void>, PrefetchRequest | undefined>();
  readonly #queue = new Set<QueuedRequest>();
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
    const isResident = groups.every(({ keys }) => keys.every((key) => l1.has(key)));
    if (isResident || (adapters.all.length === 0 && !this.#isFilling(groups))) {
      return this.#answerNow(call);
    }
    if (this.#active >= ACTIVE_REQUESTS) return this.#enqueue(call);
    this.#active++;
    return this.#serve(call);
  }

  /** Whether any of the objects is filling: it may become resident soon. */
  #isFilling(groups: readonly KeyGroup[]): boolean {
    const { l1 } = this.#options;
    if (l1.filled() === undefined) return false;
    return groups.some(({ keys }) => keys.some((key) => l1.whenFilled(key) !== undefined));
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
    return new PrefetchRequest({ id, groups, l1, retains, isLeasing });
  }

  /** Answers from L1 alone. */
  async #answerNow(call: PrefetchCall): Promise<PrefetchResult> {
    const request = this.#open(call);
    request.publish();
    return this.#count(call, await request.published);
  }

  /** Serves an active request, and starts the next one when it is answered. */
  async #serve(call: PrefetchCall): Promise<PrefetchResult> {
    const { deadlineMs, signal, startedAt } = call;
    const { clock } = this.#options;
    const request = this.#open(call);
    let isAtDeadline = false;
    const onDeadline = (): void => {
      isAtDeadline = !request.isPublished;
      request.publish();
    };
    const onAbort = (): void => request.publish(signal?.reason);
    const cancelDeadline = deadlineMs === undefined
      ? undefined
      : clock.schedule(onDeadline, startedAt + deadlineMs - clock.now());
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#track(this.#load(request));
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
      this.#active++;
      this.#dequeue(request);
      request.resolve(this.#serve(request.call));
    }
  }

  #count({ groups }: PrefetchCall, result: PrefetchResult): PrefetchResult {
    const served = result.leases.reduce((sum, { length }) => sum + length, 0);
    this.#counters.l1Objects += result.l1Objects;
    this.#counters.l2Objects += served - result.l1Objects;
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

  /** Loads missing objects of the prefix, and answers the request when no more can be loaded. */
  async #load(request: PrefetchRequest): Promise<void> {
    using _answer = { [Symbol.dispose]: () => request.publish() };
    const { l1, barrier } = this.#options;
    const absent = new Set<number>();
    const mayExist = (slot: number): boolean => !absent.has(slot);
    while (!request.isPublished && request.plan(mayExist).slots.length > 0) {
      const own = new Map<number, InFlightLoad>();
      const followed = new Set<number>();
      let outstanding = 0;
      const allSettled = Promise.withResolvers<void>();
      const follow = (slot: number): (outcome: LoadOutcome) => void => {
        followed.add(slot);
        outstanding++;
        return (outcome) => {
          if (outcome === "absent") absent.add(slot);
          if (outcome === "loaded") request.lease(slot);
          if (outcome === "no-room") request.endBefore(slot);
          if (--outstanding === 0) allSettled.resolve();
        };
      };
      for (const slot of request.missing().filter(mayExist)) {
        const key = request.key(slot);
        const load = this.#inFlight.get(key.id);
        if (l1.has(key) && request.lease(slot)) continue;
        const filled = l1.whenFilled(key);
        if (load !== undefined) {
          this.#counters.sharedLoads++;
          load.push(follow(slot));
        } else if (filled !== undefined) {
          const settle = follow(slot);
          filled.then(() => {
            request.leaseWritten(slot);
            settle("abandoned");
          });
        } else if (barrier.blocks(key)) absent.add(slot);
        else {
          const load: InFlightLoad = [];
          own.set(slot, load);
          this.#inFlight.set(key.id, load);
        }
      }
      if (own.size > 0) {
        // Objects that other requests abandoned still count here; otherwise two requests that wait
        // for each other could both give up.
        const isInFlight = (slot: number): boolean => followed.has(slot) && mayExist(slot);
        for (const slot of await this.#loadOwn(request, own, isInFlight)) absent.add(slot);
      }
      if (outstanding > 0 && request.plan(mayExist).slots.length > 0) {
        await Promise.race([allSettled.promise, request.published.catch(() => {})]);
      }
    }
  }

  /**
   * Loads objects, passing the outcome of each to the requests that wait for it.
   *
   * @returns The objects that must not be tried again.
   */
  async #loadOwn(
    request: PrefetchRequest,
    own: Map<number, InFlightLoad>,
    isInFlight: (slot: number) => boolean,
  ): Promise<Iterable<number>> {
    const onOutcome = (slot: number, outcome: LoadOutcome): void => {
      const load = own.get(slot);
      if (load === undefined) return;
      own.delete(slot);
      this.#inFlight.delete(request.key(slot).id);
      for (const waiter of load) waiter(outcome);
    };
    return await this.#loader.load(request, [...own.keys()], { isInFlight, onOutcome });
  }
}
