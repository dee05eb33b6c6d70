import type { Queued } from "./rank_queue.ts";

/** Place of an object in an eviction order; written only by the order. */
export class Place implements Queued {
  /** Queue that contains it; most policies use only the first one. */
  queue: 0 | 1 = 0;
  /** Position in its queue: the lowest rank leaves first. */
  rank = 0;
  /** Number of the last use; of equal ranks, the least recently used leaves first. */
  usedAt = 0;
  /** Number of uses, as far as the policy counts them. */
  uses = 0;
  /** Whether the order contains it. */
  isPlaced = false;
  /** Bit set of the queues that contain it. */
  queues = 0;
}
