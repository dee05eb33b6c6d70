import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { DeviceAnswer } from "../memory/memory_device.ts";
import { type Allocation, bytesTaken } from "../memory/slab_allocator.ts";
import { EvictionPlanner } from "./eviction_planner.ts";
import { L1Entry } from "./l1_entry.ts";
import type { L1Failure } from "./l1_objects.ts";
import { L1Reads } from "./l1_reads.ts";
import type {
  L1Status,
  ReadReservation,
  ReserveWriteOptions,
  StagedObject,
  WriteReservation,
  WrittenObject,
} from "./l1_types.ts";

/** What happens when finished objects become resident. */
interface FinishOptions {
  /** Whether listeners are told to store them in the adapters. */
  readonly isNew: boolean;
  /** Called when they are resident, before listeners are notified. */
  readonly onAdmitted?: (statuses: readonly L1Status[]) => void;
}

/**
 * Write path of an L1. A finished object becomes resident only when the device has confirmed both
 * its memory and the work that fills it: immediately where the device answers immediately. This
 * holds for every way into L1.
 */
export class L1Writes extends L1Reads {
  protected readonly writeTtlMs: number = this.options.writeTtlMs ?? 600_000;
  readonly #planner = new EvictionPlanner(this.table, this.options.quotaOf);
  /** Fills that the device has not confirmed yet. */
  readonly #fillings = new Set<PromiseWithResolvers<void>>();
  /** Counters. */
  protected readonly counters = {
    outOfMemoryCount: 0,
    quotaExceededCount: 0,
    unfilledCount: 0,
    writtenObjects: 0,
    writtenBytes: 0,
  };

  /**
   * Reserves memory for objects and locks it for writing, evicting other objects as needed. Either
   * every writable key gets a range or none does (`out-of-memory`, `quota-exceeded`). Nothing is
   * evicted for a batch that would not fit even if every candidate were evicted, fragmentation
   * aside, and no object named by the batch is evicted. A key named twice gets one range.
   */
  reserveWrite(
    keys: readonly ObjectKey[],
    layout: ObjectLayout,
    { writer = "store", transient = false }: ReserveWriteOptions = {},
  ): WriteReservation[] {
    const { now, table } = this;
    if (this.isLost) return keys.map(() => ({ status: "device-lost" }));
    const named = new Set<string>();
    const isWritable = keys.map((key) => {
      if (named.has(key.id)) return false;
      named.add(key.id);
      return this.#isWritable(key, writer, now);
    });
    const staged: L1Entry[] = [];
    const reservations: WriteReservation[] = [];
    let failure = this.#makeRoom(keys.filter((_, i) => isWritable[i]), layout, named, now);
    const lock = { writer, isTransient: transient, lockExpiresAt: now + this.writeTtlMs };
    let evictions: Generator<void, void> | undefined;
    for (let i = 0; i < keys.length && failure === null; i++) {
      if (isWritable[i] !== true) {
        reservations.push({ status: "already-present" });
        continue;
      }
      let allocation = table.allocator.allocate(layout.byteLength);
      if (allocation === null) {
        evictions ??= this.#evictions(named, now);
        allocation = this.#allocate(layout.byteLength, evictions);
      }
      if (allocation === null) {
        failure = "out-of-memory";
        break;
      }
      const entry = table.stage(keys[i] as ObjectKey, layout, allocation, lock);
      staged.push(entry);
      reservations.push({ status: "success", staged: entry });
    }
    evictions?.return();
    if (failure !== null) {
      if (failure === "out-of-memory") this.counters.outOfMemoryCount++;
      else if (failure === "quota-exceeded") this.counters.quotaExceededCount++;
      for (const entry of staged) table.discard(entry);
    }
    this.notifyRemoved();
    return failure === null ? reservations : keys.map(() => ({ status: failure }));
  }

  /**
   * Finishes the writing of staged objects, given in prefix order. They become resident, and
   * listeners are told to store them, when the device has confirmed their memory and the work that
   * fills them; if both are known already, before the call returns. If the device did not execute
   * that work, they are discarded without ever having been visible. Where another writer was
   * faster, the staged copy is dropped, since the bytes are the same.
   *
   * @param isFilled Whether the device executes the work that fills them.
   */
  finishWrite(objects: readonly StagedObject[], isFilled: DeviceAnswer = true): L1Status[] {
    return this.#finish(objects, isFilled, { isNew: true }).statuses;
  }

