import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type {
  L1Cache,
  L1Lease,
  ReadReservation,
  StagedObject,
  WriteReservation,
} from "../l1/l1_cache.ts";
import { sealedBytes } from "../l2/object_trailer.ts";
import { firstNeeded, type KeyRow, usablePrefix } from "./key_rows.ts";

/** The longest prefix that could be had, leased. */
export interface PrefetchResult {
  /** How many chunks it has. */
  readonly length: number;
  /** For each row the leases of the chunks that are needed for it, in order. */
  readonly leases: readonly (readonly L1Lease[])[];
  /** How many of the leased objects were in L1 before. */
  readonly l1Objects: number;
}

/** Which objects a request needs from the adapters. */
export interface PrefetchPlan {
  /** How many chunks the prefix then has. */
  readonly length: number;
  /** The cells that are needed for it and are not leased. */
  readonly cells: readonly number[];
}

/** Room in L1 for the objects of one batch. */
export interface StagedBatch {
  /** The cells that have room. */
  readonly cells: readonly number[];
  /** Where each of them goes. */
  readonly staged: readonly StagedObject[];
  /** Whether there was room for all that are to be loaded. */
  readonly hasRoom: boolean;
  /** Whether device memory ended before the batch did. */
  readonly isOutOfMemory: boolean;
}

/**
 * One call of `prefetch`: which of its objects are leased so far, and whether the caller has its
 * answer. An object is addressed by its *cell*, `chunk * rows + row`: of cells in order, no later
 * one matters for a prefix that ends before an earlier one.
 */
