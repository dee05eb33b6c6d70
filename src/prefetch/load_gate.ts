import type { Clock } from "../base/clock.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import type { AdapterSet } from "../l2/adapter_set.ts";
import type { LoadEstimate } from "../l2/load_speed.ts";
import type { LoadDecisionReason } from "./load_decision.ts";
import { cheapestPrefix, type PrefixChoice } from "./plan.ts";
import type { PrefetchRequest } from "./prefetch_request.ts";

/** Share of the time to compute the prompt that a lookup may take while nothing is known of it. */
const LOOKUP_SHARE = 0.01;
/** Share that it may take if it is known to take as long. */
const MAX_LOOKUP_SHARE = 0.1;
/** A lookup may take this many times its expected time. */
const LOOKUP_PATIENCE = 3;
/** Loads may take this many times their expected time, … */
const LOAD_PATIENCE = 2;
/** … and this share of the time that they save; it is all while no load has been measured. */
const SLACK_SHARE = 0.1;

/** Timers are coarse: nothing is given up sooner. */
const MIN_WAIT_MS = 2;

/** Loads of an adapter that nothing is known of are tried. */
const UNKNOWN: LoadEstimate = { latencyMs: Number.MIN_VALUE, msPerByte: 0 };
/** Loads of an adapter whose loads are overdue are not. */
const OVERDUE: LoadEstimate = { latencyMs: Infinity, msPerByte: 0 };

/** Options of a {@linkcode LoadGate}. */
export interface LoadGateOptions {
  readonly request: PrefetchRequest;
  /** For each prefix length in chunks, the time in milliseconds to compute what is behind it. */
  readonly computeMs: Float64Array;
  readonly adapters: AdapterSet;
  readonly clock: Clock;
  /** Whether loads of an adapter are overdue. */
  readonly isSlow: (adapter: AdapterGuard) => boolean;
}

/**
 * Ends the prefix of a request where computing is estimated to be faster than loading, and bounds
 * the time that the request waits for lookups and loads.
 */
export class LoadGate implements Disposable {
  readonly #options: LoadGateOptions;
  /** The adapter that is to load each object. */
  readonly #sources = new Map<number, AdapterGuard>();
  /** Bytes that each adapter was loading for other requests before this one. */
  readonly #ahead = new Map<AdapterGuard, number>();
  /** Time to compute what was not resident at the start. */
  readonly #restMs: number;
  /** Length of the longest prefix that could be had. */
  #longest = 0;
  #askedAt = 0;
  /** When loading began, and the time that it could save then. */
  #loading: { readonly since: number; readonly savedMs: number } | undefined;
  #cancel = (): void => {};
  #isLate = false;

  constructor(options: LoadGateOptions) {
    this.#options = options;
    this.#restMs = options.computeMs[this.#choose().free] ?? 0;
  }

  /** Whether loads took so long that the request was answered without them. */
  get isLate(): boolean {
    return this.#isLate;
  }

  /** Starts the time that a lookup may take. */
  startLookup(): void {
    this.#askedAt = this.#options.clock.now();
  }

  /** Whether a lookup is worth its time, if the adapter has everything that is asked for. */
  isWorthAsking(adapter: AdapterGuard): boolean {
    const { lookupMs = 0 } = adapter;
    const { best, free } = this.#choose(adapter);
    const savedMs = this.#savedMs(free, best.length) - best.loadMs;
    return savedMs > 0 && lookupMs <= MAX_LOOKUP_SHARE * savedMs;
  }

