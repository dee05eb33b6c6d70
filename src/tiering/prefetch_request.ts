import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type {
  L1Cache,
  L1Lease,
  ReadReservation,
  StagedObject,
  WriteReservation,
} from "../l1/l1_cache.ts";
import { bytesWithTrailer } from "../l2/object_trailer.ts";
import { firstNeeded, type KeyGroup, usablePrefix } from "./key_rows.ts";

/** The longest prefix that could be had, leased. */
export interface PrefetchResult {
  /** How many chunks it has. */
  readonly length: number;
  /** For each group the leases of the chunks that are needed for it, in order. */
  readonly leases: readonly (readonly L1Lease[])[];
  /** How many of the leased objects were in L1 before. */
  readonly l1Objects: number;
}

/** Which objects a request needs from the adapters. */
export interface PrefetchPlan {
  /** How many chunks the prefix then has. */
  readonly length: number;
  /** The slots that are needed for it and are not leased. */
  readonly slots: readonly number[];
}

/** Room in L1 for the objects of one batch. */
export interface StagedBatch {
  /** The slots that have room. */
  readonly slots: readonly number[];
  /** Where each of them goes. */
  readonly staged: readonly StagedObject[];
  /** Whether there was room for all that are to be loaded. */
  readonly hasRoom: boolean;
  /** Whether device memory ended before the batch did. */
  readonly isOutOfMemory: boolean;
}

/**
 * One call of `prefetch`: which of its objects are leased so far, and whether the caller has its
 * answer. An object is addressed by its *slot*, `chunk * groups + group`: of slots in order, no later
 * one matters for a prefix that ends before an earlier one.
 */
export class PrefetchRequest {
  /** What is asked for. */
  readonly groups: readonly KeyGroup[];
  /** Resolves once, with what the caller gets. */
  readonly published: Promise<PrefetchResult>;
  readonly #l1: L1Cache;
  readonly #id: number;
  readonly #retains: (key: ObjectKey) => boolean;
  readonly #isLeasing: boolean;
  readonly #leases: (L1Lease | undefined)[];
  readonly #inL1 = new Set<number>();
  readonly #answer = Promise.withResolvers<PrefetchResult>();
  readonly #listeners = new Set<() => void>();
  #isPublished = false;
  #batches = 0;
  /** No chunk from here on can be part of the prefix. */
  #end: number;

