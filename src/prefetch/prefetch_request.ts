import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type {
  L1Cache,
  L1Lease,
  ReadReservation,
  StagedObject,
  WriteReservation,
} from "../l1/l1_cache.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import { ChunkTable } from "./chunk_table.ts";
import type { KeyGroup } from "./key_group.ts";
import type { LoadDecision } from "./load_decision.ts";
import type { MissReason } from "./miss_reason.ts";
import { neededSlots, usablePrefix } from "./plan.ts";

/** The longest available prefix, leased. */
export interface PrefetchResult {
  /** Number of chunks in the prefix. */
  readonly length: number;
  /** For each group, the leases of the chunks that the prefix needs, in order. */
  readonly leases: readonly (readonly L1Lease[])[];
  /** Number of the leased objects that were already in L1. */
  readonly l1Objects: number;
  /** Number of the leased objects that each adapter loaded, for this request or another one. */
  readonly loadedObjects: ReadonlyMap<AdapterGuard, number>;
  /** Whether the request was answered at its deadline. */
  readonly isAtDeadline: boolean;
  /** Why the prefix is not longer; `undefined` if it has all chunks. */
  readonly miss: Miss | undefined;
  /** The decision to compute the rest; only if that is why the prefix is not longer. */
  readonly decision: LoadDecision | undefined;
}

/** The first chunk that a request did not get. */
export interface Miss {
  /** Its index. */
  readonly chunk: number;
  /** Why it is missing. */
  readonly reason: MissReason;
}

/** One request: the states of its objects, and the leases on those that are resident. */
export class PrefetchRequest {
  readonly table: ChunkTable;
  /** Resolves with the result of the request. */
  readonly published: Promise<PrefetchResult>;
  readonly #l1: L1Cache;
  readonly #id: number;
  readonly #retains: (key: ObjectKey) => boolean;
  readonly #isLeasing: boolean;
  readonly #leases: (L1Lease | undefined)[];
  /** 1 for each object that was already in L1. */
  readonly #inL1: Uint8Array;
  /** Adapters that loaded objects since. */
  readonly #loaders = new Map<number, AdapterGuard>();
  readonly #answer = Promise.withResolvers<PrefetchResult>();
  readonly #listeners = new Set<() => void>();
  #isPublished = false;
  /** Where the prefix ends by a decision to compute the rest, and that decision. */
  #computed: { readonly from: number; readonly decision: LoadDecision } | undefined;

