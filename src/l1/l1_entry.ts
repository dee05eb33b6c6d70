import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { MemoryRange } from "../memory/memory_device.ts";
import type { Allocation } from "../memory/slab_allocator.ts";
import type { L1Lease, StagedObject } from "./l1_types.ts";
import { Place } from "../policies/place.ts";
import type { VictimQueue } from "../policies/victim_queue.ts";

/**
 * State of an object in L1:
 *
 * - `staged`: its writer is filling it; it is visible only to the writer.
 * - `filling`: its writer has finished, but the device has not confirmed the work that fills it. It
 *   cannot be read yet; a match may wait for it.
 * - `resident`: it can be found and leased.
 * - `doomed-staged`: forgotten while staged; its range is freed when its writer finishes.
 * - `doomed-resident`: forgotten while leased; its range is freed when its last lease ends.
 * - `gone`: its range is free.
 */
export type EntryState =
  | "staged"
  | "filling"
  | "resident"
  | "doomed-staged"
  | "doomed-resident"
  | "gone";

/** Allowed transitions. */
const NEXT_STATES: Readonly<Record<EntryState, readonly EntryState[]>> = {
  staged: ["filling", "resident", "doomed-staged", "gone"],
  filling: ["resident", "gone"],
  resident: ["doomed-resident", "gone"],
  "doomed-staged": ["gone"],
  "doomed-resident": ["gone"],
  gone: [],
};

/** Objects under one cache salt: the bytes they occupy and those that can be evicted. */
export interface SaltShare {
  /** Bytes of its staged, filling and resident objects. */
  bytes: number;
  /** Evictable objects, in eviction order. */
  readonly idle: VictimQueue<L1Entry>;
}

/** Bytes of the staged, filling and resident objects of one model. */
export interface ModelShare {
  bytes: number;
}

/** One object in device memory, with its state, locks and marks. */
export class L1Entry extends Place implements StagedObject {
  readonly key: ObjectKey;
  readonly layout: ObjectLayout;
  /** Memory that it occupies. */
  readonly allocation: Allocation;
  readonly writer: string;
  readonly share: SaltShare;
  readonly modelShare: ModelShare;
  /** Whether it leaves L1 when its last lease ends. */
  isTransient: boolean;
  /** Number of locks: the writer's until it is resident, then one for each lease. */
  locks = 1;
  /** Time at which all of its locks expire, in milliseconds of the clock. */
  lockExpiresAt: number;
  /**
   * Whether its write lock expired, so that its memory may be reclaimed. Never set while it is
   * resident.
   */
  isExpired = false;
  /**
   * Incremented when expired locks are discarded, so that releasing an old lease cannot release a
   * newer one.
   */
  lockEpoch = 0;
  /** Number of dirty marks; it cannot be evicted while there are any. */
  dirtyMarks = 0;
  /** Whether its key is pinned; maintained only while it is resident. */
  isPinned = false;
  /** Whether it is in the queue of evictable objects. */
  isIdle = false;
  /** Resolves when it leaves the `filling` state; set only in that state. */
  filled: Promise<void> | undefined;
  #state: EntryState = "staged";

  /** Creates a staged object. */
  constructor(
    key: ObjectKey,
    layout: ObjectLayout,
    allocation: Allocation,
    { share, modelShare }: { share: SaltShare; modelShare: ModelShare },
    options: { writer: string; isTransient: boolean; lockExpiresAt: number },
  ) {
    super();
    this.key = key;
    this.layout = layout;
    this.allocation = allocation;
    this.share = share;
    this.modelShare = modelShare;
    this.writer = options.writer;
    this.isTransient = options.isTransient;
    this.lockExpiresAt = options.lockExpiresAt;
  }

  get state(): EntryState {
    return this.#state;
  }

  /**
   * Moves to another state. Called only by its table.
   *
   * @throws {Error} If the transition is not allowed.
   */
  proceedTo(state: EntryState): void {
    if (!NEXT_STATES[this.#state].includes(state)) {
      throw new Error(`An object that is ${this.#state} cannot become ${state}: this is a bug`);
    }
    this.#state = state;
  }

  /** Location of its bytes. */
  get range(): MemoryRange {
    return this.allocation;
  }

  /** Bytes that it reserves in device memory. */
  get bytes(): number {
    return this.allocation.reservedBytes;
  }

  /** Whether a writer or a reader has a valid lock. */
  isLocked(now: number): boolean {
    return this.locks > 0 && now < this.lockExpiresAt;
  }

  discardLocks(): void {
    this.locks = 0;
    this.lockEpoch++;
  }

  isEvictable(now: number): boolean {
    return this.dirtyMarks === 0 && !this.isPinned && !this.isLocked(now);
  }
}

export class EntryLease implements L1Lease {
  readonly entry: L1Entry;
  /** Lock epoch of the entry in which the lease was taken. */
  readonly epoch: number;
  isReleased = false;

  /** Takes the lease in the entry's current lock epoch. */
  constructor(entry: L1Entry) {
    this.entry = entry;
    this.epoch = entry.lockEpoch;
  }

  get key(): ObjectKey {
    return this.entry.key;
  }

  get layout(): ObjectLayout {
    return this.entry.layout;
  }

  /** Location of its bytes. */
  get range(): MemoryRange {
    return this.entry.range;
  }

  /** Whether the lease still protects its object. */
  isLive(now: number): boolean {
    const { entry } = this;
    return !this.isReleased && entry.state !== "gone" && this.epoch === entry.lockEpoch &&
      entry.isLocked(now);
  }
}
