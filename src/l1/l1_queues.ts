import type { EntryState, L1Entry } from "./l1_entry.ts";
import { RankQueue } from "./rank_queue.ts";

/** Bit of each queue in `L1Entry.queues`. */
export const QUEUES = { idle: 1, idleOfSalt: 2, dirty: 4, readLocks: 8, writeLocks: 16 } as const;

const WRITTEN: ReadonlySet<EntryState> = new Set(["staged", "filling", "doomed-staged"]);
const READ: ReadonlySet<EntryState> = new Set(["resident", "doomed-resident"]);

/** Evictable objects, in eviction order. */
export function idleQueue(bit: number): RankQueue<L1Entry> {
  return new RankQueue({ bit, rankOf: ({ rank }) => rank, belongs: ({ isIdle }) => isIdle });
}

/**
 * Objects that only their dirty mark protects, in the order in which they would be evicted without
 * it.
 */
export function dirtyQueue(): RankQueue<L1Entry> {
  return new RankQueue({
    bit: QUEUES.dirty,
    rankOf: ({ rank }) => rank,
    belongs: ({ state, locks, dirtyMarks, isPinned }) =>
      state === "resident" && locks === 0 && dirtyMarks > 0 && !isPinned,
  });
}

/** Leased objects, by expiry of their leases. */
export function readLockQueue(): RankQueue<L1Entry> {
  return lockQueue(QUEUES.readLocks, READ);
}

/** Objects with a write lock, by its expiry. */
export function writeLockQueue(): RankQueue<L1Entry> {
  return lockQueue(QUEUES.writeLocks, WRITTEN);
}

function lockQueue(bit: number, states: ReadonlySet<EntryState>): RankQueue<L1Entry> {
  return new RankQueue({
    bit,
    rankOf: ({ lockExpiresAt }) => lockExpiresAt,
    belongs: ({ state, locks, isExpired }) => locks > 0 && !isExpired && states.has(state),
  });
}
