import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { MemoryRange } from "../memory/memory_device.ts";
import type { Allocation } from "../memory/slab_allocator.ts";
import type { L1Lease, StagedObject } from "./l1_types.ts";
import type { Queued, RankQueue } from "./rank_queue.ts";

/**
 * Where an object is on its way through L1:
 *
 * - `staged`: its writer fills it; only the writer knows it.
 * - `filling`: its writer has finished, but the device has not said yet that it takes the work that
 *   fills it. Nobody can read it; a match may wait for it.
 * - `resident`: it can be found.
 * - `condemned`: it was forgotten while it was staged; its range is in use until its writer ends.
 * - `leaving`: it was forgotten while it was read; its range is in use until its readers end.
 * - `gone`: its range is free.
 */
export type EntryState =
  | "staged"
  | "filling"
  | "resident"
  | "doomed-staged"
  | "doomed-resident"
  | "gone";

/** The states that may follow each state. */
const NEXT_STATES: Readonly<Record<EntryState, readonly EntryState[]>> = {
  staged: ["filling", "resident", "doomed-staged", "gone"],
  filling: ["resident", "gone"],
  resident: ["doomed-resident", "gone"],
  "doomed-staged": ["gone"],
  "doomed-resident": ["gone"],
  gone: [],
};

/** What the objects under one cache salt take, and which of them may leave. */
export interface SaltShare {
  /** Bytes of objects that are staged, filling and resident. */
  bytes: number;
  /** Those that may leave. */
  readonly idle: RankQueue<L1Entry>;
}

/** One object in device memory, and what keeps it there. */
export class L1Entry implements StagedObject, Queued {
  /** Its key. */
  readonly key: ObjectKey;
  /** Its layout. */
  readonly layout: ObjectLayout;
  /** Its room. */
  readonly allocation: Allocation;
  /** Who writes it. */
  readonly writer: string;
  /** What the objects of its salt take. */
  readonly share: SaltShare;
  /** Whether it leaves with its last reader. */
  isTransient: boolean;
  /** The writer's lock until it is resident, then those of its readers. */
  locks = 1;
  /** When all of its locks expire. */
  lockExpiresAt: number;
  /** Whether its locks have expired, so that its room may be taken; never of a resident one. */
  isExpired = false;
  /** Grows when expired locks are discarded, so that a late release cannot take another's lock. */
  lockEpoch = 0;
  /** How often it is held. */
  dirtyMarks = 0;
  /** Whether its key is protected; known while it is resident. */
  isPinned = false;
  /** Whether it is counted as one that may leave. */
  isIdle = false;
  /** Of objects that may leave, the lowest rank leaves first. */
  rank = 0;
  /** Resolves when it is not `filling` any more; set while it is. */
  filled: Promise<void> | undefined;
  /** The queues that it is in. */
  queues = 0;
  #state: EntryState = "staged";

  /** An object that is being staged. */
  constructor(
    key: ObjectKey,
    layout: ObjectLayout,
    allocation: Allocation,
    share: SaltShare,
    options: { writer: string; isTransient: boolean; lockExpiresAt: number },
  ) {
    this.key = key;
    this.layout = layout;
    this.allocation = allocation;
    this.share = share;
    this.writer = options.writer;
    this.isTransient = options.isTransient;
    this.lockExpiresAt = options.lockExpiresAt;
  }

  /** Where it is on its way. */
  get state(): EntryState {
    return this.#state;
  }

  /**
   * Goes on to another state; only its table calls this.
   *
   * @throws {Error} If that state does not follow.
   */
  proceedTo(state: EntryState): void {
    if (!NEXT_STATES[this.#state].includes(state)) {
      throw new Error(`An object that is ${this.#state} cannot become ${state}: this is a bug`);
    }
    this.#state = state;
  }

  /** Where its bytes lie. */
  get range(): MemoryRange {
    return this.allocation;
  }

  /** Bytes that it takes from the memory. */
  get bytes(): number {
    return this.allocation.reservedBytes;
  }

  /** Whether a writer or a reader has a live lock. */
  isLocked(now: number): boolean {
    return this.locks > 0 && now < this.lockExpiresAt;
  }

  /** Voids locks that have expired. */
  discardLocks(): void {
    this.locks = 0;
    this.lockEpoch++;
  }

  /** Whether it may be evicted. */
  isEvictable(now: number): boolean {
    return this.dirtyMarks === 0 && !this.isPinned && !this.isLocked(now);
  }
}

/** A reader's lock of an object. */
export class EntryLease implements L1Lease {
  /** The object. */
  readonly entry: L1Entry;
  /** The epoch of its locks that this one belongs to. */
  readonly epoch: number;
  /** Whether it was given up. */
  isReleased = false;

  /** Belongs to the locks that the object has now. */
  constructor(entry: L1Entry) {
    this.entry = entry;
    this.epoch = entry.lockEpoch;
  }

  /** Its key. */
  get key(): ObjectKey {
    return this.entry.key;
  }

  /** Its layout. */
  get layout(): ObjectLayout {
    return this.entry.layout;
  }

  /** Where its bytes lie. */
  get range(): MemoryRange {
    return this.entry.range;
  }

  /** Whether it protects its object. */
  isLive(now: number): boolean {
    const { entry } = this;
    return !this.isReleased && entry.state !== "gone" && this.epoch === entry.lockEpoch &&
      entry.isLocked(now);
  }
}
