import type { WrittenObject } from "../l1/l1_cache.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import type { Clock } from "../base/clock.ts";

/** A flush that waits until the adapters have answered for its objects. */
export interface FlushWaiter {
  /** Objects without an answer. */
  left: number;
  /** Called when every object has an answer. */
  readonly resolve: () => void;
}

/** A dirty object: written by an engine and not yet in every chosen adapter. */
export interface DirtyObject {
  /** Key and layout of the object. */
  readonly object: WrittenObject;
  /** Lanes in which it is queued, backing off or being stored. */
  readonly lanes: Set<StoreLane>;
  /** Number of lanes in which it is queued or backing off. */
  waiting: number;
  readonly waiters: Set<FlushWaiter>;
  /** Whether at least one adapter has stored it. */
  isStored: boolean;
  /**
   * Why it is not offered to adapters any more: it left L1 (`lost`), was forgotten, or the
   * controller was disposed (`removed`).
   */
  gone: "lost" | "forgotten" | "removed" | undefined;
}

/** Objects that are queued or backing off in any lane, each counted once, and their bytes. */
export interface WaitingObjects {
  objects: number;
  bytes: number;
}

/** Batches in flight per adapter: one is stored while the next is read back. */
const BATCHES_IN_FLIGHT = 2;

/** Objects that failed together and back off until a timer fires. */
interface BackOff {
  readonly attempts: number;
  readonly objects: Set<DirtyObject>;
  readonly cancelTimer: () => void;
}

/** Options of {@linkcode StoreLane}. */
export interface StoreLaneOptions {
  readonly guard: AdapterGuard;
  /** Clock for back-off. */
  readonly clock: Clock;
  /** Totals over all lanes, updated by each lane. */
  readonly waiting: WaitingObjects;
  /** Called when objects have finished backing off and are queued again. */
  readonly onRetryDue: () => void;
}

/**
 * Store queue of one adapter: objects that are queued, and objects that are backing off after a
 * failed attempt. Objects being stored are only counted.
 */
export class StoreLane {
  readonly guard: AdapterGuard;
  readonly #clock: Clock;
  readonly #onRetryDue: () => void;
  readonly #allWaiting: WaitingObjects;
  /** Queued objects with the number of failed attempts. */
  readonly #queue = new Map<DirtyObject, number>();
  readonly #backingOff = new Map<DirtyObject, BackOff>();
  #queuedBytes = 0;
  #backOffBytes = 0;
  #batchesInFlight = 0;
  #objectsInFlight = 0;
  #bytesInFlight = 0;
  #isDue = false;