  #finish(
    objects: readonly StagedObject[],
    isFilled: DeviceAnswer,
    options: FinishOptions,
  ): { statuses: L1Status[]; filled?: Promise<void> } {
    const { now, table } = this;
    const answer = this.#answerFor(objects, isFilled);
    const filling = typeof answer === "boolean" ? undefined : Promise.withResolvers<void>();
    this.#rank(objects);
    const entries: L1Entry[] = [];
    const statuses = objects.map((object): L1Status => {
      if (this.isLost) return "device-lost";
      const entry = this.#stagedBy(object);
      if (entry === undefined) return "key-not-exist";
      // The range of an expired writer may already belong to another object.
      if (!entry.isLocked(now)) return "key-in-wrong-state";
      if (filling === undefined) {
        if (this.#admit(entry, answer === true)) entries.push(entry);
      } else if (this.#isAbsent(entry.key)) {
        table.startFilling(entry, filling.promise);
        entries.push(entry);
      } else table.discard(entry);
      return "success";
    });
    if (filling === undefined || typeof answer === "boolean") {
      this.#notify(entries, statuses, options);
      return { statuses };
    }
    this.#fillings.add(filling);
    const settle = (isTrue: boolean): void => {
      if (!this.#fillings.delete(filling)) return;
      // An entry may have been forgotten, lost with its slab, or expired in the meantime.
      const left = entries.filter(({ state }) => state === "filling");
      this.#notify(left.filter((entry) => this.#admit(entry, isTrue)), statuses, options);
      filling.resolve();
    };
    answer.then((isTrue) => settle(isTrue === true), () => settle(false));
    return { statuses, filled: filling.promise };
  }

  /**
   * Like {@linkcode finishWrite}, but also leases the objects in the same step. They came from an
   * adapter, so listeners are not told to store them.
   *
   * @returns Synchronously where the device is known to have their memory.
   */
  finishWriteAndReserveRead(
    objects: readonly StagedObject[],
  ): ReadReservation[] | Promise<ReadReservation[]> {
    let leased: ReadReservation[] | undefined;
    const onAdmitted = (statuses: readonly L1Status[]): void => {
      const written = objects.filter((_, i) => statuses[i] === "success");
      const reservations = this.reserveRead(written.map(({ key }) => key)).values();
      leased = statuses.map((status) =>
        status === "success" ? reservations.next().value as ReadReservation : { status }
      );
    };
    const { filled } = this.#finish(objects, true, { isNew: false, onAdmitted });
    const outcome = (): ReadReservation[] =>
      leased ?? objects.map(() => ({ status: "device-lost" }));
    return filled === undefined ? outcome() : filled.then(outcome);
  }

  /** Discards staged objects, which were never visible. */
  finishWriteAndDelete(objects: readonly StagedObject[]): L1Status[] {
    return objects.map((object) => {
      const entry = this.#stagedBy(object);
      if (entry === undefined) return "key-not-exist";
      this.table.discard(entry);
      return "success";
    });
  }

  /**
   * Whether a staged object can still be finished. If not, its range may belong to another object
   * and must not be written to.
   */
  isReserved(object: StagedObject): boolean {
    const { now, table } = this;
    const entry = table.ownedByWriter(object);
    return entry?.state === "staged" && !this.isLost && entry.isLocked(now);
  }

  /**
   * Keeps the locks of staged objects from expiring, because other threads write to their ranges.
   * They must be finished, or deleted, afterwards.
   */
  holdWrite(objects: readonly StagedObject[]): void {
    for (const object of objects) {
      const entry = this.table.ownedByWriter(object);
      if (entry?.state === "staged") entry.lockExpiresAt = Infinity;
    }
  }

  /**
   * Resolves when an object that is filling becomes resident or is discarded; `undefined` if no
   * object under this key is filling.
   */
  whenFilled(key: ObjectKey): Promise<void> | undefined {
    return this.table.filling(key.id)?.filled;
  }

  /** Like {@linkcode whenFilled}, for every object that is filling now. */
  filled(): Promise<void> | undefined {
    if (this.#fillings.size === 0) return undefined;
    return Promise.all([...this.#fillings].map(({ promise }) => promise)).then(() => {});
  }

  /** Ends every wait for the device, which is lost. */
  protected abandonFillings(): void {
    for (const filling of this.#fillings) filling.resolve();
    this.#fillings.clear();
  }

  /**
   * Makes a filled entry resident. Otherwise it is discarded: the device refused the work, or
   * another writer was faster and the bytes are the same.
   */
  #admit(entry: L1Entry, isFilled: boolean): boolean {
    const { table, isLost } = this;
    if (!isFilled) this.counters.unfilledCount++;
    const isAdmitted = isFilled && !isLost && table.get(entry.key.id) === undefined;
    if (isAdmitted) table.admit(entry);
    else table.discard(entry);
    return isAdmitted;
  }

  #notify(
    admitted: readonly L1Entry[],
    statuses: readonly L1Status[],
    { isNew, onAdmitted }: FinishOptions,
  ): void {
    const { listeners } = this;
    onAdmitted?.(statuses);
    if (admitted.length === 0) return;
    const written = admitted.filter(({ isTransient }) => isNew && !isTransient)
      .map(({ key, layout }): WrittenObject => ({ key, layout }));
    this.counters.writtenObjects += written.length;
    for (const { layout } of written) this.counters.writtenBytes += layout.byteLength;
    if (written.length > 0) listeners.tell((listener) => listener.written?.(written));
    listeners.tell((listener) => listener.admitted?.());
  }

  /** Whether the objects are filled, which also requires that the device allocated their slabs. */
  #answerFor(objects: readonly StagedObject[], isFilled: DeviceAnswer): DeviceAnswer {
    const { allocator } = this.table;
    if (!allocator.isUnsettled) return isFilled;
    const slabs = new Set<Promise<void>>();
    for (const object of objects) {
      if (!(object instanceof L1Entry) || object.state !== "staged") continue;
      const settled = allocator.settled(object.allocation.slab);
      if (settled !== undefined) slabs.add(settled);
    }
    if (slabs.size === 0) return isFilled;
    // Objects in a slab that the device could not allocate are gone by then.
    return Promise.all([isFilled, ...slabs]).then(([isTrue]) => isTrue);
  }

  /** Ranks the objects as used now, before a lack of rank could get them evicted. */
  #rank(objects: readonly StagedObject[]): void {
    for (let i = objects.length - 1; i >= 0; i--) {
      const entry = objects[i];
      if (!(entry instanceof L1Entry) || entry.state !== "staged" || entry.isPlaced) continue;
      this.table.order.enter(entry, entry.key.id);
    }
  }

  #isAbsent({ id }: ObjectKey): boolean {
    const { table } = this;
    return table.get(id) === undefined && table.filling(id) === undefined;
  }

  #isWritable(key: ObjectKey, writer: string, now: number): boolean {
    const { table } = this;
    if (table.get(key.id) !== undefined) return false;
    for (const before of [table.filling(key.id), table.staged(key.id, writer)]) {
      if (before === undefined) continue;
      if (before.isLocked(now)) return false;
      table.discard(before);
    }
    return true;
  }

  /**
   * Makes room for a batch by evicting for quotas, if evicting further candidates can free the
   * rest; otherwise returns the reason for the failure.
   */
  #makeRoom(
    keys: readonly ObjectKey[],
    layout: ObjectLayout,
    excluded: ReadonlySet<string>,
    now: number,
  ): L1Failure | null {
    if (keys.length === 0) return null;
    const { allocator } = this.table;
    if (layout.byteLength > allocator.maxObjectBytes) return "out-of-memory";
    const wanted = { keys, bytes: bytesTaken(layout.byteLength), excluded };
    const candidates = this.#planner.candidatesForQuotas(wanted, now);
    if (candidates === null) return "quota-exceeded";
    if (!this.#planner.canHold(wanted, now)) return "out-of-memory";
    for (const entry of candidates) this.evict(entry);
    return null;
  }

  /** Frees more space with each step: expired objects first, then eviction candidates. */
  *#evictions(excluded: ReadonlySet<string>, now: number): Generator<void, void> {
    const { table } = this;
    if (table.reclaimExpired(now)) yield;
    for (const entry of table.idle()) {
      if (excluded.has(entry.key.id)) continue;
      this.evict(entry);
      yield;
    }
  }

  /** Allocates a range as soon as an eviction step has freed enough space. */
  #allocate(byteLength: number, evictions: Generator<void, void>): Allocation | null {
    const { allocator } = this.table;
    let allocation: Allocation | null = null;
    while (allocation === null && evictions.next().done !== true) {
      allocation = allocator.allocate(byteLength);
    }
    return allocation;
  }

  /** The staged entry of a writer that has finished. An entry doomed in the meantime is freed. */
  #stagedBy(object: StagedObject): L1Entry | undefined {
    const { table } = this;
    const entry = table.ownedByWriter(object);
    if (entry?.state !== "doomed-staged") return entry;
    table.discard(entry);
    return undefined;
  }
}
