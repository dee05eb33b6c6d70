/** What is measured, in this order. */
export const OPERATIONS = ["store", "lookup", "load"] as const;

/** One of {@linkcode OPERATIONS}. */
export type Operation = (typeof OPERATIONS)[number];

/**
 * How keys are looked up: as a chain, where the answer may stop at the first gap, or each by
 * itself.
 */
export type LookupKind = "chain" | "each";

/** One line of the benchmark: one operation of one target on objects of one size. */
export interface Row {
  /** Name of the target. */
  readonly target: string;
  /** Size of an object, without what the target adds. */
  readonly objectBytes: number;
  /** Keys a round. */
  readonly keys: number;
  /** What was done. */
  readonly op: Operation;
  /** How keys were looked up. */
  readonly how?: LookupKind;
  /** Rounds measured. */
  readonly rounds: number;
  /** Time of a round: the median. */
  readonly medianMs: number;
  /** Time of the fastest round. */
  readonly minMs: number;
  /** Time of the slowest round. */
  readonly maxMs: number;
  /** Time that 99 % of the rounds did not exceed. */
  readonly p99Ms: number;
  /** Speed at the median, in 10^9 bytes a second; left out where no bytes moved. */
  readonly gbps?: number;
  /** Time of a key at the median, in microseconds. */
  readonly usPerKey: number;
  /** Keys that were stored, found or loaded, in all rounds. */
  readonly success: { readonly done: number; readonly of: number };
  /** Operations at a time; left out where the target decides. */
  readonly concurrency?: number;
  /** Speed as a share of the plain loop's; left out where there is none. */
  readonly ofLimit?: number;
}
