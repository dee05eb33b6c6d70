import type { Clock } from "../../base/clock.ts";

/** An operation into which faults can be injected. */
export type FaultOperation = "store" | "lookup" | "load" | "delete";

/**
 * The kind of a fault:
 *
 * - `error`: the call rejects without doing anything.
 * - `delay`: the call starts later.
 * - `hang`: the call does nothing until it is released. It rejects when its caller aborts it.
 * - `short` (`store`, `load`): one object of the batch is cut in half. Only its first half is
 *   stored, or written to the caller's parts.
 * - `wrong-size`: the result has one bit too many.
 * - `corrupt` (`store`, `load`): one bit of one object is flipped, in the stored copy or in the
 *   caller's parts.
 * - `wrong-key` (`load`): one object is filled with the bytes of another object of the same size
 *   seen earlier. Has no effect if there is none.
 */
export type FaultKind =
  | "error"
  | "delay"
  | "hang"
  | "short"
  | "wrong-size"
  | "corrupt"
  | "wrong-key";

/** A fault and the calls it is injected into: those in `calls`, and a random share of all. */
export interface FaultRule {
  /** Kind of the fault. */
  readonly kind: FaultKind;
  /** Affected operations. @default {all that the kind supports} */
  readonly operations?: readonly FaultOperation[];
  /** Share of affected calls, from 0 to 1. @default {0 if `calls` is given, else 1} */
  readonly rate?: number;
  /** Affected calls of each operation, counted from 0. */
  readonly calls?: readonly number[];
  /** For `delay`: the delay in milliseconds. @default {100} */
  readonly delayMs?: number;
}

/** The faults to inject into an adapter. */
export interface FaultPlan {
  /** The faults. Several can affect one call; they are injected in this order. */
  readonly faults: readonly FaultRule[];
  /** Seed for choosing calls by rate, and objects and bits to damage. @default {0} */
  readonly seed?: number;
  /** Source of time for delays. @default {the host's} */
  readonly clock?: Clock;
}

const ALL: readonly FaultOperation[] = ["store", "lookup", "load", "delete"];

/** Operations that each kind supports. */
const SUPPORTED: Readonly<Record<FaultKind, readonly FaultOperation[]>> = {
  "error": ALL,
  "delay": ALL,
  "hang": ALL,
  "short": ["store", "load"],
  "wrong-size": ALL,
  "corrupt": ["store", "load"],
  "wrong-key": ["load"],
};

/** All kinds of faults. */
export const FAULT_KINDS = Object.keys(SUPPORTED) as readonly FaultKind[];

/** The faults of one call. */
export interface DueFaults {
  /** Index of the call among those of its operation. */
  readonly call: number;
  /** The rules that apply. */
  readonly rules: readonly FaultRule[];
  /** Picks a number from 0 to `limit - 1`. The sequence is determined by seed and call. */
  pick(limit: number): number;
}

/**
 * Decides which faults to inject into each call. The decision depends only on the plan and the index
 * of the call among those of its operation, not on timing.
 */
export class FaultSchedule {
  readonly #plan: FaultPlan;
  readonly #calls = new Map<FaultOperation, number>();

  /**
   * Validates the plan.
   *
   * @throws {RangeError} If a rate, a call or a delay is out of range, or an operation does not
   * support a fault.
   */
  constructor(plan: FaultPlan) {
    for (const rule of plan.faults) check(rule);
    this.#plan = plan;
  }

  /** The faults of the next call of an operation. */
  next(operation: FaultOperation): DueFaults {
    const { faults, seed = 0 } = this.#plan;
    const call = this.#calls.get(operation) ?? 0;
    this.#calls.set(operation, call + 1);
    const code = ALL.indexOf(operation);
    const rules = faults.filter(({ kind, operations, rate, calls }, index) => {
      if (!(operations ?? SUPPORTED[kind]).includes(operation)) return false;
      if (calls?.includes(call)) return true;
      return fractionOf(seed, index, code, call) < (rate ?? (calls === undefined ? 1 : 0));
    });
    let picks = 0;
    const pick = (limit: number): number =>
      Math.floor(fractionOf(seed, faults.length, code, call, picks++) * limit);
    return { call, rules, pick };
  }
}

function check({ kind, operations, rate = 0, calls = [], delayMs = 0 }: FaultRule): void {
  const supported = SUPPORTED[kind];
  if (supported === undefined) {
    throw new RangeError(`kind must be one of ${FAULT_KINDS.join(", ")}: received ${kind}`);
  }
  for (const operation of operations ?? []) {
    if (supported.includes(operation)) continue;
    throw new RangeError(
      `operations of ${kind} must be among ${supported.join(", ")}: received ${operation}`,
    );
  }
  if (!(rate >= 0 && rate <= 1)) {
    throw new RangeError(`rate must be from 0 to 1: received ${rate}`);
  }
  for (const call of calls) {
    if (Number.isSafeInteger(call) && call >= 0) continue;
    throw new RangeError(`calls must be integers of at least 0: received ${call}`);
  }
  if (!(delayMs >= 0)) {
    throw new RangeError(`delayMs must be at least 0: received ${delayMs}`);
  }
}

/** A pseudo-random number in [0, 1) determined by `numbers`, mixed by MurmurHash3's finalizer. */
function fractionOf(...numbers: readonly number[]): number {
  let hash = 0x9e3779b9;
  for (const number of numbers) {
    hash = Math.imul(hash ^ number, 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
    hash ^= hash >>> 16;
  }
  return (hash >>> 0) / 2 ** 32;
}
