import type { EntryState, L1Entry } from "./l1_entry.ts";
import { RankQueue } from "../policies/rank_queue.ts";
import { VictimQueue } from "../policies/victim_queue.ts";

/** Bit of each queue in `L1Entry.queues`; a queue of victims takes two bits. */
export const QUEUES = {
  idle: 1,
  idleOfSalt: 4,
  dirty: 16,
  readLocks: 64,
  writeLocks: 128,
} as const;

const WRITTEN: ReadonlySet<EntryState> = new Set(["staged", "filling", "doomed-staged"]);
const READ: ReadonlySet<EntryState> = new Set(["resident", "doomed-resident"]);

/** Evictable objects, in eviction order. */
export function idleQueue(bit: number): VictimQueue<L1Entry> {
  return new VictimQueue(bit, ({ isIdle }) => isIdle);
}

/**
 * Objects that only their dirty mark protects, in the order in which they would be evicted without
 * it.
 */
export function dirtyQueue(): VictimQueue<L1Entry> {
  return new VictimQueue(
    QUEUES.dirty,
    ({ state, locks, dirtyMarks, isPinned }) =>
      state === "resident" && locks === 0 && dirtyMarks > 0 && !isPinned,
  );
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
