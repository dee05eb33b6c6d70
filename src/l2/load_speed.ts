import type { Clock } from "../base/clock.ts";
import type { Bitmap } from "../keys/bitmap.ts";
import type { CallEnd } from "./adapter_calls.ts";

/** Measurements that count. Their median ignores two outliers and follows a change after three. */
const WINDOW = 5;
/** Time after which a measurement is outdated, in milliseconds. */
const RECENT_MS = 60_000;
/** Minimum duration of a call in milliseconds: clocks are coarse, and a speed must be finite. */
const MIN_MS = 1e-3;
/** Least share of a load's time that its bytes took, however long a lookup takes. */
const MIN_TRANSFER = 0.1;
const DEFAULT_LATENCY_MS = 1;
const DEFAULT_BYTES_PER_MS = 1e5;

/** How long loads take: a fixed time, and a time for each byte. */
export interface LoadEstimate {
  readonly latencyMs: number;
  readonly msPerByte: number;
}

/** A load in progress. */
export interface RunningLoad {
  readonly startedAt: number;
  /** {@linkcode LoadSpeed} counter at its start. */
  readonly sharedMs: number;
  readonly bytes: number;
}

/** A load that has ended. */
interface MeasuredLoad {
  readonly bytes: number;
  readonly ms: number;
  /** Its share of that time: concurrent loads share the adapter. */
  readonly sharedMs: number;
}

/** Recent lookup time and load throughput of an adapter, as medians of the last measurements. */
export class LoadSpeed {
  readonly #clock: Clock;
  readonly #lookups: number[] = [];
  #lookupAt = -Infinity;
  #isAnswering = true;
  readonly #loads: MeasuredLoad[] = [];
  #loadAt = -Infinity;
  #running = 0;
  /** Time that a load running from the start would have had the adapter to itself. */
  #sharedMs = 0;
  #sharedAt = 0;
  /** Bytes of the loads in progress. */
  bytesInFlight = 0;

  /** Starts without measurements. */
  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Duration of a lookup in milliseconds, if recently measured. */
  get lookupMs(): number | undefined {
    return this.#isRecent(this.#lookupAt) ? this.#medianLookupMs : undefined;
  }

  /**
   * Duration of a lookup in milliseconds, however long ago it was measured; `undefined` if the last
   * one missed its deadline.
   */
  get lastLookupMs(): number | undefined {
    return this.#isAnswering ? this.#medianLookupMs : undefined;
  }

  get #medianLookupMs(): number | undefined {
    return this.#lookups.length === 0 ? undefined : median(this.#lookups, () => 1, (ms) => ms);
  }

  /** Load throughput in bytes per millisecond, if recently measured. */
  get bytesPerMs(): number | undefined {
    if (!this.#isRecent(this.#loadAt)) return undefined;
    return 1 / median(this.#loads, ({ bytes }) => bytes, ({ sharedMs, bytes }) => sharedMs / bytes);
  }

  /** What loads cost, however long ago that was measured; `undefined` if it never was. */
  get lastEstimate(): LoadEstimate | undefined {
    if (this.#loads.length === 0) return undefined;
    const latencyMs = this.lastLookupMs ?? DEFAULT_LATENCY_MS;
    const msPerByte = median(this.#loads, ({ bytes }) => bytes, ({ bytes, ms, sharedMs }) => {
      return sharedMs * Math.max(1 - latencyMs / ms, MIN_TRANSFER) / bytes;
    });
    return { latencyMs, msPerByte };
  }

  /** Expected duration of a load in milliseconds; an unknown adapter is assumed to be fast. */
  estimateMs(bytes: number): number {
    const known = this.#isRecent(this.#loadAt) ? this.lastEstimate : undefined;
    const latencyMs = this.lookupMs ?? DEFAULT_LATENCY_MS;
    return latencyMs + bytes * (known?.msPerByte ?? 1 / DEFAULT_BYTES_PER_MS);
  }

  /** Records the duration of a lookup in milliseconds, and whether it missed its deadline. */
  addLookup(ms: number, isTimeout = false): void {
    this.#isAnswering = !isTimeout;
    if (!this.#isRecent(this.#lookupAt)) this.#lookups.length = 0;
    keep(this.#lookups, Math.max(0, ms));
    this.#lookupAt = this.#clock.now();
  }

  /** Starts to measure a load. */
  startLoad(objects: readonly { readonly byteLength: number }[]): RunningLoad {
    this.#share();
    this.#running++;
    const bytes = objects.reduce((sum, { byteLength }) => sum + byteLength, 0);
    this.bytesInFlight += bytes;
    return { startedAt: this.#clock.now(), sharedMs: this.#sharedMs, bytes };
  }

  /** Records how a load of objects ended. */
  endLoad(
    load: RunningLoad,
    end: CallEnd<Bitmap>,
    objects: readonly { readonly byteLength: number }[],
  ): void {
    this.#share();
    this.#running--;
    this.bytesInFlight -= load.bytes;
    // A failure, or an answer without objects, says nothing about the speed. On a timeout, at most
    // all bytes were moved by the deadline.
    const isTimeout = end.status === "failed" && end.isTimeout;
    const moved = end.status === "answered" ? end.value.gather(objects) : isTimeout ? objects : [];
    const bytes = moved.reduce((sum, { byteLength }) => sum + byteLength, 0);
    if (bytes === 0) return;
    if (!this.#isRecent(this.#loadAt)) this.#loads.length = 0;
    const ms = Math.max(this.#clock.now() - load.startedAt, MIN_MS);
    const sharedMs = Math.min(ms, Math.max(this.#sharedMs - load.sharedMs, MIN_MS));
    keep(this.#loads, { bytes, ms, sharedMs });
    this.#loadAt = this.#clock.now();
  }

  #share(): void {
    const now = this.#clock.now();
    if (this.#running > 0) this.#sharedMs += Math.max(0, now - this.#sharedAt) / this.#running;
    this.#sharedAt = now;
  }

  #isRecent(at: number): boolean {
    return this.#clock.now() - at <= RECENT_MS;
  }
}

function keep<T>(values: T[], value: T): void {
  values.push(value);
  if (values.length > WINDOW) values.shift();
}

/** Weighted median: the least value with half of the weight at or below it. */
function median<T>(
  items: readonly T[],
  weightOf: (item: T) => number,
  valueOf: (item: T) => number,
): number {
  const sorted = items.map((item) => ({ value: valueOf(item), weight: weightOf(item) }))
    .sort((a, b) => a.value - b.value);
  let left = sorted.reduce((sum, { weight }) => sum + weight, 0) / 2;
  return sorted.find(({ weight }) => (left -= weight) <= 0)?.value ?? 0;
}
