import { getLogger } from "@logtape/logtape";
import { bytesWithTrailer, tailBytes } from "../adapter/object_trailer.ts";
import type { Clock } from "../base/clock.ts";
import type { L1Cache } from "../l1/l1_cache.ts";
import type { GuardedObject } from "../l2/adapter_guard.ts";
import { ObjectWithTrailer } from "../adapter/object_to_seal.ts";
import type { AdapterSet } from "../l2/adapter_set.ts";
import type { ReadBack } from "../memory/memory_device.ts";
import type { DirtyObject } from "./dirty_object.ts";
import type { StoreLane } from "./store_lane.ts";
import type { StoreStatus } from "./store_types.ts";

/** Options of {@linkcode StoreWriter}. */
export interface StoreWriterOptions {
  readonly l1: L1Cache;
  readonly adapters: AdapterSet;
  readonly clock: Clock;
  /** Maximum bytes of a batch. */
  readonly flushBytes: number;
  /** Maximum bytes in read-back buffers. */
  readonly maxInFlightBytes: number;
  /** The lane of each adapter. */
  readonly lanes: () => Iterable<StoreLane>;
  /** Called when a batch has been taken from the queues. */
  readonly onTaken: () => void;
  /** Called with the objects that an adapter was to store, and those that it stored. */
  readonly onAnswered: (
    lane: StoreLane,
    taken: readonly DirtyObject[],
    stored: ReadonlySet<DirtyObject>,
  ) => void;
}

/** Counters of a {@linkcode StoreWriter}. */
type ReadBackCounters = Pick<
  StoreStatus,
  "batches" | "readBackBytes" | "readBackMs" | "failedReadBacks"
>;

const logger = getLogger(["kvtier", "store"]);
const NONE: ReadonlySet<DirtyObject> = new Set();

/** One batch in host memory, shared by the adapters that store it. */
class ReadBackBatch {
  /** The objects that could be read. */
  readonly objects: ReadonlyMap<DirtyObject, GuardedObject>;
  readonly #readBack: ReadBack;
  readonly #unsettled: Promise<void>[] = [];
  #borrowers: number;

  /** Lends the objects to `borrowers` adapters. */
  constructor(
    readBack: ReadBack,
    objects: ReadonlyMap<DirtyObject, GuardedObject>,
    borrowers: number,
  ) {
    this.#readBack = readBack;
    this.objects = objects;
    this.#borrowers = borrowers;
  }

