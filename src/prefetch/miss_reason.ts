import type { ObjectOutcome } from "../l2/guarded_answer.ts";

/**
 * Reasons why an object that a request needs is missing. If adapters give different ones, the last
 * of them counts.
 */
export const MISS_REASONS = [
  /** No adapter has it. */
  "absent",
  /** An adapter was not asked, because it is paused or closed. */
  "paused",
  /** An adapter failed to look it up or to load it. */
  "failed",
  /** An adapter missed its deadline. */
  "timed-out",
  /** What an adapter loaded is damaged, or has another layout. */
  "damaged",
  /** A forget in progress blocks it. */
  "blocked",
  /** There is no room for it in device memory. */
  "no-room",
  /** The device was lost, or a lease expired while the request waited. */
  "lost",
  /** The request was answered at its deadline. */
  "deadline",
] as const;

/** Why an object that a request needs is missing. */
export type MissReason = typeof MISS_REASONS[number];

/** Reason that an adapter gives for an object that it does not deliver. */
export function reasonOf(outcome: Exclude<ObjectOutcome, "done">): MissReason {
  return outcome === "skipped" || outcome === "abandoned" ? "paused" : outcome;
}