  /** Calls `giveUp` once the adapters have had enough time to answer. */
  limitLookup(asked: readonly AdapterGuard[], giveUp: () => void): void {
    const { clock } = this.#options;
    const expectedMs = LOOKUP_PATIENCE * Math.max(0, ...asked.map(({ lookupMs = 0 }) => lookupMs));
    const budgetMs = Math.min(
      Math.max(LOOKUP_SHARE * this.#restMs, expectedMs),
      MAX_LOOKUP_SHARE * this.#restMs,
    );
    this.#arm(this.#askedAt + Math.max(MIN_WAIT_MS, budgetMs) - clock.now(), giveUp);
  }

  /** Ends the prefix before what no adapter has found in time. */
  endUnanswered(): void {
    const { request: { table }, clock } = this.#options;
    const waitedMs = clock.now() - this.#askedAt;
    this.#compute("unanswered", this.#choose().longest.length, table.end, waitedMs);
  }

  /** Ends the prefix before what no adapter is asked for. */
  endUnasked(): void {
    const { request: { table }, adapters } = this.#options;
    const loads = adapters.serving.map((adapter) =>
      (adapter.lookupMs ?? 0) + this.#choose(adapter).longest.loadMs
    );
    this.#compute("slower", this.#choose().longest.length, table.end, Math.min(...loads));
  }

  /** Notes which adapter is to load objects. */
  assign(adapter: AdapterGuard, slots: readonly number[]): void {
    if (!this.#ahead.has(adapter)) this.#ahead.set(adapter, adapter.loadBytesInFlight);
    for (const slot of slots) this.#sources.set(slot, adapter);
  }

  /**
   * Ends the prefix where it is estimated to be cheapest by now, and answers the request if nothing
   * is left to load. Otherwise the loads get the time that they are estimated to take.
   */
  weigh(): void {
    const { request, clock } = this.#options;
    if (request.isPublished) return;
    const { best, longest, free } = this.#choose();
    this.#longest = Math.max(this.#longest, longest.length);
    if (best.length < longest.length) {
      this.#compute("slower", best.length, longest.length, longest.loadMs - best.loadMs);
    }
    if (request.isPublished || best.length === free) return;
    const savedMs = this.#savedMs(free, best.length);
    this.#loading ??= { since: clock.now(), savedMs };
    const patienceMs = LOAD_PATIENCE * best.loadMs + SLACK_SHARE * savedMs;
    const leftMs = this.#loading.since + this.#loading.savedMs - clock.now();
    this.#arm(Math.max(MIN_WAIT_MS, Math.min(patienceMs, savedMs, leftMs)), () => this.#endLate());
  }

  [Symbol.dispose](): void {
    this.#cancel();
  }

  #endLate(): void {
    const { request, clock } = this.#options;
    if (request.isPublished) return;
    this.#isLate = true;
    const { free, longest } = this.#choose();
    const waitedMs = clock.now() - (this.#loading?.since ?? clock.now());
    this.#compute("late", free, longest.length, waitedMs);
    request.publish();
  }

  /** Ends the prefix of the request before a chunk. */
  #compute(reason: LoadDecisionReason, from: number, end: number, loadMs: number): void {
    const { request } = this.#options;
    this.#longest = Math.max(this.#longest, end);
    request.compute(from, {
      reason,
      chunks: this.#longest - from,
      loadMs: Number.isFinite(loadMs) ? loadMs : undefined,
      computeMs: this.#savedMs(from, this.#longest),
    });
    if (this.#choose().free === request.table.end) request.publish();
  }

  /**
   * Weighs the prefixes that can be had.
   *
   * @param hypothetical An adapter that is assumed to have everything that is asked for.
   */
  #choose(hypothetical?: AdapterGuard): PrefixChoice {
    const { request: { table }, computeMs, adapters } = this.#options;
    const estimates = new Map(
      adapters.all.map((adapter) => [adapter, this.#estimateOf(adapter)] as const),
    );
    const [fastest = OVERDUE] = adapters.serving.map((adapter) => estimates.get(adapter) ?? OVERDUE)
      .sort((a, b) => a.latencyMs - b.latencyMs || a.msPerByte - b.msPerByte);
    const canHave = (slot: number): boolean => {
      const state = table.state(slot);
      if (state === "asked") return hypothetical !== undefined;
      return state !== "wanted" && table.isPossible(slot);
    };
    const sourceOf = (slot: number): LoadEstimate | undefined => {
      const state = table.state(slot);
      if (state === "resident" || state === "filling") return undefined;
      const adapter = hypothetical ?? this.#sources.get(slot);
      return adapter === undefined ? fastest : estimates.get(adapter) ?? OVERDUE;
    };
    return cheapestPrefix(table, canHave, { computeMs, sourceOf });
  }

  #estimateOf(adapter: AdapterGuard): LoadEstimate {
    if (this.#options.isSlow(adapter)) return OVERDUE;
    const { loadEstimate } = adapter;
    if (loadEstimate === undefined) return UNKNOWN;
    const { latencyMs, msPerByte } = loadEstimate;
    const aheadBytes = this.#ahead.get(adapter) ?? adapter.loadBytesInFlight;
    return { latencyMs: latencyMs + msPerByte * aheadBytes, msPerByte };
  }

  /** Time to compute some chunks. */
  #savedMs(from: number, end: number): number {
    const { computeMs } = this.#options;
    return Math.max(0, (computeMs[from] ?? 0) - (computeMs[end] ?? 0));
  }

  /** Sets the one timer of the request. */
  #arm(ms: number, expire: () => void): void {
    const { clock } = this.#options;
    this.#cancel();
    const dueAt = clock.now() + ms;
    this.#cancel = clock.schedule(() => {
      // An engine that blocks the event loop delays the answers of adapters and this timer alike.
      const isDelayed = clock.now() - dueAt > Math.max(MIN_WAIT_MS, ms);
      if (isDelayed) this.#cancel = clock.schedule(expire, MIN_WAIT_MS);
      else expire();
    }, ms);
  }
}

/**
 * Reads what computing costs from a function of the caller.
 *
 * @returns For each prefix length, the time in milliseconds to compute what is behind it;
 * `undefined` if that is not known for all.
 */
export function readComputeMs(
  computeMs: ((chunk: number) => number) | undefined,
  chunks: number,
): Float64Array | undefined {
  if (computeMs === undefined) return undefined;
  const all = Float64Array.from({ length: chunks + 1 }, (_, chunk) => computeMs(chunk));
  return all.every((ms) => ms >= 0 && ms < Infinity) ? all : undefined;
}
