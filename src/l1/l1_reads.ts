import type { ObjectKey } from "../keys/object_key.ts";
import { EntryLease } from "./l1_entry.ts";
import type { L1Objects } from "./l1_objects.ts";
import type { L1Lease, L1Status, ReadReservation } from "./l1_types.ts";

/** Read path of an L1: leases on resident objects. */
export class L1Reads {
  readonly #objects: L1Objects;
  readonly #ttlMs: number;

  /** Leases objects for `ttlMs` milliseconds. */
  constructor(objects: L1Objects, ttlMs: number) {
    this.#objects = objects;
    this.#ttlMs = ttlMs;
  }

  /** Leases a resident object. */
  reserve({ id }: ObjectKey, now: number): ReadReservation {
    const { table, isLost } = this.#objects;
    if (isLost()) return { status: "device-lost" };
    const entry = table.get(id);
    if (entry === undefined) return { status: "key-not-exist" };
    table.lock(entry, now, now + this.#ttlMs);
    return { status: "success", lease: new EntryLease(entry) };
  }

  /** Ends leases. Ending a lease that expired or has already ended changes nothing. */
  finish(leases: readonly L1Lease[]): L1Status[] {
    const { table, clock } = this.#objects;
    const now = clock.now();
    const statuses = leases.map((lease): L1Status => {
      if (!(lease instanceof EntryLease) || lease.entry.state === "gone") return "key-not-exist";
      if (this.#objects.isLost() || !lease.isLive(now)) return "key-in-wrong-state";
      lease.isReleased = true;
      const { entry } = lease;
      table.unlock(entry);
      if (entry.locks > 0) return "success";
      if (entry.state === "doomed-resident") table.discard(entry);
      else if (entry.isTransient && entry.isEvictable(now)) {
        this.#objects.remove(entry, "temporary");
      }
      return "success";
    });
    this.#objects.notifyRemoved();
    return statuses;
  }

  /** Whether every lease is still valid. */
  areLeased(leases: readonly L1Lease[]): boolean {
    const now = this.#objects.clock.now();
    return !this.#objects.isLost() &&
      leases.every((lease) => lease instanceof EntryLease && lease.isLive(now));
  }

  /**
   * Extends leases by their full lifetime.
   *
   * @returns Whether every lease is still valid; if not, none is extended.
   */
  renew(leases: readonly L1Lease[]): boolean {
    if (!this.areLeased(leases)) return false;
    const expiresAt = this.#objects.clock.now() + this.#ttlMs;
    for (const lease of leases) {
      if (lease instanceof EntryLease) lease.entry.lockExpiresAt = expiresAt;
    }
    return true;
  }
}
