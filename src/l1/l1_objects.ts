import { getLogger } from "@logtape/logtape";
import { Listeners } from "../base/listeners.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { Clock } from "../base/clock.ts";
import type { EvictionPolicy } from "./eviction_policy.ts";
import type { L1Entry } from "./l1_entry.ts";
import type { L1Listener, L1RemovalReason, L1Status } from "./l1_types.ts";
import type { ObjectTable } from "./object_table.ts";

const logger = getLogger(["kvtier", "l1"]);

/** State shared by the readers and writers of an L1: its objects and its listeners. */
export class L1Objects {
  readonly table: ObjectTable;
  /** Clock by which locks expire. */
  readonly clock: Clock;
  /** Order of eviction. */
  readonly policy: EvictionPolicy;
  /** Whether the device is lost or the cache is closed. */
  readonly isLost: () => boolean;
  readonly listeners = new Listeners<L1Listener>((error) =>
    logger.error("A listener of L1 failed: {error}", { error })
  );
  /** Objects evicted so far. */
  evictedCount = 0;
  /** Invalid ranks so far. */
  invalidRankCount = 0;
  readonly #left: { readonly key: ObjectKey; readonly reason: L1RemovalReason }[] = [];

  /** Shares a table, a clock and a policy. */
  constructor(
    options: Pick<L1Objects, "table" | "clock" | "policy" | "isLost">,
  ) {
    this.table = options.table;
    this.clock = options.clock;
    this.policy = options.policy;
    this.isLost = options.isLost;
  }

  /**
   * Rank of an object that is used now. The policy may be of the user: an invalid rank is counted,
   * and replaced by the previous one.
   */
  rankOf(before?: number): number {
    try {
      const rank: unknown = this.policy.rank(before);
      if (Number.isFinite(rank) && Number(rank) >= (before ?? -Infinity)) return Number(rank);
    } catch (error) {
      if (this.invalidRankCount === 0) {
        logger.error("The eviction policy {name} failed: {error}", {
          name: this.policy.name,
          error,
        });
      }
    }
    this.invalidRankCount++;
    return before ?? 0;
  }

  /** Removes a resident object to make room for another one. */
  evict(entry: L1Entry): void {
    this.remove(entry, "evicted");
    this.evictedCount++;
  }

  /** Removes a resident object. Listeners are notified by the next {@linkcode notifyRemoved}. */
  remove(entry: L1Entry, reason: L1RemovalReason): void {
    this.#left.push({ key: entry.key, reason });
    this.table.discard(entry);
  }

  /** Like {@linkcode remove}, but its memory is freed only when its last lease ends. */
  doom(entry: L1Entry, reason: L1RemovalReason): void {
    this.#left.push({ key: entry.key, reason });
    this.table.doom(entry);
  }

  /** Notifies the listeners of every object removed since the last call. */
  notifyRemoved(): void {
    if (this.#left.length === 0) return;
    const left = this.#left.splice(0);
    for (const { key, reason } of left) {
      this.listeners.tell((listener) => listener.removed?.(key, reason));
    }
  }
}

/** A status other than success. */
export type L1Failure = Exclude<L1Status, "success">;
