import type { Clock } from "../../runtime/clock.ts";

/** A call that a fault can befall. */
export type FaultOperation = "store" | "lookup" | "load" | "delete";

/**
 * What goes wrong with a call:
 *
 * - `error`: it rejects, and does nothing.
 * - `delay`: it begins later.
 * - `hang`: it does nothing until it is released; it rejects when its caller gives up.
 * - `short` (`store`, `load`): one object of the batch lacks its second half: that is what is
 *   stored, or the rest of the caller's parts is left as it was.
 * - `wrong-size`: the answer has one bit too many.
 * - `corrupt` (`store`, `load`): one bit of one object is another one: in what is stored, which is a
 *   copy then, or in the caller's parts.
 * - `wrong-key` (`load`): one object is filled with the bytes of another one of its size that was
 *   seen before; nothing happens if there is none.
 */
export type FaultKind =
  | "error"
  | "delay"
  | "hang"
  | "short"
  | "wrong-size"
  | "corrupt"
  | "wrong-key";

/** One fault, and the calls that it befalls: those of `calls`, and a share of all. */
export interface FaultRule {
  /** What goes wrong. */
  readonly kind: FaultKind;
  /** With which operations; left out, with all that the kind can befall. */
  readonly operations?: readonly FaultOperation[];
  /** Share of the calls, from 0 to 1. @default {0 if `calls` is given, else 1} */
  readonly rate?: number;
  /** Which calls of each operation, counted from 0. */
  readonly calls?: readonly number[];
  /** How much later a call begins, in milliseconds, if it is a `delay`. @default {100} */
  readonly delayMs?: number;
}

/** What goes wrong with an adapter. */
export interface FaultPlan {
  /** The faults; several can befall one call, in this order. */
  readonly faults: readonly FaultRule[];
  /** Which calls the rates choose, and what is damaged in them. @default {0} */
  readonly seed?: number;
  /** Source of time for delays. @default {the host's} */
  readonly clock?: Clock;
}

const ALL: readonly FaultOperation[] = ["store", "lookup", "load", "delete"];

/** What each kind can befall. */
const BEFALLS: Readonly<Record<FaultKind, readonly FaultOperation[]>> = {
  "error": ALL,
  "delay": ALL,
  "hang": ALL,
  "short": ["store", "load"],
  "wrong-size": ALL,
  "corrupt": ["store", "load"],
  "wrong-key": ["load"],
};

/** All kinds. */
export const FAULT_KINDS = Object.keys(BEFALLS) as readonly FaultKind[];

/** A call, and what goes wrong with it. */
export interface DueFaults {
  /** Which call of its operation, counted from 0. */
  readonly call: number;
  /** What goes wrong. */
  readonly rules: readonly FaultRule[];
  /** A number from 0 to `limit - 1`; what is picked first, second, … follows from seed and call. */
  pick(limit: number): number;
}

/**
 * Says which faults befall each call. That follows from the plan and the number of the call among
 * those of its operation, not from when it is made.
 */
export class FaultSchedule {
  readonly #plan: FaultPlan;
  readonly #calls = new Map<FaultOperation, number>();

  /**
   * No call has been made yet.
   *
   * @throws {RangeError} If a rate, a call or a delay is out of range, or a fault cannot befall an
   * operation.
   */
  constructor(plan: FaultPlan) {
    for (const rule of plan.faults) check(rule);
    this.#plan = plan;
  }

  /** What befalls the next call of an operation. */
  next(operation: FaultOperation): DueFaults {
    const { faults, seed = 0 } = this.#plan;
    const call = this.#calls.get(operation) ?? 0;
    this.#calls.set(operation, call + 1);
    const code = ALL.indexOf(operation);
    const rules = faults.filter(({ kind, operations, rate, calls }, index) => {
      if (!(operations ?? BEFALLS[kind]).includes(operation)) return false;
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
  const possible = BEFALLS[kind];
  if (possible === undefined) {
    throw new RangeError(`kind must be one of ${FAULT_KINDS.join(", ")}: received ${kind}`);
  }
  for (const operation of operations ?? []) {
    if (possible.includes(operation)) continue;
    throw new RangeError(`${kind} can befall ${possible.join(", ")}: received ${operation}`);
  }
  if (!(rate >= 0 && rate <= 1)) {
    throw new RangeError(`rate must be from 0 to 1: received ${rate}`);
  }
  for (const call of calls) {
    if (Number.isSafeInteger(call) && call >= 0) continue;
    throw new RangeError(`calls must be whole numbers of at least 0: received ${call}`);
  }
  if (!(delayMs >= 0)) {
    throw new RangeError(`delayMs must be at least 0: received ${delayMs}`);
  }
}

/** A number from 0 up to 1 that looks random: the numbers mixed by MurmurHash3's finalizer. */
function fractionOf(...numbers: readonly number[]): number {
  let hash = 0x9e3779b9;
  for (const number of numbers) {
    hash = Math.imul(hash ^ number, 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
    hash ^= hash >>> 16;
  }
  return (hash >>> 0) / 2 ** 32;
}
