import { backoffMs } from "../base/backoff.ts";
import type { Clock } from "../base/clock.ts";
import type { RandomSource } from "../base/random.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import type { DirtyObject, RetryGroup, StorePhase, StoreShare } from "./dirty_object.ts";

/** Objects that are queued or backing off in any lane, each counted once, and their bytes. */
export interface WaitingObjects {
  objects: number;
  bytes: number;
}

/** Batches in flight per adapter: one is stored while the next is read back. */
const BATCHES_IN_FLIGHT = 2;
/** Maximum delay between two attempts, unless the first delay is longer. */
const MAX_BACK_OFF_MS = 30_000;

/** Allowed transitions. */
const NEXT_PHASES: Readonly<Record<StorePhase, readonly StorePhase[]>> = {
  new: ["queued"],
  queued: ["storing", "dropped"],
  storing: ["backing-off", "stored", "dropped"],
  "backing-off": ["queued", "dropped"],
  stored: [],
  dropped: [],
};

/** Options of {@linkcode StoreLane}. */
export interface StoreLaneOptions {
  /** Clock for back-off. */
  readonly clock: Clock;
  /** Source of jitter. */
  readonly random: RandomSource;
  /** Queued bytes at which a batch is stored immediately. */
  readonly flushBytes: number;
  /** Maximum number of attempts. */
  readonly attempts: number;
  /** Delay before the second attempt in milliseconds; doubles with each further one. */
  readonly backOffMs: number;
  /** Totals over all lanes, updated by each lane. */
  readonly waiting: WaitingObjects;
  /** Called when objects have finished backing off and are queued again. */
  readonly onRetryDue: () => void;
}

/** The dirty objects of one adapter, by phase. */
export class StoreLane {
  readonly guard: AdapterGuard;
  readonly queued = new PhaseObjects();
  readonly storing = new PhaseObjects();
  readonly backingOff = new PhaseObjects();
  readonly #options: StoreLaneOptions;
  #batchesInFlight = 0;
  #isDue = false;

  /** Creates an empty lane. */
  constructor(guard: AdapterGuard, options: StoreLaneOptions) {
    this.guard = guard;
    this.#options = options;
  }

  /** Bytes of objects that are queued or backing off. */
  get waitingBytes(): number {
    return this.queued.bytes + this.backingOff.bytes;
  }

  /** Whether the queue is to be stored even if it is smaller than a batch. */
  get isDue(): boolean {
    return this.#isDue;
  }

  /** Whether a batch is to be stored now. */
  get isReady(): boolean {
    return this.#isDue || this.queued.bytes >= this.#options.flushBytes;
  }

  /** Whether no object is queued, backing off or being stored. */
  get isEmpty(): boolean {
    return this.queued.size + this.backingOff.size + this.#batchesInFlight === 0;
  }

  /**
   * Objects that are backing off, then queued objects, oldest first. Objects may be dropped during
   * the iteration.
   */
  *waiting(): Generator<DirtyObject> {
    yield* this.backingOff.objects();
    yield* this.queued.objects();
  }

