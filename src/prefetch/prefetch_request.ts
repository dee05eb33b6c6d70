import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type {
  L1Cache,
  L1Lease,
  ReadReservation,
  StagedObject,
  WriteReservation,
} from "../l1/l1_cache.ts";
import { bytesWithTrailer } from "../adapter/object_trailer.ts";
import { firstNeeded, type KeyGroup, usablePrefix } from "./key_rows.ts";

/** The longest available prefix, leased. */
export interface PrefetchResult {
  /** Number of chunks in the prefix. */
  readonly length: number;
  /** For each group, the leases of the chunks that the prefix needs, in order. */
  readonly leases: readonly (readonly L1Lease[])[];
  /** Number of the leased objects that were already in L1. */
  readonly l1Objects: number;
}

/** Objects that a request needs from the adapters. */
export interface PrefetchPlan {
  /** Number of chunks in the prefix once they are loaded. */
  readonly length: number;
  /** Slots that the prefix needs and that are not leased. */
  readonly slots: readonly number[];
}

/** Memory reserved in L1 for one batch. */
export interface StagedBatch {
  /** Slots with reserved memory. */
  readonly slots: readonly number[];
  /** Reserved memory, one entry for each slot. */
  readonly staged: readonly StagedObject[];
  /** Whether every object to be loaded got memory. */
  readonly hasRoom: boolean;
  /** Whether device memory or a quota was exhausted. */
  readonly isOutOfMemory: boolean;
}

/**
 * State of one request: which of its objects are leased, and whether it has been answered. Each
 * object has a *slot*, `chunk * groups + group`: in slot order, no later object matters for a
 * prefix that ends before an earlier one.
 */
export class PrefetchRequest {
  readonly groups: readonly KeyGroup[];
  /** Resolves with the result of the request. */
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
  /** Chunk from which on no object can be part of the prefix. */
  #end: number;

  /** Leases the objects that are in L1. */
  constructor(options: {
    readonly id: number;
    readonly groups: readonly KeyGroup[];
    readonly l1: L1Cache;
    readonly retains: (key: ObjectKey) => boolean;
    /** Whether the caller wants leases; otherwise objects are only loaded. */
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
    for (const [g, { keys }] of groups.entries()) {
      for (const [chunk, reservation] of l1.reserveRead(keys).entries()) {
        const slot = chunk * groups.length + g;
        if (this.#keep(slot, reservation)) this.#inL1.add(slot);
      }
    }
  }

  /** Whether the request has been answered. */
  get isPublished(): boolean {
    return this.#isPublished;
  }

  /**
   * Calls `listener` when the request is answered.
   *
   * @returns A function that removes the listener.
   */
  onPublished(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Chunk from which on no object can be part of the prefix. */
  get end(): number {
    return this.#end;
  }

  key(slot: number): ObjectKey {
    return this.#group(slot).keys[this.chunkOf(slot)] as ObjectKey;
  }

  layout(slot: number): ObjectLayout {
    return this.#group(slot).layout;
  }

  /** Chunk of a slot. */
  chunkOf(slot: number): number {
    return Math.floor(slot / this.groups.length);
  }

  /** Bytes of an object as an adapter stores it, trailer included. */
  bytes(slot: number): number {
    return bytesWithTrailer(this.key(slot), this.layout(slot));
  }

  has(slot: number): boolean {
    return this.#leases[slot] !== undefined;
  }

  /** Slots that can be part of the prefix and are not leased. */
  missing(): number[] {
    const slots: number[] = [];
    for (let slot = 0; slot < this.#end * this.groups.length; slot++) {
      if (this.#leases[slot] === undefined) slots.push(slot);
    }
    return slots;
  }

  /**
   * Plans the longest prefix, assuming that the slots for which `canHave` returns `true` can be
   * loaded.
   */
  plan(canHave: (slot: number) => boolean): PrefetchPlan {
    const { groups } = this;
    const length = usablePrefix(
      groups,
      this.#end,
      (g, chunk) => this.has(chunk * groups.length + g) || canHave(chunk * groups.length + g),
    );
    const slots: number[] = [];
    for (let slot = 0; slot < length * groups.length; slot++) {
      if (this.has(slot)) continue;
      if (this.chunkOf(slot) >= firstNeeded(this.#group(slot), length)) slots.push(slot);
    }
    return { length, slots };
  }

  /** Shortens the prefix to end before chunk `end`. */
  narrow(end: number): void {
    if (this.#isPublished || end >= this.#end) return;
    this.#end = end;
    this.#release(end * this.groups.length);
  }

  /**
   * Ends the prefix before a slot for which there is no memory, unless leases behind it can be
   * ended to make room.
   */
  endBefore(slot: number): void {
    if (this.#lastLeased <= this.chunkOf(slot)) this.narrow(this.chunkOf(slot));
  }

  /**
   * Reserves memory for objects that can still be part of the prefix, and leases those that have
   * become resident in the meantime. The prefix ends at the first object without memory.
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
   * Makes staged objects resident, and leases them if the request has not been answered.
   *
   * @param onResident Called for each object while it is guaranteed to be resident.
   * @returns Synchronously where the device is known to have their memory.
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

  /**
   * Leases an object that is in L1.
   *
   * @returns Whether it was leased.
   */
  lease(slot: number): boolean {
    const [reservation] = this.#l1.reserveRead([this.key(slot)]);
    return reservation !== undefined && this.#keep(slot, reservation);
  }

  /**
   * Leases an object that an engine wrote and the device has confirmed since the request started.
   */
  leaseWritten(slot: number): void {
    if (this.lease(slot)) this.#inL1.add(slot);
  }

  /** Answers the request once: with the leased prefix, or by rejecting with `reason`. */
  publish(reason?: unknown): void {
    if (this.#isPublished) return;
    if (reason === undefined) this.#refreshLeases();
    const { groups } = this;
    const length = reason === undefined
      ? usablePrefix(groups, this.#end, (g, chunk) => this.has(chunk * groups.length + g))
      : 0;
    const leases = groups.map((group, g): L1Lease[] => {
      const needed: L1Lease[] = [];
      for (let chunk = firstNeeded(group, length); chunk < length; chunk++) {
        const slot = chunk * groups.length + g;
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

  /** Reserves memory for an object, ending leases behind it if necessary. */
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

  /**
   * Keeps a lease that can be part of the prefix; ends any other.
   *
   * @returns Whether it was kept.
   */
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
   * Drops invalid leases, which expired or whose device was lost, and leases objects that became
   * resident without being waited for.
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

  /** Last chunk with a lease; negative if there is none. */
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