  /** Leases what is in L1. */
  constructor(options: {
    readonly id: number;
    readonly groups: readonly KeyGroup[];
    readonly l1: L1Cache;
    readonly retains: (key: ObjectKey) => boolean;
    /** Whether the caller wants leases; else what is loaded is only to be there. */
    readonly isLeasing: boolean;
  }) {
    const { id, groups, l1 } = options;
    this.groups = groups;
    this.published = this.#answer.promise;
    this.#l1 = l1;
    this.#id = id;
    this.#retains = options.retains;
    this.#isLeasing = options.isLeasing;
    this.#end = groups[0]?.keys.length ?? 0;
    this.#leases = new Array(this.#end * groups.length).fill(undefined);
    for (const [r, { keys }] of groups.entries()) {
      for (const [chunk, reservation] of l1.reserveRead(keys).entries()) {
        const slot = chunk * groups.length + r;
        if (this.#keep(slot, reservation)) this.#inL1.add(slot);
      }
    }
  }

  /** Whether the caller has its answer. */
  get isPublished(): boolean {
    return this.#isPublished;
  }

  /** Calls `listener` when the caller gets its answer; returns a function that ends that. */
  onPublished(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** No chunk from here on can be part of the prefix. */
  get end(): number {
    return this.#end;
  }

  /** Key of a slot. */
  key(slot: number): ObjectKey {
    return this.#group(slot).keys[this.chunkOf(slot)] as ObjectKey;
  }

  /** Layout of a slot. */
  layout(slot: number): ObjectLayout {
    return this.#group(slot).layout;
  }

  /** Chunk of a slot. */
  chunkOf(slot: number): number {
    return Math.floor(slot / this.groups.length);
  }

  /** Bytes of an object as an adapter has it. */
  bytes(slot: number): number {
    return bytesWithTrailer(this.key(slot), this.layout(slot));
  }

  /** Whether an object is leased. */
  has(slot: number): boolean {
    return this.#leases[slot] !== undefined;
  }

  /** Cells that can be part of the prefix and are not leased. */
  missing(): number[] {
    const slots: number[] = [];
    for (let slot = 0; slot < this.#end * this.groups.length; slot++) {
      if (this.#leases[slot] === undefined) slots.push(slot);
    }
    return slots;
  }

  /** What the longest prefix needs, if those for which `canHave` holds can be had. */
  plan(canHave: (slot: number) => boolean): PrefetchPlan {
    const { groups } = this;
    const length = usablePrefix(
      groups,
      this.#end,
      (r, chunk) => this.has(chunk * groups.length + r) || canHave(chunk * groups.length + r),
    );
    const slots: number[] = [];
    for (let slot = 0; slot < length * groups.length; slot++) {
      if (this.has(slot)) continue;
      if (this.chunkOf(slot) >= firstNeeded(this.#group(slot), length)) slots.push(slot);
    }
    return { length, slots };
  }

  /** Gives up everything from chunk `end` on. */
  narrow(end: number): void {
    if (this.#isPublished || end >= this.#end) return;
    this.#end = end;
    this.#release(end * this.groups.length);
  }

  /** Ends before an object for which there is no room, unless there are leases to give up for it. */
  endBefore(slot: number): void {
    if (this.#lastLeased <= this.chunkOf(slot)) this.narrow(this.chunkOf(slot));
  }

  /**
   * Reserves room for objects that can still be part of the prefix; leases those that came into L1
   * meanwhile. Where there is no room the prefix ends.
   */
  stage(batch: readonly number[]): StagedBatch {
    const writer = `prefetch:${this.#id}:${this.#batches++}`;
    const slots: number[] = [];
    const staged: StagedObject[] = [];
    let hasRoom = true;
    let isOutOfMemory = false;
    for (const slot of batch) {
      if (this.#isPublished || this.chunkOf(slot) >= this.#end) break;
      const reservation = this.#reserve(slot, writer);
      if (reservation?.status === "success") {
        slots.push(slot);
        staged.push(reservation.staged);
      } else if (reservation?.status === "already-present") {
        this.lease(slot);
      } else {
        this.narrow(this.chunkOf(slot));
        hasRoom = false;
        isOutOfMemory = isFull(reservation);
        break;
      }
    }
    return { slots, staged, hasRoom, isOutOfMemory };
  }

  /**
   * Makes staged objects resident; they are leased if the caller still waits for them.
   *
   * @param onResident Called for each while it is sure to be there.
   * @returns At once where the device is known to have their memory.
   */
  admit(
    slots: readonly number[],
    staged: readonly StagedObject[],
    onResident: (slot: number) => void,
  ): void | Promise<void> {
    const keep = (reservations: readonly ReadReservation[]): void => {
      for (const [i, reservation] of reservations.entries()) {
        const slot = slots[i] as number;
        if (reservation.status === "success") onResident(slot);
        this.#keep(slot, reservation);
      }
    };
    const reservations = this.#l1.finishWriteAndReserveRead(staged);
    return reservations instanceof Promise ? reservations.then(keep) : keep(reservations);
  }

  /** Leases an object that is in L1. */
  lease(slot: number): boolean {
    const [reservation] = this.#l1.reserveRead([this.key(slot)]);
    return reservation !== undefined && this.#keep(slot, reservation);
  }

  /** Leases an object that an engine has written, and that the device has confirmed meanwhile. */
  leaseWritten(slot: number): void {
    if (this.lease(slot)) this.#inL1.add(slot);
  }

  /** Answers the caller, once: with the leased prefix, or with a reason why not. */
  publish(reason?: unknown): void {
    if (this.#isPublished) return;
    if (reason === undefined) this.#refreshLeases();
    const { groups } = this;
    const length = reason === undefined
      ? usablePrefix(groups, this.#end, (r, chunk) => this.has(chunk * groups.length + r))
      : 0;
    const leases = groups.map((group, r): L1Lease[] => {
      const needed: L1Lease[] = [];
      for (let chunk = firstNeeded(group, length); chunk < length; chunk++) {
        const slot = chunk * groups.length + r;
        const lease = this.#leases[slot];
        if (lease === undefined) continue;
        needed.push(lease);
        if (this.#isLeasing) this.#leases[slot] = undefined;
      }
      return needed;
    });
    this.#isPublished = true;
    for (const group of leases) this.#l1.touch(group.map(({ key }) => key));
    this.#release(0);
    for (const listener of this.#listeners) listener();
    if (reason !== undefined) return this.#answer.reject(reason);
    let l1Objects = 0;
    for (const slot of this.#inL1) {
      const chunk = this.chunkOf(slot);
      if (chunk < length && chunk >= firstNeeded(this.#group(slot), length)) l1Objects++;
    }
    this.#answer.resolve({ length, leases, l1Objects });
  }

  /** Reserves room for an object; if there is none, leases behind it are given up for it. */
  #reserve(slot: number, writer: string): WriteReservation | undefined {
    const key = this.key(slot);
    const options = { writer, transient: !this.#retains(key) };
    for (;;) {
      const [reservation] = this.#l1.reserveWrite([key], this.layout(slot), options);
      if (!isFull(reservation)) return reservation;
      const last = this.#lastLeased;
      if (last <= this.chunkOf(slot)) return reservation;
      this.narrow(last);
    }
  }

  /** Keeps a lease if it can be part of the prefix. */
  #keep(slot: number, reservation: ReadReservation): boolean {
    if (reservation.status !== "success") return false;
    const { lease } = reservation;
    const isWanted = !this.#isPublished && this.chunkOf(slot) < this.#end &&
      this.#leases[slot] === undefined && isSameLayout(lease.layout, this.layout(slot));
    if (isWanted) this.#leases[slot] = lease;
    else this.#l1.finishRead([lease]);
    return isWanted;
  }

  /**
   * Drops leases that are void, because locks expire and devices are lost, and leases what came into L1
   * without being waited for.
   */
  #refreshLeases(): void {
    if (!this.#l1.areLeased(this.#leases.filter((lease) => lease !== undefined))) {
      for (const [slot, lease] of this.#leases.entries()) {
        if (lease !== undefined && !this.#l1.isLeased(lease)) this.#leases[slot] = undefined;
      }
    }
    for (const slot of this.missing()) {
      if (this.#l1.has(this.key(slot))) this.lease(slot);
    }
  }

  #release(fromSlot: number): void {
    const leases = this.#leases.splice(fromSlot).filter((lease) => lease !== undefined);
    if (leases.length > 0) this.#l1.finishRead(leases);
  }

  /** The last chunk with a lease; negative if there is none. */
  get #lastLeased(): number {
    return this.chunkOf(this.#leases.findLastIndex((lease) => lease !== undefined));
  }

  #group(slot: number): KeyGroup {
    return this.groups[slot % this.groups.length] as KeyGroup;
  }
}

function isSameLayout(a: ObjectLayout, b: ObjectLayout): boolean {
  return a === b ||
    (a.byteLength === b.byteLength && a.fingerprint.toHex() === b.fingerprint.toHex());
}

function isFull(reservation: WriteReservation | undefined): boolean {
  return reservation?.status === "out-of-memory" || reservation?.status === "quota-exceeded";
}