  /** Whether another batch may be started without exceeding `maxBytes` in flight. */
  hasRoomInFlight(maxBytes: number): boolean {
    if (this.#batchesInFlight === 0) return true;
    return this.#batchesInFlight < BATCHES_IN_FLIGHT &&
      this.storing.bytes <= maxBytes / BATCHES_IN_FLIGHT;
  }

  queue(dirty: DirtyObject): void {
    dirty.shares.set(this.guard, { phase: "new", attempts: 0 });
    this.#proceed(dirty, "queued");
  }

  /** Makes everything that is queued now due. */
  makeDue(): void {
    this.#isDue = this.queued.size > 0;
  }

  /** Starts a batch with those of `objects` that are queued, and returns them. */
  take(objects: readonly DirtyObject[]): DirtyObject[] {
    const taken = objects.filter((dirty) => dirty.shares.get(this.guard)?.phase === "queued");
    for (const dirty of taken) this.#proceed(dirty, "storing");
    if (taken.length > 0) this.#batchesInFlight++;
    return taken;
  }

  /** Ends a batch. Its objects are then stored, dropped or retried. */
  endBatch(): void {
    this.#batchesInFlight--;
  }

  /** Ends the interest of the adapter in an object. */
  end(dirty: DirtyObject, phase: "stored" | "dropped"): void {
    this.#proceed(dirty, phase);
    dirty.shares.delete(this.guard);
  }

  /** Whether an object whose attempt failed may be retried. */
  hasAttemptsLeft(dirty: DirtyObject): boolean {
    return this.#shareOf(dirty).attempts + 1 < this.#options.attempts;
  }

  /** Backs off objects whose attempt failed; then they are queued and due. */
  retryLater(objects: readonly DirtyObject[]): void {
    const { clock, random, backOffMs } = this.#options;
    const groups = Map.groupBy(objects, (dirty) => ++this.#shareOf(dirty).attempts);
    for (const [attempts, failed] of groups) {
      const jitter = 0.5 + (random.bytes(1)[0] ?? 0) / 256;
      const maxMs = Math.max(backOffMs, MAX_BACK_OFF_MS);
      const delayMs = backoffMs({ firstMs: backOffMs, maxMs }, attempts);
      const retry: RetryGroup = {
        objects: new Set(failed),
        cancelTimer: clock.schedule(() => this.#requeue(retry), delayMs * jitter),
      };
      for (const dirty of failed) {
        this.#proceed(dirty, "backing-off");
        this.#shareOf(dirty).retry = retry;
      }
    }
  }

  #requeue({ objects }: RetryGroup): void {
    for (const dirty of objects) this.#proceed(dirty, "queued");
    this.makeDue();
    this.#options.onRetryDue();
  }

  #proceed(dirty: DirtyObject, phase: StorePhase): void {
    const share = this.#shareOf(dirty);
    const before = share.phase;
    if (!NEXT_PHASES[before].includes(phase)) {
      throw new Error(`An object that is ${before} cannot become ${phase}`);
    }
    share.phase = phase;
    this.#objectsIn(before)?.delete(dirty);
    this.#objectsIn(phase)?.add(dirty);
    if (before === "backing-off" && share.retry !== undefined) {
      share.retry.objects.delete(dirty);
      if (share.retry.objects.size === 0) share.retry.cancelTimer();
    }
    if (this.queued.size === 0) this.#isDue = false;
    this.#countWaiting(dirty, Number(isWaiting(phase)) - Number(isWaiting(before)));
  }

  #countWaiting(dirty: DirtyObject, change: number): void {
    const { waiting } = this.#options;
    const wasWaiting = dirty.waiting > 0;
    dirty.waiting += change;
    const sign = Number(dirty.waiting > 0) - Number(wasWaiting);
    waiting.objects += sign;
    waiting.bytes += sign * dirty.bytes;
  }

  #objectsIn(phase: StorePhase): PhaseObjects | undefined {
    if (phase === "queued") return this.queued;
    if (phase === "storing") return this.storing;
    return phase === "backing-off" ? this.backingOff : undefined;
  }

  #shareOf({ shares }: DirtyObject): StoreShare {
    return shares.get(this.guard) as StoreShare;
  }
}

/** Objects in one phase. */
class PhaseObjects {
  readonly #objects = new Set<DirtyObject>();
  #bytes = 0;

  get size(): number {
    return this.#objects.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** The objects, oldest first. */
  objects(): Iterable<DirtyObject> {
    return this.#objects;
  }

  add(dirty: DirtyObject): void {
    this.#objects.add(dirty);
    this.#bytes += dirty.bytes;
  }

  delete(dirty: DirtyObject): void {
    this.#objects.delete(dirty);
    this.#bytes -= dirty.bytes;
  }
}

function isWaiting(phase: StorePhase): boolean {
  return phase === "queued" || phase === "backing-off";
}
