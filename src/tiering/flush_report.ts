/** Why an adapter has not got an object. */
export type UnwrittenReason =
  /** Its queue was full. */
  | "full"
  /** It did not take the object, however often that was tried. */
  | "failed"
  /** It was removed, or the cache was closed. */
  | "removed"
  /** The object left device memory before: the device was lost. */
  | "lost"
  /** It had not answered at the deadline; it may still get the object unless the cache is closed. */
  | "deadline";

/** Objects that one adapter has not got, for one reason. */
export interface UnwrittenObjects {
  /** The adapter. */
  readonly adapter: { readonly id: number; readonly type: string };
  /** Why. */
  readonly reason: UnwrittenReason;
  /** How many. */
  readonly objects: number;
}

/** What became of the objects that were written to L1. */
export interface FlushReport {
  /** Whether every adapter has every object that it was to get. */
  readonly isComplete: boolean;
  /**
   * What is missing since the report before, by adapter and reason. Objects that were forgotten are
   * not missing.
   */
  readonly unwritten: readonly UnwrittenObjects[];
}

/** Counts objects that adapters have not got. */
export class UnwrittenTally {
  readonly #counts = new Map<string, UnwrittenObjects>();

  /** Counts `objects` more. */
  add(
    { id, type }: UnwrittenObjects["adapter"],
    reason: UnwrittenReason,
    objects: number,
  ): void {
    const name = `${id} ${reason}`;
    const before = this.#counts.get(name)?.objects ?? 0;
    this.#counts.set(name, { adapter: { id, type }, reason, objects: before + objects });
  }

  /** A copy that stays as it is. */
  copy(): UnwrittenTally {
    const copy = new UnwrittenTally();
    for (const [name, count] of this.#counts) copy.#counts.set(name, count);
    return copy;
  }

  /** What was counted after `earlier` was copied. */
  since(earlier: UnwrittenTally): UnwrittenObjects[] {
    return [...this.#counts].flatMap(([name, { adapter, reason, objects }]) => {
      const more = objects - (earlier.#counts.get(name)?.objects ?? 0);
      return more > 0 ? [{ adapter, reason, objects: more }] : [];
    });
  }
}
