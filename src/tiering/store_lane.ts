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
export interface Unsaved {
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

interface Rest {
  readonly attempts: number;
  readonly until: number;
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
  readonly onAwake: () => void;
}

/**
 * What waits for one adapter: objects that are queued, and objects that rest after an attempt that
 * failed. Those that are being written are only counted.
 */
export class StoreLane {
  /** The adapter. */
  readonly guard: AdapterGuard;
  readonly #clock: Clock;
  readonly #onAwake: () => void;
  readonly #allWaiting: WaitingObjects;
  /** With the number of failed attempts. */
  readonly #queue = new Map<Unsaved, number>();
  readonly #resting = new Map<Unsaved, Rest>();
  #queuedBytes = 0;
  #restingBytes = 0;
  #batchesInFlight = 0;
  #objectsInFlight = 0;
  #bytesInFlight = 0;
  #isDue = false;
  #cancelAlarm = (): void => {};

  /** An empty lane. */
  constructor({ guard, clock, waiting, onAwake }: StoreLaneOptions) {
    this.guard = guard;
    this.#allWaiting = waiting;
    this.#clock = clock;
    this.#onAwake = onAwake;
  }

  /** Bytes that are queued. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** Bytes that are queued or rest. */
  get waitingBytes(): number {
    return this.#queuedBytes + this.#restingBytes;
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
    return this.#queue.size === 0 && this.#resting.size === 0 && this.#batchesInFlight === 0;
  }

  /** What is queued, the oldest first. */
  queued(): Iterable<Unsaved> {
    return this.#queue.keys();
  }

  /** What rests and what is queued, the oldest first; removing meanwhile is allowed. */
  *waiting(): Generator<Unsaved> {
    yield* this.#resting.keys();
    yield* this.#queue.keys();
  }

  /** Whether the adapter can be given a batch without more than `maxBytes` being written to it. */
  hasRoomInFlight(maxBytes: number): boolean {
    if (this.#batchesInFlight === 0) return true;
    return this.#batchesInFlight < BATCHES_IN_FLIGHT &&
      this.#bytesInFlight <= maxBytes / BATCHES_IN_FLIGHT;
  }

  /** Puts an object into the queue. */
  queue(unsaved: Unsaved, attempts = 0): void {
    this.#queue.set(unsaved, attempts);
    this.#queuedBytes += bytesOf(unsaved);
    unsaved.lanes.add(this);
    this.#count(unsaved, 1);
  }

  /** Lets objects rest for some milliseconds; then they are queued, and to be written at once. */
  rest(objects: Iterable<Unsaved>, attempts: number, delayMs: number): void {
    const until = this.#clock.now() + delayMs;
    for (const unsaved of objects) {
      this.#resting.set(unsaved, { attempts, until });
      this.#restingBytes += bytesOf(unsaved);
      this.#count(unsaved, 1);
    }
    this.#setAlarm();
  }

  /** Has everything written that is queued now. */
  makeDue(): void {
    this.#isDue = this.#queue.size > 0;
  }

  /** Starts to write those of `objects` that are queued; returns them with their attempts. */
  take(objects: readonly Unsaved[]): Map<Unsaved, number> {
    const taken = new Map<Unsaved, number>();
    for (const unsaved of objects) {
      const attempts = this.#queue.get(unsaved);
      if (attempts === undefined) continue;
      this.#unqueue(unsaved);
      taken.set(unsaved, attempts);
      this.#bytesInFlight += bytesOf(unsaved);
    }
    if (taken.size > 0) this.#batchesInFlight++;
    this.#objectsInFlight += taken.size;
    return taken;
  }

  /** What was taken is not being written any more. */
  finish(taken: ReadonlyMap<Unsaved, number>): void {
    this.#batchesInFlight--;
    this.#objectsInFlight -= taken.size;
    for (const unsaved of taken.keys()) this.#bytesInFlight -= bytesOf(unsaved);
  }

  /** Takes an object out; returns whether it waited. */
  remove(unsaved: Unsaved): boolean {
    if (this.#unqueue(unsaved)) return true;
    if (!this.#resting.delete(unsaved)) return false;
    this.#restingBytes -= bytesOf(unsaved);
    this.#count(unsaved, -1);
    if (this.#resting.size === 0) this.#cancelAlarm();
    return true;
  }

  #unqueue(unsaved: Unsaved): boolean {
    if (!this.#queue.delete(unsaved)) return false;
    this.#queuedBytes -= bytesOf(unsaved);
    this.#count(unsaved, -1);
    if (this.#queue.size === 0) this.#isDue = false;
    return true;
  }

  #count(unsaved: Unsaved, sign: 1 | -1): void {
    const wasWaiting = unsaved.waiting > 0;
    unsaved.waiting += sign;
    if (wasWaiting === (unsaved.waiting > 0)) return;
    this.#allWaiting.objects += sign;
    this.#allWaiting.bytes += sign * bytesOf(unsaved);
  }

  #setAlarm(): void {
    this.#cancelAlarm();
    let until = Infinity;
    for (const rest of this.#resting.values()) until = Math.min(until, rest.until);
    if (until === Infinity) return;
    this.#cancelAlarm = this.#clock.schedule(() => this.#awake(), until - this.#clock.now());
  }

  #awake(): void {
    const now = this.#clock.now();
    for (const [unsaved, { attempts, until }] of this.#resting) {
      if (until > now) continue;
      this.remove(unsaved);
      this.queue(unsaved, attempts);
    }
    this.#setAlarm();
    this.makeDue();
    this.#onAwake();
  }
}

function bytesOf({ object }: Unsaved): number {
  return object.layout.byteLength;
}