export class PrefetchRequest {
  /** What is asked for. */
  readonly rows: readonly KeyRow[];
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
    readonly rows: readonly KeyRow[];
    readonly l1: L1Cache;
    readonly retains: (key: ObjectKey) => boolean;
    /** Whether the caller wants leases; else what is loaded is only to be there. */
    readonly isLeasing: boolean;
  }) {
    const { id, rows, l1 } = options;
    this.rows = rows;
    this.published = this.#answer.promise;
    this.#l1 = l1;
    this.#id = id;
    this.#retains = options.retains;
    this.#isLeasing = options.isLeasing;
    this.#end = rows[0]?.keys.length ?? 0;
    this.#leases = new Array(this.#end * rows.length).fill(undefined);
    for (const [r, { keys }] of rows.entries()) {
      for (const [chunk, reservation] of l1.reserveRead(keys).entries()) {
        const cell = chunk * rows.length + r;
        if (this.#keep(cell, reservation)) this.#inL1.add(cell);
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

  /** Key of a cell. */
  key(cell: number): ObjectKey {
    return this.#row(cell).keys[this.chunkOf(cell)] as ObjectKey;
  }

  /** Layout of a cell. */
  layout(cell: number): ObjectLayout {
    return this.#row(cell).layout;
  }

  /** Chunk of a cell. */
  chunkOf(cell: number): number {
    return Math.floor(cell / this.rows.length);
  }

  /** Bytes of an object as an adapter has it. */
  bytes(cell: number): number {
    return sealedBytes(this.key(cell), this.layout(cell));
  }

  /** Whether an object is leased. */
  has(cell: number): boolean {
    return this.#leases[cell] !== undefined;
  }

  /** Cells that can be part of the prefix and are not leased. */
  missing(): number[] {
    const cells: number[] = [];
    for (let cell = 0; cell < this.#end * this.rows.length; cell++) {
      if (this.#leases[cell] === undefined) cells.push(cell);
    }
    return cells;
  }

  /** What the longest prefix needs, if those for which `canHave` holds can be had. */
  plan(canHave: (cell: number) => boolean): PrefetchPlan {
    const { rows } = this;
    const length = usablePrefix(
      rows,
      this.#end,
      (r, chunk) => this.has(chunk * rows.length + r) || canHave(chunk * rows.length + r),
    );
    const cells: number[] = [];
    for (let cell = 0; cell < length * rows.length; cell++) {
      if (this.has(cell)) continue;
      if (this.chunkOf(cell) >= firstNeeded(this.#row(cell), length)) cells.push(cell);
    }
    return { length, cells };
  }

  /** Gives up everything from chunk `end` on. */
  narrow(end: number): void {
    if (this.#isPublished || end >= this.#end) return;
    this.#end = end;
    this.#release(end * this.rows.length);
  }

  /** Ends before an object for which there is no room, unless there are leases to give up for it. */
  endBefore(cell: number): void {
    if (this.#lastLeased <= this.chunkOf(cell)) this.narrow(this.chunkOf(cell));
  }

  /**
   * Reserves room for objects that can still be part of the prefix; leases those that came into L1
   * meanwhile. Where there is no room the prefix ends.
   */
  stage(batch: readonly number[]): StagedBatch {
    const writer = `prefetch:${this.#id}:${this.#batches++}`;
    const cells: number[] = [];
    const staged: StagedObject[] = [];
    let hasRoom = true;
    let isOutOfMemory = false;
    for (const cell of batch) {
      if (this.#isPublished || this.chunkOf(cell) >= this.#end) break;
      const reservation = this.#reserve(cell, writer);
      if (reservation?.status === "success") {
        cells.push(cell);
        staged.push(reservation.staged);
      } else if (reservation?.status === "key-not-writable") {
        this.lease(cell);
      } else {
        this.narrow(this.chunkOf(cell));
        hasRoom = false;
        isOutOfMemory = isFull(reservation);
        break;
      }
    }
    return { cells, staged, hasRoom, isOutOfMemory };
  }

  /**
   * Makes staged objects resident; they are leased if the caller still waits for them.
   *
   * @param onResident Called for each while it is sure to be there.
   * @returns At once where the device is known to have their memory.
   */
  admit(
    cells: readonly number[],
    staged: readonly StagedObject[],
    onResident: (cell: number) => void,
  ): void | Promise<void> {
    const keep = (reservations: readonly ReadReservation[]): void => {
      for (const [i, reservation] of reservations.entries()) {
        const cell = cells[i] as number;
        if (reservation.status === "success") onResident(cell);
        this.#keep(cell, reservation);
      }
    };
    const reservations = this.#l1.finishWriteAndReserveRead(staged);
    return reservations instanceof Promise ? reservations.then(keep) : keep(reservations);
  }

  /** Leases an object that is in L1. */
  lease(cell: number): boolean {
    const [reservation] = this.#l1.reserveRead([this.key(cell)]);
    return reservation !== undefined && this.#keep(cell, reservation);
  }

  /** Leases an object that an engine has written, and that the device has confirmed meanwhile. */
  leaseWritten(cell: number): void {
    if (this.lease(cell)) this.#inL1.add(cell);
  }

  /** Answers the caller, once: with the leased prefix, or with a reason why not. */
  publish(reason?: unknown): void {
    if (this.#isPublished) return;
    if (reason === undefined) this.#refreshLeases();
    const { rows } = this;
    const length = reason === undefined
      ? usablePrefix(rows, this.#end, (r, chunk) => this.has(chunk * rows.length + r))
      : 0;
    const leases = rows.map((row, r): L1Lease[] => {
      const needed: L1Lease[] = [];
      for (let chunk = firstNeeded(row, length); chunk < length; chunk++) {
        const cell = chunk * rows.length + r;
        const lease = this.#leases[cell];
        if (lease === undefined) continue;
        needed.push(lease);
        if (this.#isLeasing) this.#leases[cell] = undefined;
      }
      return needed;
    });
    this.#isPublished = true;
    for (const row of leases) this.#l1.touch(row.map(({ key }) => key));
    this.#release(0);
    for (const listener of this.#listeners) listener();
    if (reason !== undefined) return this.#answer.reject(reason);
    let l1Objects = 0;
    for (const cell of this.#inL1) {
      const chunk = this.chunkOf(cell);
      if (chunk < length && chunk >= firstNeeded(this.#row(cell), length)) l1Objects++;
    }
    this.#answer.resolve({ length, leases, l1Objects });
  }

  /** Reserves room for an object; if there is none, leases behind it are given up for it. */
  #reserve(cell: number, writer: string): WriteReservation | undefined {
    const key = this.key(cell);
    const options = { writer, transient: !this.#retains(key) };
    for (;;) {
      const [reservation] = this.#l1.reserveWrite([key], this.layout(cell), options);
      if (!isFull(reservation)) return reservation;
      const last = this.#lastLeased;
      if (last <= this.chunkOf(cell)) return reservation;
      this.narrow(last);
    }
  }

  /** Keeps a lease if it can be part of the prefix. */
  #keep(cell: number, reservation: ReadReservation): boolean {
    if (reservation.status !== "success") return false;
    const { lease } = reservation;
    const isWanted = !this.#isPublished && this.chunkOf(cell) < this.#end &&
      this.#leases[cell] === undefined && isSameLayout(lease.layout, this.layout(cell));
    if (isWanted) this.#leases[cell] = lease;
    else this.#l1.finishRead([lease]);
    return isWanted;
  }

  /**
   * Drops leases that are void, because locks expire and devices are lost, and leases what came into L1
   * without being waited for.
   */
  #refreshLeases(): void {
    if (!this.#l1.areLeased(this.#leases.filter((lease) => lease !== undefined))) {
      for (const [cell, lease] of this.#leases.entries()) {
        if (lease !== undefined && !this.#l1.isLeased(lease)) this.#leases[cell] = undefined;
      }
    }
    for (const cell of this.missing()) {
      if (this.#l1.has(this.key(cell))) this.lease(cell);
    }
  }

  #release(fromCell: number): void {
    const leases = this.#leases.splice(fromCell).filter((lease) => lease !== undefined);
    if (leases.length > 0) this.#l1.finishRead(leases);
  }

  /** The last chunk with a lease; negative if there is none. */
  get #lastLeased(): number {
    return this.chunkOf(this.#leases.findLastIndex((lease) => lease !== undefined));
  }

  #row(cell: number): KeyRow {
    return this.rows[cell % this.rows.length] as KeyRow;
  }
}

function isSameLayout(a: ObjectLayout, b: ObjectLayout): boolean {
  return a === b ||
    (a.byteLength === b.byteLength && a.fingerprint.toHex() === b.fingerprint.toHex());
}

function isFull(reservation: WriteReservation | undefined): boolean {
  return reservation?.status === "out-of-memory" || reservation?.status === "quota-exceeded";
}
