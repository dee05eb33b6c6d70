import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { MemoryRange } from "../memory/memory_device.ts";
import type { Allocation } from "../memory/slab_allocator.ts";
import type { L1Pin, StagedObject } from "./l1_types.ts";

/**
 * Who can find an object. One that was forgotten while it was written (`condemned`) or read
 * (`leaving`) is found by nobody, but its range is still in use.
 */
export type EntryState = "staged" | "condemned" | "resident" | "leaving" | "gone";

/** One object in device memory, and what keeps it there. */
export class L1Entry implements StagedObject {
  /** Its key. */
  readonly key: ObjectKey;
  /** Its layout. */
  readonly layout: ObjectLayout;
  /** Its room. */
  readonly allocation: Allocation;
  /** Who writes it. */
  readonly writer: string;
  /** Whether it leaves with its last reader. */
  isTemporary: boolean;
  /** Who can find it. */
  state: EntryState = "staged";
  /** The writer's lock while it is staged, then those of its readers. */
  locks = 1;
  /** When all of its locks expire. */
  lockExpiresAt: number;
  /** Grows when expired locks are discarded, so that a late release cannot take another's lock. */
  lockEpoch = 0;
  /** How often it is held. */
  holds = 0;
  /** Whether its key is protected; known while it is resident. */
  isProtected = false;
  /** Whether it is counted as one that may leave. */
  isIdle = false;

  /** An object that is being staged. */
  constructor(
    key: ObjectKey,
    layout: ObjectLayout,
    allocation: Allocation,
    options: { writer: string; isTemporary: boolean; lockExpiresAt: number },
  ) {
    this.key = key;
    this.layout = layout;
    this.allocation = allocation;
    this.writer = options.writer;
    this.isTemporary = options.isTemporary;
    this.lockExpiresAt = options.lockExpiresAt;
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
  mayLeave(now: number): boolean {
    return this.holds === 0 && !this.isProtected && !this.isLocked(now);
  }
}

/** A reader's lock of an object. */
export class EntryPin implements L1Pin {
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
