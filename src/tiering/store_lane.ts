import type { WrittenObject } from "../l1/l1_cache.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import type { Clock } from "../runtime/clock.ts";

/** Who waits until the adapters have answered for some objects. */
export interface FlushWaiter {
  /** Objects that are still waited for. */
  left: number;
  /** Called when there are none. */
  readonly resolve: () => void;
}

/** An object that an engine wrote, until no adapter is to get it any more. */
export interface DirtyObject {
  /** Its key and layout. */
  readonly object: WrittenObject;
  /** Those in which it waits, or from which it is being written. */
  readonly lanes: Set<StoreLane>;
  /** In how many of them it waits. */
  waiting: number;
  /** Flushes that wait for it. */
  readonly waiters: Set<FlushWaiter>;
  /** Whether an adapter has it. */
  isStored: boolean;
  /** Why it is not offered to an adapter again: it left L1, or nobody cares any more. */
  gone: "lost" | "forgotten" | "removed" | undefined;
}

/** Objects that wait in any lane, each once, and their bytes. */
export interface WaitingObjects {
  objects: number;
  bytes: number;
}

/** Batches that one adapter stores at a time: one is written while the next is read back. */
const BATCHES_IN_FLIGHT = 2;

/** Objects that failed together, and rest until a timer is due. */
interface BackOff {
  readonly attempts: number;
  readonly objects: Set<DirtyObject>;
  readonly cancelTimer: () => void;
}

/** How a {@linkcode StoreLane} is set up. */
export interface StoreLaneOptions {
  /** The adapter. */
  readonly guard: AdapterGuard;
  /** Source of time. */
  readonly clock: Clock;
  /** What waits in this lane and others. */
  readonly waiting: WaitingObjects;
  /** Told when objects are to be offered again. */
  readonly onRetryDue: () => void;
}

/**
 * What waits for one adapter: objects that are queued, and objects that rest after an attempt that
 * failed. Those that are being written are only counted.
 */
export class StoreLane {
  /** The adapter. */
  readonly guard: AdapterGuard;
  readonly #clock: Clock;
  readonly #onRetryDue: () => void;
  readonly #allWaiting: WaitingObjects;
  /** With the number of failed attempts. */
  readonly #queue = new Map<DirtyObject, number>();
  readonly #backingOff = new Map<DirtyObject, BackOff>();
  #queuedBytes = 0;
  #backOffBytes = 0;
  #batchesInFlight = 0;
  #objectsInFlight = 0;
  #bytesInFlight = 0;
  #isDue = false;

  /** An empty lane. */
  constructor({ guard, clock, waiting, onRetryDue }: StoreLaneOptions) {
    this.guard = guard;
    this.#allWaiting = waiting;
    this.#clock = clock;
    this.#onRetryDue = onRetryDue;
  }

  /** Bytes that are queued. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** Bytes that are queued or rest. */
  get waitingBytes(): number {
    return this.#queuedBytes + this.#backOffBytes;
  }

  /** Bytes that are being written. */
  get bytesInFlight(): number {
    return this.#bytesInFlight;
  }

  /** Objects that are being written. */
  get objectsInFlight(): number {
    return this.#objectsInFlight;
  }

  /** Whether anything is queued. */
  get hasQueued(): boolean {
    return this.#queue.size > 0;
  }

  /** Whether what is queued is to be written although it may be less than a batch. */
  get isDue(): boolean {
    return this.#isDue;
  }

  /** Whether nothing waits, and nothing is being written. */
  get isEmpty(): boolean {
    return this.#queue.size === 0 && this.#backingOff.size === 0 && this.#batchesInFlight === 0;
  }

  /** What is queued, the oldest first. */
  queued(): Iterable<DirtyObject> {
    return this.#queue.keys();
  }

  /** What rests and what is queued, the oldest first; removing meanwhile is allowed. */
  *waiting(): Generator<DirtyObject> {
    yield* this.#backingOff.keys();
    yield* this.#queue.keys();
  }

  /** Whether the adapter can be given a batch without more than `maxBytes` being written to it. */
  hasRoomInFlight(maxBytes: number): boolean {
    if (this.#batchesInFlight === 0) return true;
    return this.#batchesInFlight < BATCHES_IN_FLIGHT &&
      this.#bytesInFlight <= maxBytes / BATCHES_IN_FLIGHT;
  }

  /** Puts an object into the queue. */
  queue(dirty: DirtyObject, attempts = 0): void {
    this.#queue.set(dirty, attempts);
    this.#queuedBytes += bytesOf(dirty);
    dirty.lanes.add(this);
    this.#count(dirty, 1);
  }

  /** Lets objects rest for some milliseconds; then they are queued, and to be written at once. */
  backOff(objects: Iterable<DirtyObject>, attempts: number, delayMs: number): void {
    const resting = new Set(objects);
    if (resting.size === 0) return;
    const backOff: BackOff = {
      attempts,
      objects: resting,
      cancelTimer: this.#clock.schedule(() => this.#requeue(backOff), delayMs),
    };
    for (const dirty of resting) {
      this.#backingOff.set(dirty, backOff);
      this.#backOffBytes += bytesOf(dirty);
      this.#count(dirty, 1);
    }
  }

  /** Has everything written that is queued now. */
  makeDue(): void {
    this.#isDue = this.#queue.size > 0;
  }

  /** Starts to write those of `objects` that are queued; returns them with their attempts. */
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

  /** What was taken is not being written any more. */
  finish(taken: ReadonlyMap<DirtyObject, number>): void {
    this.#batchesInFlight--;
    this.#objectsInFlight -= taken.size;
    for (const dirty of taken.keys()) this.#bytesInFlight -= bytesOf(dirty);
  }

  /** Takes an object out; returns whether it waited. */
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