  /** Creates an empty lane. */
  constructor({ guard, clock, waiting, onRetryDue }: StoreLaneOptions) {
    this.guard = guard;
    this.#allWaiting = waiting;
    this.#clock = clock;
    this.#onRetryDue = onRetryDue;
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** Bytes of objects that are queued or backing off. */
  get waitingBytes(): number {
    return this.#queuedBytes + this.#backOffBytes;
  }

  /** Bytes being stored. */
  get bytesInFlight(): number {
    return this.#bytesInFlight;
  }

  /** Objects being stored. */
  get objectsInFlight(): number {
    return this.#objectsInFlight;
  }

  get hasQueued(): boolean {
    return this.#queue.size > 0;
  }

  /** Whether the queue is to be stored even if it is smaller than a batch. */
  get isDue(): boolean {
    return this.#isDue;
  }

  /** Whether no object is queued, backing off or being stored. */
  get isEmpty(): boolean {
    return this.#queue.size === 0 && this.#backingOff.size === 0 && this.#batchesInFlight === 0;
  }

  /** Queued objects, oldest first. */
  queued(): Iterable<DirtyObject> {
    return this.#queue.keys();
  }

  /**
   * Objects that are backing off, then queued objects, oldest first. Objects may be removed during
   * the iteration.
   */
  *waiting(): Generator<DirtyObject> {
    yield* this.#backingOff.keys();
    yield* this.#queue.keys();
  }

  /** Whether another batch may be started without exceeding `maxBytes` in flight. */
  hasRoomInFlight(maxBytes: number): boolean {
    if (this.#batchesInFlight === 0) return true;
    return this.#batchesInFlight < BATCHES_IN_FLIGHT &&
      this.#bytesInFlight <= maxBytes / BATCHES_IN_FLIGHT;
  }

  queue(dirty: DirtyObject, attempts = 0): void {
    this.#queue.set(dirty, attempts);
    this.#queuedBytes += bytesOf(dirty);
    dirty.lanes.add(this);
    this.#count(dirty, 1);
  }

  /** Backs objects off for `delayMs` milliseconds; then they are queued and due. */
  backOff(objects: Iterable<DirtyObject>, attempts: number, delayMs: number): void {
    const failed = new Set(objects);
    if (failed.size === 0) return;
    const backOff: BackOff = {
      attempts,
      objects: failed,
      cancelTimer: this.#clock.schedule(() => this.#requeue(backOff), delayMs),
    };
    for (const dirty of failed) {
      this.#backingOff.set(dirty, backOff);
      this.#backOffBytes += bytesOf(dirty);
      this.#count(dirty, 1);
    }
  }

  /** Makes everything that is queued now due. */
  makeDue(): void {
    this.#isDue = this.#queue.size > 0;
  }

  /**
   * Takes those of `objects` that are queued as a batch in flight.
   *
   * @returns The objects taken, with their failed attempts.
   */
  take(objects: readonly DirtyObject[]): Map<DirtyObject, number> {
    const taken = new Map<DirtyObject, number>();
    for (const dirty of objects) {
      const attempts = this.#queue.get(dirty);
      if (attempts === undefined) continue;
      this.#unqueue(dirty);
      taken.set(dirty, attempts);
      this.#bytesInFlight += bytesOf(dirty);
    }
    if (taken.size > 0) this.#batchesInFlight++;
    this.#objectsInFlight += taken.size;
    return taken;
  }

  /** Ends a batch in flight. */
  finish(taken: ReadonlyMap<DirtyObject, number>): void {
    this.#batchesInFlight--;
    this.#objectsInFlight -= taken.size;
    for (const dirty of taken.keys()) this.#bytesInFlight -= bytesOf(dirty);
  }

  /**
   * Removes an object that is queued or backing off.
   *
   * @returns Whether it was.
   */
  remove(dirty: DirtyObject): boolean {
    if (this.#unqueue(dirty)) return true;
    const backOff = this.#backingOff.get(dirty);
    if (backOff === undefined) return false;
    this.#backingOff.delete(dirty);
    this.#backOffBytes -= bytesOf(dirty);
    this.#count(dirty, -1);
    backOff.objects.delete(dirty);
    if (backOff.objects.size === 0) backOff.cancelTimer();
    return true;
  }

  #unqueue(dirty: DirtyObject): boolean {
    if (!this.#queue.delete(dirty)) return false;
    this.#queuedBytes -= bytesOf(dirty);
    this.#count(dirty, -1);
    if (this.#queue.size === 0) this.#isDue = false;
    return true;
  }

  #count(dirty: DirtyObject, sign: 1 | -1): void {
    const wasWaiting = dirty.waiting > 0;
    dirty.waiting += sign;
    if (wasWaiting === (dirty.waiting > 0)) return;
    this.#allWaiting.objects += sign;
    this.#allWaiting.bytes += sign * bytesOf(dirty);
  }

  #requeue({ attempts, objects }: BackOff): void {
    for (const dirty of [...objects]) {
      this.remove(dirty);
      this.queue(dirty, attempts);
    }
    this.makeDue();
    this.#onRetryDue();
  }
}

function bytesOf({ object }: DirtyObject): number {
  return object.layout.byteLength;
}
