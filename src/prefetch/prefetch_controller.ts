import { getLogger } from "@logtape/logtape";
import type { ObjectKey } from "../keys/object_key.ts";
import type { ChunkTable } from "./chunk_table.ts";
import type { KeyGroup } from "./key_group.ts";
import type { LoadDecision, LoadDecisionCounts } from "./load_decision.ts";
import { Explorer } from "./explorer.ts";
import { LoadGate, readComputeMs } from "./load_gate.ts";
import { MISS_REASONS, type MissReason } from "./miss_reason.ts";
import type { LoadParts } from "./batch_mover.ts";
import { ObjectLoader } from "./object_loader.ts";
import { plan } from "./plan.ts";
import type { PrefetchPolicy } from "./prefetch_policy.ts";
import { PrefetchRequest, type PrefetchResult } from "./prefetch_request.ts";
import { SharedLoads } from "./shared_loads.ts";

/** Maximum number of active requests; others are queued. */
const ACTIVE_REQUESTS = 64;

/** Options of {@linkcode PrefetchController}. */
export interface PrefetchControllerOptions extends LoadParts {
  /** Policy that decides whether loaded objects stay in L1. */
  readonly policy: PrefetchPolicy;
  /** Called with the result of each request. */
  readonly onServed?: (groups: readonly KeyGroup[], result: PrefetchResult) => void;
  /** Called when a request was answered at its deadline. Must not throw. */
  readonly onDeadline?: (
    details: { objects: number; servedObjects: number; deadlineMs: number },
  ) => void;
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
  /**
   * Estimated time in milliseconds that the engine takes to compute everything behind the first
   * `chunk` chunks, from 0 to the number of chunks. If given, the match loads only as much as is
   * estimated to be faster than computing it. Ignored unless it returns a number of at least 0 for
   * every chunk.
   */
  readonly computeMs?: (chunk: number) => number;
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
  /** Bytes of the objects served. */
  readonly servedBytes: number;
  /** Objects for which a request waited for an in-flight load of another request. */
  readonly sharedLoads: number;
  /** Requests that did not get the whole prefix, by the reason of the first missing chunk. */
  readonly misses: Readonly<Record<MissReason, number>>;
  /** Decisions to compute what adapters have rather than to load it. */
  readonly decisions: LoadDecisionCounts;
  /** Requests shortened because device memory was full. */
  readonly outOfMemory: number;
  /** Bytes of host memory in use by loads. */
  readonly loadBytesInUse: number;
}

/** One call of `prefetch` or `warm`. */
interface PrefetchCall extends PrefetchOptions {
  readonly id: number;
  readonly groups: readonly KeyGroup[];
  readonly isLeasing: boolean;
  readonly startedAt: number;
}

/** A request that waits for its turn. There may be very many. */
interface QueuedRequest {
  readonly call: PrefetchCall;
  readonly resolve: (result: Promise<PrefetchResult>) => void;
  /** Cancels the deadline and stops listening to the signal. */
  unwatch: () => void;
}

const nothingToEnd = (): void => {};

const logger = getLogger(["kvtier", "prefetch"]);

/**
 * Loads the longest available prefix of a chain of objects into L1 and leases it. Each object is
 * loaded once, however many requests want it (single-flight). If several adapters have an object,
 * the one with the lowest expected completion time loads it; if that fails, the next one does.
 */
