import type { EntryState, L1Entry } from "./l1_entry.ts";
import { RankQueue } from "./rank_queue.ts";

/** The bits of the queues that objects of L1 are in. */
export const QUEUES = { idle: 1, idleOfSalt: 2, dirty: 4, readLocks: 8, writeLocks: 16 } as const;

const WRITTEN: ReadonlySet<EntryState> = new Set(["staged", "filling", "doomed-staged"]);
const READ: ReadonlySet<EntryState> = new Set(["resident", "doomed-resident"]);

/** Objects that may leave, the first to leave first. */
export function idleQueue(bit: number): RankQueue<L1Entry> {
  return new RankQueue({ bit, rankOf: ({ rank }) => rank, belongs: ({ isIdle }) => isIdle });
}

/** Objects that only holds keep, in the order in which they would leave without them. */
export function dirtyQueue(): RankQueue<L1Entry> {
  return new RankQueue({
    bit: QUEUES.dirty,
    rankOf: ({ rank }) => rank,
    belongs: ({ state, locks, dirtyMarks, isPinned }) =>
      state === "resident" && locks === 0 && dirtyMarks > 0 && !isPinned,
  });
}

/** Objects with readers, by the time when the locks of those expire. */
export function readLockQueue(): RankQueue<L1Entry> {
  return lockQueue(QUEUES.readLocks, READ);
}

/** Objects with a writer, by the time when its lock expires. */
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
