import type { ObjectOutcome } from "../l2/guarded_answer.ts";

/** Why an object that a request needs is missing. */
export type MissReason =
  /** No adapter has it. */
  | "absent"
  /** An adapter was not asked, because it is paused or closed. */
  | "paused"
  /** An adapter failed to look it up or to load it. */
  | "failed"
  /** An adapter missed its deadline. */
  | "timed-out"
  /** What an adapter loaded is damaged, or has another layout. */
  | "damaged"
  /** A forget in progress blocks it. */
  | "blocked"
  /** There is no room for it in device memory. */
  | "no-room"
  /** The device was lost, or a lease expired while the request waited. */
  | "lost"
  /** The request was answered at its deadline. */
  | "deadline"
  /** Computing it was estimated to be faster than loading it. */
  | "computed";

/** How a sentence about the missing chunk goes on. */
const WORDS: Readonly<Record<MissReason, string>> = {
  absent: "is nowhere in the cache",
  paused: "is not in L1, and an adapter is paused",
  failed: "was not loaded, because an adapter failed",
  "timed-out": "was not loaded, because an adapter missed its deadline",
  damaged: "is damaged or has another layout",
  blocked: "is being forgotten",
  "no-room": "did not fit into device memory",
  lost: "left device memory during the match",
  deadline: "was not loaded before the deadline",
  computed: "was not loaded, because computing it was estimated to be faster",
};

/** All reasons. If adapters give different ones for an object, the last of them counts. */
export const MISS_REASONS = Object.keys(WORDS) as readonly MissReason[];

/** Reason that an adapter gives for an object that it does not deliver. */
export function reasonOf(outcome: Exclude<ObjectOutcome, "done">): MissReason {
  return outcome === "skipped" || outcome === "abandoned" ? "paused" : outcome;
}

/** Says why a chunk is missing. */
export function missInWords(reason: MissReason, chunk: string): string {
  return `${chunk} ${WORDS[reason]}`;
}
