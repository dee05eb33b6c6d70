import { getLogger } from "@logtape/logtape";
import { Listeners } from "../base/listeners.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { MemoryDevice, Slab } from "../memory/memory_device.ts";
import { SlabAllocator } from "../memory/slab_allocator.ts";
import type { EvictionPolicy } from "../policies/eviction_policy.ts";
import { RankOrder } from "../policies/rank_order.ts";
import type { L1Entry } from "./l1_entry.ts";
import type { L1CacheOptions, L1Listener, L1RemovalReason, L1Status } from "./l1_types.ts";
import { ObjectTable } from "./object_table.ts";

const logger = getLogger(["kvtier", "l1"]);

/** The objects of an L1 in the memory of its device, and the listeners to what happens to them. */
export class L1Objects {
  protected readonly options: L1CacheOptions;
  protected readonly table: ObjectTable;
  protected currentDevice: MemoryDevice;
  protected isDetached = false;
  protected readonly listeners: Listeners<L1Listener> = new Listeners((error) =>
    logger.error("A listener of L1 failed: {error}", { error })
  );
  /** Objects evicted so far. */
  protected evictedCount = 0;
  /** Invalid ranks so far. */
  protected invalidRankCount = 0;
  /** Slabs that the device could not allocate. */
  protected failedSlabCount = 0;
  readonly #left: { readonly key: ObjectKey; readonly reason: L1RemovalReason }[] = [];

  /** @throws {RangeError} If a size is not a positive multiple of 256 bytes. */
  constructor(options: L1CacheOptions) {
    this.options = options;
    this.currentDevice = options.device;
    const { policy } = options;
    const order = "start" in policy
      ? policy.start()
      : new RankOrder((before) => this.#rankOf(policy, before));
    this.table = new ObjectTable(this.createAllocator(options.device), order);
  }

  /** Device whose memory holds the objects: the one attached last. */
  get device(): MemoryDevice {
    return this.currentDevice;
  }

  addListener(listener: L1Listener): void {
    this.listeners.add(listener);
  }

  removeListener(listener: L1Listener): void {
    this.listeners.delete(listener);
  }

  /** Whether the device is lost or the cache is closed. */
  protected get isLost(): boolean {
    return this.isDetached || this.device.isLost;
  }

  protected get now(): number {
    return this.options.clock.now();
  }

  /** Removes a resident object to make room for another one. */
  protected evict(entry: L1Entry): void {
    this.remove(entry, "evicted");
    this.evictedCount++;
  }

  /** Removes a resident object. Listeners are notified by the next {@linkcode notifyRemoved}. */
  protected remove(entry: L1Entry, reason: L1RemovalReason): void {
    this.#left.push({ key: entry.key, reason });
    this.table.discard(entry, reason === "evicted");
  }

  /** Like {@linkcode remove}, but its memory is freed only when its last lease ends. */
  protected doom(entry: L1Entry, reason: L1RemovalReason): void {
    this.#left.push({ key: entry.key, reason });
    this.table.doom(entry);
  }

  protected createAllocator(device: MemoryDevice): SlabAllocator {
    const { capacityBytes, slabBytes } = this.options;
    return new SlabAllocator(device, {
      capacityBytes,
      ...(slabBytes === undefined ? {} : { slabBytes }),
      onSlabFailed: (slab) => this.#dropSlab(slab),
    });
  }

  /** Notifies the listeners of every object removed since the last call. */
  protected notifyRemoved(): void {
    if (this.#left.length === 0) return;
    const left = this.#left.splice(0);
    for (const { key, reason } of left) {
      this.listeners.tell((listener) => listener.removed?.(key, reason));
    }
  }

  /**
   * Rank of an object that is used now. The policy may be of the user: an invalid rank is counted,
   * and replaced by the previous one.
   */
  #rankOf(policy: EvictionPolicy, before: number | undefined): number {
    try {
      const rank: unknown = policy.rank(before);
      if (Number.isFinite(rank) && Number(rank) >= (before ?? -Infinity)) return Number(rank);
    } catch (error) {
      if (this.invalidRankCount === 0) {
        logger.error("The eviction policy {name} failed: {error}", {
          name: policy.name,
          error,
        });
      }
    }
    this.invalidRankCount++;
    return before ?? 0;
  }

  /**
   * Discards the objects of a slab that the device could not allocate; none of them was visible.
   */
  #dropSlab(slab: Slab): void {
    this.failedSlabCount++;
    const isInSlab = ({ allocation }: L1Entry): boolean => allocation.slab === slab;
    for (const entry of [...this.table.allIncoming(), ...this.table.allDoomed()]) {
      if (isInSlab(entry)) this.table.discard(entry);
    }
  }
}

/** A status other than success. */
export type L1Failure = Exclude<L1Status, "success">;
