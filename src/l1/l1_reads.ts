import type { ObjectKey } from "../keys/object_key.ts";
import { EntryLease } from "./l1_entry.ts";
import { L1Objects } from "./l1_objects.ts";
import type { L1Lease, L1Status, ReadReservation } from "./l1_types.ts";

/** Read path of an L1: leases on resident objects. */
export class L1Reads extends L1Objects {
  protected readonly readTtlMs: number = this.options.readTtlMs ?? 300_000;

  /** Leases resident objects. A lease does not count as a use; see {@linkcode L1Cache.touch}. */
  reserveRead(keys: readonly ObjectKey[]): ReadReservation[] {
    const { now, table, isLost, readTtlMs } = this;
    return keys.map(({ id }): ReadReservation => {
      if (isLost) return { status: "device-lost" };
      const entry = table.get(id);
      if (entry === undefined) return { status: "key-not-exist" };
      table.lock(entry, now, now + readTtlMs);
      return { status: "success", lease: new EntryLease(entry) };
    });
  }

  /** Ends leases. Ending a lease that expired or has already ended changes nothing. */
  finishRead(leases: readonly L1Lease[]): L1Status[] {
    const { now, table } = this;
    const statuses = leases.map((lease): L1Status => {
      if (!(lease instanceof EntryLease) || lease.entry.state === "gone") return "key-not-exist";
      if (this.isLost || !lease.isLive(now)) return "key-in-wrong-state";
      lease.isReleased = true;
      const { entry } = lease;
      table.unlock(entry);
      if (entry.locks > 0) return "success";
      if (entry.state === "doomed-resident") table.discard(entry);
      else if (entry.isTransient && entry.isEvictable(now)) this.remove(entry, "temporary");
      return "success";
    });
    this.notifyRemoved();
    return statuses;
  }

  /** Whether a lease is still valid; if not, its range may hold the bytes of another object. */
  isLeased(lease: L1Lease): boolean {
    return this.areLeased([lease]);
  }

  /** Whether every lease is still valid; faster than checking them one by one. */
  areLeased(leases: readonly L1Lease[]): boolean {
    const { now } = this;
    return !this.isLost &&
      leases.every((lease) => lease instanceof EntryLease && lease.isLive(now));
  }

  /**
   * Extends leases by their full lifetime.
   *
   * @returns Whether every lease is still valid; if not, none is extended.
   */
  renew(leases: readonly L1Lease[]): boolean {
    if (!this.areLeased(leases)) return false;
    const expiresAt = this.now + this.readTtlMs;
    for (const lease of leases) {
      if (lease instanceof EntryLease) lease.entry.lockExpiresAt = expiresAt;
    }
    return true;
  }
}
