/** Why an adapter does not have an object. */
export type UnwrittenReason =
  /** Its queue was full. */
  | "full"
  /** It failed to store the object in every attempt. */
  | "failed"
  /** It was removed, or the cache was closed. */
  | "removed"
  /** The device was lost before the object could be stored. */
  | "lost"
  /**
   * It had not answered by the deadline. The object may still be stored, unless the cache is
   * closed.
   */
  | "deadline";

/** Why an adapter does not get an object. */
export type DropReason = Exclude<UnwrittenReason, "deadline">;

/** Objects that one adapter does not have, for one reason. */
export interface UnwrittenObjects {
  /** The adapter. */
  readonly adapter: { readonly id: number; readonly type: string };
  /** Reason. */
  readonly reason: UnwrittenReason;
  /** Number of objects. */
  readonly objects: number;
}

/** Whether the objects that were written to L1 reached the adapters. */
export interface FlushReport {
  /** Whether every adapter has every object chosen for it. */
  readonly isComplete: boolean;
  /**
   * Objects missing since the previous report, by adapter and reason. Forgotten objects are not
   * included.
   */
  readonly unwritten: readonly UnwrittenObjects[];
}

/** Counts objects that adapters do not have. */
export class UnwrittenTally {
  readonly #counts = new Map<string, UnwrittenObjects>();

  /** Adds `objects` to a count. */
  add(
    { id, type }: UnwrittenObjects["adapter"],
    reason: UnwrittenReason,
    objects: number,
  ): void {
    const name = `${id} ${reason}`;
    const before = this.#counts.get(name)?.objects ?? 0;
    this.#counts.set(name, { adapter: { id, type }, reason, objects: before + objects });
  }

  /** Returns an independent copy. */
  copy(): UnwrittenTally {
    const copy = new UnwrittenTally();
    for (const [name, count] of this.#counts) copy.#counts.set(name, count);
    return copy;
  }

  /** Counts added since `earlier` was copied. */
  since(earlier: UnwrittenTally): UnwrittenObjects[] {
    return [...this.#counts].flatMap(([name, { adapter, reason, objects }]) => {
      const more = objects - (earlier.#counts.get(name)?.objects ?? 0);
      return more > 0 ? [{ adapter, reason, objects: more }] : [];
    });
  }
}
