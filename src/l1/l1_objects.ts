import { getLogger } from "@logtape/logtape";
import type { ObjectKey } from "../keys/object_key.ts";
import type { Clock } from "../runtime/clock.ts";
import type { EvictionPolicy } from "./eviction_policy.ts";
import type { L1Entry } from "./l1_entry.ts";
import type { L1Listener, L1RemovalReason, L1Status } from "./l1_types.ts";
import type { ObjectTable } from "./object_table.ts";

const logger = getLogger(["kvtier", "l1"]);

/** The objects of an L1 and those who are told of them: what its writers and readers share. */
export class L1Objects {
  /** The objects. */
  readonly table: ObjectTable;
  /** Source of time. */
  readonly clock: Clock;
  /** Which object leaves first. */
  readonly policy: EvictionPolicy;
  /** Whether the device is lost. */
  readonly isLost: () => boolean;
  /** Told what happens. */
  readonly listeners = new Set<L1Listener>();
  /** Objects evicted so far. */
  evictedCount = 0;
  readonly #left: { readonly key: ObjectKey; readonly reason: L1RemovalReason }[] = [];

  /** The objects of a table. */
  constructor(
    options: Pick<L1Objects, "table" | "clock" | "policy" | "isLost">,
  ) {
    this.table = options.table;
    this.clock = options.clock;
    this.policy = options.policy;
    this.isLost = options.isLost;
  }

  /** Removes a resident object for which another one needs the room. */
  evict(entry: L1Entry): void {
    this.remove(entry, "evicted");
    this.evictedCount++;
  }

  /** Removes a resident object; {@linkcode notifyRemoved} is to be called when the work is done. */
  remove(entry: L1Entry, reason: L1RemovalReason): void {
    this.#left.push({ key: entry.key, reason });
    this.table.discard(entry);
  }

  /** As {@linkcode remove}, but the room stays in use by its readers. */
  doom(entry: L1Entry, reason: L1RemovalReason): void {
    this.#left.push({ key: entry.key, reason });
    this.table.doom(entry);
  }

  /** Tells the listeners of all objects that were removed since. */
  notifyRemoved(): void {
    if (this.#left.length === 0) return;
    const left = this.#left.splice(0);
    for (const { key, reason } of left) this.tell((listener) => listener.removed?.(key, reason));
  }

  /** Tells all listeners something. */
  tell(call: (listener: L1Listener) => void): void {
    for (const listener of this.listeners) {
      try {
        call(listener);
      } catch (error) {
        logger.error("A listener of L1 failed: {error}", { error });
      }
    }
  }
}

/** How a call fails. */
export type L1Failure = Exclude<L1Status, "success">;