  /** Leases the objects that are in L1. */
  constructor(options: {
    readonly id: number;
    readonly groups: readonly KeyGroup[];
    readonly l1: L1Cache;
    readonly retains: (key: ObjectKey) => boolean;
    /** Whether the caller wants leases; otherwise objects are only loaded. */
    readonly isLeasing: boolean;
    /** Called when the request is no longer to load an object. */
    readonly onSettled: (request: PrefetchRequest, slot: number) => void;
  }) {
    const { id, groups, l1 } = options;
    this.table = new ChunkTable(groups, (slot) => options.onSettled(this, slot));
    this.published = this.#answer.promise;
    this.#l1 = l1;
    this.#id = id;
    this.#retains = options.retains;
    this.#isLeasing = options.isLeasing;
    this.#leases = new Array(this.table.size).fill(undefined);
    this.#inL1 = new Uint8Array(this.table.size);
    this.leaseResident();
    for (const slot of this.#leases.keys()) this.#inL1[slot] = Number(this.has(slot));
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

  /** Whether an object is leased. */
  has(slot: number): boolean {
    return this.#leases[slot] !== undefined;
  }

  /** Leases all objects that are in L1 by now. */
  leaseResident(): void {
    const { table } = this;
    const slots: number[] = [];
    for (let slot = 0; slot < table.size; slot++) {
      if (!this.has(slot) && this.#l1.has(table.key(slot))) slots.push(slot);
    }
    this.#keepAll(slots, this.#l1.reserveRead(slots.map((slot) => table.key(slot))));
  }

  /**
   * Leases an object that is in L1.
   *
   * @param from Where it comes from: `"L1"` if an engine wrote it, or the adapter that loaded it.
   * @returns Whether it was leased.
   */
  lease(slot: number, from?: "L1" | AdapterGuard): boolean {
    this.#keepAll([slot], this.#l1.reserveRead([this.table.key(slot)]));
    if (!this.has(slot)) return false;
    if (from === "L1") this.#inL1[slot] = 1;
    else if (from !== undefined) this.#loaders.set(slot, from);
    return true;
  }

  /** The adapter that loaded an object for this request. */
  loaderOf(slot: number): AdapterGuard | undefined {
    return this.#loaders.get(slot);
  }

  /** Shortens the prefix to end before a chunk, and ends the leases from there on. */
  narrow(end: number): void {
    if (this.#isPublished || end >= this.table.end) return;
    this.table.narrow(end);
    this.#release(this.table.size);
  }

  /** Ends the prefix before a chunk, because the rest is to be computed. */
  compute(from: number, decision: LoadDecision): void {
    if (this.#isPublished || from >= this.table.end) return;
    this.#computed = { from, decision };
    this.narrow(from);
  }

  /**
   * Ends the prefix before a slot for which there is no memory, unless leases behind it can be
   * ended to make room.
   */
  endBefore(slot: number): void {
    const chunk = this.table.chunkOf(slot);
    if (this.#lastLeased <= chunk) this.narrow(chunk);
  }

  /** Reserves memory for an object to be loaded, ending leases behind it if necessary. */
  reserve(slot: number): WriteReservation {
    const { table } = this;
    const key = table.key(slot);
    const options = { writer: `prefetch:${this.#id}`, transient: !this.#retains(key) };
    for (;;) {
      const [reservation] = this.#l1.reserveWrite([key], table.layout(slot), options);
      const last = this.#lastLeased;
      if (reservation === undefined) return { status: "device-lost" };
      if (!isFull(reservation) || last <= table.chunkOf(slot)) return reservation;
      this.narrow(last);
    }
  }

  /**
   * Makes objects that `adapter` loaded resident, and leases them if the request has not been
   * answered.
   *
   * @returns Synchronously where the device is known to have their memory.
   */
  admit(
    slots: readonly number[],
    staged: readonly StagedObject[],
    adapter: AdapterGuard,
  ): void | Promise<void> {
    const reservations = this.#l1.finishWriteAndReserveRead(staged);
    const keep = (all: readonly ReadReservation[]): void => this.#keepAll(slots, all, adapter);
    return reservations instanceof Promise ? reservations.then(keep) : keep(reservations);
  }

  /** Answers the request with the leased prefix, unless it has been answered. */
  publish(isAtDeadline = false): void {
    if (this.#isPublished) return;
    const { groups } = this.table;
    this.#dropInvalidLeases();
    this.leaseResident();
    const has = (g: number, chunk: number): boolean => this.has(chunk * groups.length + g);
    const length = usablePrefix(groups, this.table.end, has);
    const miss = this.#missBehind(length, isAtDeadline);
    const leases = groups.map((): L1Lease[] => []);
    const loadedObjects = new Map<AdapterGuard, number>();
    let l1Objects = 0;
    for (const slot of neededSlots(groups, length)) {
      leases[slot % groups.length]?.push(this.#leases[slot] as L1Lease);
      l1Objects += this.#inL1[slot] ?? 0;
      const loader = this.#loaders.get(slot);
      if (loader !== undefined) loadedObjects.set(loader, (loadedObjects.get(loader) ?? 0) + 1);
      if (this.#isLeasing) this.#leases[slot] = undefined;
    }
    for (const group of leases) this.#l1.touch(group.map(({ key }) => key));
    this.#end();
    const decision = miss?.reason === "computed" ? this.#computed?.decision : undefined;
    this.#answer.resolve({
      length,
      leases,
      l1Objects,
      loadedObjects,
      isAtDeadline,
      miss,
      decision,
    });
  }

  /** Rejects the request, unless it has been answered. */
  reject(reason: unknown): void {
    if (this.#isPublished) return;
    this.#end();
    this.#answer.reject(reason);
  }

  #end(): void {
    this.#isPublished = true;
    this.#release(0);
    for (const listener of this.#listeners) listener();
  }

  /** The first chunk behind a prefix that no longer prefix can do without, and why it is missing. */
  #missBehind(length: number, isAtDeadline: boolean): Miss | undefined {
    const { table } = this;
    if (length === table.groups[0]?.keys.length) return undefined;
    const missing = neededSlots(table.groups, length + 1).filter((slot) => !this.has(slot));
    const slot = missing.find((slot) => !table.isPossible(slot)) ?? missing[0] ?? 0;
    const chunk = table.chunkOf(slot);
    if (table.state(slot) === "blocked") return { chunk, reason: "blocked" };
    // Only a decision or a lack of memory ends a prefix before an object that may be had.
    const ended = this.#computed?.from === table.end ? "computed" : "no-room";
    const otherwise = chunk >= table.end ? ended : isAtDeadline ? "deadline" : "lost";
    return { chunk, reason: table.reason(slot) ?? otherwise };
  }

  /**
   * Keeps leases that can be part of the prefix; ends the others.
   *
   * @param adapter The adapter, if this request loaded the objects.
   */
  #keepAll(
    slots: readonly number[],
    reservations: readonly ReadReservation[],
    adapter?: AdapterGuard,
  ): void {
    const { table } = this;
    const others: L1Lease[] = [];
    for (const [i, reservation] of reservations.entries()) {
      if (reservation.status !== "success") continue;
      const { lease } = reservation;
      const slot = slots[i] as number;
      const isKept = !this.#isPublished && slot < table.size && !this.has(slot) &&
        isSameLayout(lease.layout, table.layout(slot));
      if (isKept) this.#leases[slot] = lease;
      else others.push(lease);
      if (adapter !== undefined) this.#loaders.set(slot, adapter);
      if (!isKept && adapter === undefined) continue;
      // Requests that share an object can lease it now, while this lease is there.
      if (table.state(slot) !== "resident") table.transition(slot, "resident");
    }
    if (others.length > 0) this.#l1.finishRead(others);
  }

  /** Drops leases that expired or whose device was lost. */
  #dropInvalidLeases(): void {
    if (this.#l1.areLeased(this.#leases.filter((lease) => lease !== undefined))) return;
    for (const [slot, lease] of this.#leases.entries()) {
      if (lease === undefined || this.#l1.isLeased(lease)) continue;
      this.#leases[slot] = undefined;
      this.table.transition(slot, "wanted");
    }
  }

  #release(fromSlot: number): void {
    const leases = this.#leases.splice(fromSlot).filter((lease) => lease !== undefined);
    if (leases.length > 0) this.#l1.finishRead(leases);
  }

  /** Last chunk with a lease; negative if there is none. */
  get #lastLeased(): number {
    return this.table.chunkOf(this.#leases.findLastIndex((lease) => lease !== undefined));
  }
}

/** Whether memory was refused because device memory or a quota is exhausted. */
export function isFull({ status }: WriteReservation): boolean {
  return status === "out-of-memory" || status === "quota-exceeded";
}

function isSameLayout(a: ObjectLayout, b: ObjectLayout): boolean {
  return a === b ||
    (a.byteLength === b.byteLength && a.fingerprint.toHex() === b.fingerprint.toHex());
}
