/** Why chunks of a match are computed although an adapter may have them. */
export type LoadDecisionReason =
  /** Loading them was estimated to take longer than computing them. */
  | "slower"
  /** Loading them took longer than estimated. */
  | "late"
  /** No adapter had found them within a small share of the time that computing takes. */
  | "unanswered";

/** A decision to compute chunks rather than to load them. */
export interface LoadDecision {
  /** Why. */
  readonly reason: LoadDecisionReason;
  /** Number of chunks that adapters have, or may have, and that are to be computed. */
  readonly chunks: number;
  /**
   * Estimated time in milliseconds to load them; if they are late or unanswered, the time that the
   * match waited. `undefined` if an adapter is too slow for an estimate.
   */
  readonly loadMs: number | undefined;
  /** Estimated time in milliseconds to compute them. */
  readonly computeMs: number;
}

/** Numbers of decisions. */
export interface LoadDecisionCounts {
  /** Requests for which only a part of what adapters had was loaded. */
  readonly shortenedLoads: number;
  /** Requests for which nothing was loaded of what adapters had, or may have had. */
  readonly computedInstead: number;
  /** Loads in the background that only measured whether loading has become faster. */
  readonly explorations: number;
  /** Requests whose loads took longer than estimated and were given up. */
  readonly wrongGuesses: number;
}

/** Says a decision: "computed 12 chunks: loading them was estimated at 340 ms, …". */
export function decisionInWords({ reason, chunks, loadMs, computeMs }: LoadDecision): string {
  const computed = `computed ${chunks} ${chunks === 1 ? "chunk" : "chunks"}`;
  const them = chunks === 1 ? "it" : "them";
  const computing = `computing at ${inWords(computeMs)}`;
  if (reason === "unanswered") {
    return `${computed}: no adapter had found ${them} after ${inWords(loadMs ?? 0)}; ` +
      `computing was estimated at ${inWords(computeMs)}`;
  }
  if (loadMs === undefined) {
    return `${computed}: loads of the adapter are overdue; ` +
      `computing was estimated at ${inWords(computeMs)}`;
  }
  return reason === "slower"
    ? `${computed}: loading ${them} was estimated at ${inWords(loadMs)}, ${computing}`
    : `${computed}: loading ${them} had not ended after ${inWords(loadMs)}; ` +
      `computing was estimated at ${inWords(computeMs)}`;
}

function inWords(ms: number): string {
  return `${ms.toLocaleString("en-US", { maximumSignificantDigits: 3 })} ms`;
}