  /**
   * Ends the use by one adapter; the last one returns the buffers.
   *
   * @param settled Resolves when an adapter that missed its deadline has released the buffers.
   */
  giveBack(settled: Promise<void> | undefined): void {
    if (settled !== undefined) this.#unsettled.push(settled);
    if (--this.#borrowers > 0) return;
    if (this.#unsettled.length === 0) return this.#readBack[Symbol.dispose]();
    // An adapter past its deadline may still read the buffers, so they are not reused until then.
    this.#readBack.abandon();
    Promise.all(this.#unsettled).then(() => this.#readBack[Symbol.dispose]());
  }
}

/** Reads back one batch after the other; adapters store them in the meantime. */
export class StoreWriter {
  readonly #options: StoreWriterOptions;
  readonly #counters = { batches: 0, readBackBytes: 0, readBackMs: 0, failedReadBacks: 0 };
  #isRunning = false;

  /** Creates a writer that waits for {@linkcode run}. */
  constructor(options: StoreWriterOptions) {
    this.#options = options;
  }

  get counters(): ReadBackCounters {
    return { ...this.#counters };
  }

  /** Writes batches until no lane is ready, unless that is under way. Never rejects. */
  async run(): Promise<void> {
    if (this.#isRunning) return;
    this.#isRunning = true;
    // Let the caller finish its own work first.
    await Promise.resolve();
    try {
      for (;;) {
        const free = [...this.#options.lanes()].filter((lane) =>
          lane.queued.size > 0 && lane.hasRoomInFlight(this.#maxLaneBytes)
        );
        const ready = free.filter(({ isReady }) => isReady);
        if (ready.length === 0) return;
        const fullest = ready.reduce((a, b) => b.queued.bytes > a.queued.bytes ? b : a);
        await this.#write(this.#nextBatch(fullest), free);
      }
    } catch (error) {
      logger.error("Storing failed: {error}", { error });
    } finally {
      // In the same turn as the last check of the lanes, so that an object queued later starts
      // another run.
      this.#isRunning = false;
    }
  }

  /** Share of the read-back buffers for one adapter, so that no adapter waits for another. */
  get #maxLaneBytes(): number {
    const { adapters, maxInFlightBytes } = this.#options;
    return maxInFlightBytes / Math.max(1, adapters.all.length);
  }

  #nextBatch(lane: StoreLane): DirtyObject[] {
    const { l1, flushBytes } = this.#options;
    const limit = Math.min(flushBytes, this.#maxLaneBytes / 2);
    const objects: DirtyObject[] = [];
    let bytes = 0;
    for (const dirty of lane.queued.objects()) {
      bytes += dirty.bytes;
      if (objects.length > 0 && bytes > limit) break;
      objects.push(dirty);
    }
    const sizes = objects.map(({ object }) => bytesWithTrailer(object.key, object.layout));
    return objects.slice(0, Math.max(1, l1.device.countReadable(sizes)));
  }

  /** Reads a batch back once and stores it in every adapter that has it queued. */
  async #write(chosen: readonly DirtyObject[], lanes: readonly StoreLane[]): Promise<void> {
    const shares = lanes.map((lane) => ({ lane, taken: lane.take(chosen) }))
      .filter(({ taken }) => taken.length > 0);
    this.#options.onTaken();
    // Skip the read-back if no adapter would be called.
    const isOffered = shares.some(({ lane }) => lane.guard.canStore);
    const batch = isOffered ? await this.#read(chosen, shares.length) : undefined;
    for (const { lane, taken } of shares) this.#store(lane, taken, batch);
  }

  /** Reads a batch back for `borrowers` adapters; `undefined` if that fails. */
  async #read(
    chosen: readonly DirtyObject[],
    borrowers: number,
  ): Promise<ReadBackBatch | undefined> {
    const { l1, clock } = this.#options;
    const startedAt = clock.now();
    const leased = l1.reserveRead(chosen.map(({ object }) => object.key)).flatMap((answer, i) =>
      answer.status === "success" ? { lease: answer.lease, dirty: chosen[i] as DirtyObject } : []
    );
    const requests = leased.map(({ lease: { key, range } }) => {
      return { range, tailBytes: tailBytes(key) };
    });
    try {
      const readBack = await l1.device.readBack(requests);
      const objects = new Map<DirtyObject, GuardedObject>();
      for (const [i, { lease, dirty }] of leased.entries()) {
        const parts = readBack.objects[i];
        // If the lease expired, the bytes may belong to another object.
        if (parts === undefined || !l1.isLeased(lease)) continue;
        objects.set(dirty, new ObjectWithTrailer(lease.key, lease.layout, parts));
        this.#counters.readBackBytes += lease.layout.byteLength;
      }
      this.#counters.batches++;
      return new ReadBackBatch(readBack, objects, borrowers);
    } catch (error) {
      this.#counters.failedReadBacks++;
      logger.warn("Objects could not be read back: {error}", { error, count: leased.length });
      return undefined;
    } finally {
      this.#counters.readBackMs += clock.now() - startedAt;
      l1.finishRead(leased.map(({ lease }) => lease));
    }
  }

  /** Stores one adapter's share of a batch, if the read-back succeeded. */
  async #store(
    lane: StoreLane,
    taken: readonly DirtyObject[],
    batch: ReadBackBatch | undefined,
  ): Promise<void> {
    const { onAnswered } = this.#options;
    if (batch === undefined) return onAnswered(lane, taken, NONE);
    const { objects } = batch;
    const offered = taken.filter((dirty) => dirty.gone === undefined && objects.has(dirty));
    const answer = offered.length === 0 ? undefined : await lane.guard.store(
      offered.map((dirty) => objects.get(dirty) as GuardedObject),
    );
    batch.giveBack(answer?.settled);
    onAnswered(lane, taken, answer === undefined ? NONE : new Set(answer.done.gather(offered)));
  }
}