export class PrefetchController {
  readonly #options: PrefetchControllerOptions;
  readonly #loader: ObjectLoader;
  readonly #shared: SharedLoads;
  /** Work in flight and the request that it belongs to. */
  readonly #running = new Map<Promise<void>, PrefetchRequest | undefined>();
  /** Queued requests, in order. */
  readonly #queue = new Set<QueuedRequest>();
  readonly #misses = Object.fromEntries(MISS_REASONS.map((reason) => [reason, 0])) as Record<
    MissReason,
    number
  >;
  readonly #explorer: Explorer;
  #active = 0;
  readonly #counters = {
    requests: 0,
    deadlines: 0,
    requestedObjects: 0,
    l1Objects: 0,
    l2Objects: 0,
    servedBytes: 0,
    sharedLoads: 0,
    outOfMemory: 0,
  };
  readonly #decisions = { shortenedLoads: 0, computedInstead: 0, wrongGuesses: 0 };

  /** Creates a controller that loads through an {@linkcode ObjectLoader}. */
  constructor(options: PrefetchControllerOptions) {
    this.#options = options;
    this.#loader = new ObjectLoader({
      ...options,
      onOutOfMemory: () => this.#counters.outOfMemory++,
      track: (work, request) => this.#track(work, request),
    });
    this.#explorer = new Explorer(options.clock);
    this.#shared = new SharedLoads({ ...options, onShared: () => this.#counters.sharedLoads++ });
  }

  /**
   * Leases the longest prefix available in L1 and the adapters.
   *
   * @param groups Keys of one chain: one entry for each group of layers, all of the same length.
   * @param isLeasing If not, the prefix is kept in L1 without leases.
   */
  prefetch(
    groups: readonly KeyGroup[],
    options: PrefetchOptions = {},
    isLeasing = true,
  ): Promise<PrefetchResult> {
    if (options.signal?.aborted) return Promise.reject(options.signal.reason);
    const { l1, clock, adapters } = this.#options;
    const id = ++this.#counters.requests;
    this.#counters.requestedObjects += countObjects(groups);
    const call: PrefetchCall = { ...options, id, groups, isLeasing, startedAt: clock.now() };
    const isQueued = this.#active >= ACTIVE_REQUESTS && adapters.all.length > 0 &&
      !groups.every(({ keys }) => keys.every((key) => l1.has(key)));
    return isQueued ? this.#enqueue(call) : this.#serve(call);
  }

  /** Loads the longest available prefix into L1 and keeps it there, without leases. */
  warm(groups: readonly KeyGroup[], options: PrefetchOptions = {}): Promise<PrefetchResult> {
    return this.prefetch(groups, options, false);
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
      decisions: { ...this.#decisions, explorations: this.#explorer.count },
      misses: { ...this.#misses },
      queuedRequests: this.#queue.size,
      activeRequests: this.#active,
      drainingRequests: new Set(answered).size,
      loadBytesInUse: this.#options.scratch.lentBytes,
    };
  }

  /** Queues a request. At its deadline it is answered from L1. */
  #enqueue(call: PrefetchCall): Promise<PrefetchResult> {
    return new Promise((resolve) => {
      const queued: QueuedRequest = { call, resolve, unwatch: nothingToEnd };
      this.#queue.add(queued);
      if (call.deadlineMs === undefined && call.signal === undefined) return;
      queued.unwatch = this.#watch(call, {
        onDeadline: () => {
          const request = this.#open(call);
          request.publish(true);
          this.#leaveQueue(queued, this.#answer(call, request));
        },
        onAbort: (reason) => this.#leaveQueue(queued, Promise.reject(reason)),
      });
    });
  }

  #leaveQueue(queued: QueuedRequest, answer: Promise<PrefetchResult>): void {
    this.#queue.delete(queued);
    queued.unwatch();
    queued.resolve(answer);
  }

  /**
   * Watches the deadline and the signal of a call.
   *
   * @returns A function that ends it.
   */
  #watch(
    { deadlineMs, signal, startedAt }: PrefetchCall,
    { onDeadline, onAbort }: { onDeadline: () => void; onAbort: (reason: unknown) => void },
  ): () => void {
    const { clock } = this.#options;
    const cancel = deadlineMs === undefined
      ? undefined
      : clock.schedule(onDeadline, startedAt + deadlineMs - clock.now());
    const abort = (): void => onAbort(signal?.reason);
    signal?.addEventListener("abort", abort, { once: true });
    return () => {
      cancel?.();
      signal?.removeEventListener("abort", abort);
    };
  }

  #open({ id, groups, isLeasing }: PrefetchCall): PrefetchRequest {
    const { l1, policy } = this.#options;
    const retains = (key: ObjectKey): boolean => !isLeasing || policy.retains(key);
    const onSettled = this.#shared.settle.bind(this.#shared);
    return new PrefetchRequest({ id, groups, l1, retains, isLeasing, onSettled });
  }

  /** Serves a request, and starts the next ones when it is answered. */
  async #serve(call: PrefetchCall): Promise<PrefetchResult> {
    const request = this.#open(call);
    const own = this.#shared.divide(request);
    if (needsNothing(request.table)) {
      request.table.abandon(own);
      request.publish();
      return await this.#answer(call, request);
    }
    this.#active++;
    const unwatch = this.#watch(call, {
      onDeadline: () => request.publish(true),
      onAbort: (reason) => request.reject(reason),
    });
    using gate = this.#gateOf(call, request);
    this.#track(this.#load(request, own, gate));
    try {
      return await this.#answer(call, request);
    } finally {
      unwatch();
      this.#active--;
      for (const queued of this.#queue) {
        if (this.#active >= ACTIVE_REQUESTS) break;
        this.#leaveQueue(queued, this.#serve(queued.call));
      }
    }
  }

  #gateOf({ computeMs, groups }: PrefetchCall, request: PrefetchRequest): LoadGate | undefined {
    const costs = readComputeMs(computeMs, groups[0]?.keys.length ?? 0);
    if (costs === undefined) return undefined;
    const { adapters, clock } = this.#options;
    const isSlow = this.#loader.isSlow.bind(this.#loader);
    return new LoadGate({ request, computeMs: costs, adapters, clock, isSlow });
  }

  /** Counts the result of a request, and reports it. */
  async #answer(
    { groups, deadlineMs = 0 }: PrefetchCall,
    { published }: PrefetchRequest,
  ): Promise<PrefetchResult> {
    const result = await published;
    const { l1Objects, leases, miss, decision } = result;
    const servedObjects = leases.reduce((sum, { length }) => sum + length, 0);
    this.#counters.l1Objects += l1Objects;
    this.#counters.l2Objects += servedObjects - l1Objects;
    for (const [i, { layout }] of groups.entries()) {
      this.#counters.servedBytes += (leases[i]?.length ?? 0) * layout.byteLength;
    }
    if (miss !== undefined) this.#misses[miss.reason]++;
    if (miss !== undefined && decision !== undefined) {
      this.#noteDecision(decision, servedObjects > l1Objects, groups, miss.chunk);
    }
    this.#options.onServed?.(groups, result);
    if (!result.isAtDeadline) return result;
    this.#counters.deadlines++;
    this.#options.onDeadline?.({ objects: countObjects(groups), servedObjects, deadlineMs });
    return result;
  }

  /** Counts a decision, and explores if nothing was loaded that would tell how fast loads are. */
  #noteDecision(
    { reason, chunks, loadMs = Infinity }: LoadDecision,
    hasLoaded: boolean,
    groups: readonly KeyGroup[],
    chunk: number,
  ): void {
    this.#decisions[hasLoaded ? "shortenedLoads" : "computedInstead"]++;
    if (reason === "late") this.#decisions.wrongGuesses++;
    const isLoading = this.#options.adapters.serving
      .some((adapter) => adapter.loadBytesInFlight > 0 || this.#loader.isSlow(adapter));
    if (reason === "late" || hasLoaded || isLoading) return;
    const [{ keys, layout } = { keys: [], layout: undefined }] = groups;
    const key = keys[chunk];
    if (key === undefined || layout === undefined) return;
    const probe = (): Promise<boolean> => this.#loader.probe(key, layout);
    this.#track(this.#explorer.explore(loadMs / chunks, probe));
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
  async #load(request: PrefetchRequest, own: readonly number[], gate?: LoadGate): Promise<void> {
    using _answer = { [Symbol.dispose]: () => request.publish() };
    const { table } = request;
    for (let slots = own;; slots = this.#shared.divide(request)) {
      if (slots.length > 0) await this.#loader.load(request, slots, gate);
      if (request.isPublished || needsNothing(table)) return;
      gate?.weigh();
      await Promise.race([table.whenQuiet(), request.published.catch(() => {})]);
      if (request.isPublished || needsNothing(table)) return;
      request.leaseResident();
    }
  }
}

/** Whether no object that is missing can make the prefix longer. */
function needsNothing(table: ChunkTable): boolean {
  return plan(table, (slot) => table.isPossible(slot)).slots.length === 0;
}

function countObjects(groups: readonly KeyGroup[]): number {
  return groups.reduce((sum, { keys }) => sum + keys.length, 0);
}
