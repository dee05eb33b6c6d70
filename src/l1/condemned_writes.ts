import type { ObjectKey } from "../keys/object_key.ts";
import type { L1Entry } from "./l1_entry.ts";

interface Group {
  readonly entries: Set<L1Entry>;
  /** How many writers have finished, without saying which. */
  finished: number;
}

/**
 * Reservations that were forgotten while they were being written. Their ranges must stay out of
 * use until their writers have finished. A writer is known by key and tag only, and the same may
 * have been reserved again: where that leaves open who has finished, nothing is decided until all
 * of them have.
 */
export class CondemnedWrites {
  readonly #groups = new Map<string, Group>();

  /** Takes a reservation over. */
  add(entry: L1Entry): void {
    const name = groupName(entry.key, entry.writer);
    const group = this.#groups.get(name);
    if (group === undefined) this.#groups.set(name, { entries: new Set([entry]), finished: 0 });
    else group.entries.add(entry);
  }

  /**
   * A writer has finished.
   *
   * @param hasSuccessor Whether the same is reserved again under this key and tag.
   * @returns The reservations whose ranges are free now, which may be none yet; `undefined` if no
   * writer of this key and tag is condemned.
   */
  finish(key: ObjectKey, writer: string, hasSuccessor: boolean): Iterable<L1Entry> | undefined {
    if (this.#groups.size === 0) return undefined;
    const name = groupName(key, writer);
    const group = this.#groups.get(name);
    if (group === undefined) return undefined;
    group.finished++;
    if (group.finished < group.entries.size + (hasSuccessor ? 1 : 0)) return [];
    this.#groups.delete(name);
    return group.entries;
  }

  /** Gives up one whose writer is waited for no longer. */
  remove(entry: L1Entry): void {
    const name = groupName(entry.key, entry.writer);
    const group = this.#groups.get(name);
    if (group?.entries.delete(entry) !== true) return;
    // It may be the one that has finished: the others are waited for.
    group.finished = Math.max(0, group.finished - 1);
    if (group.entries.size === 0) this.#groups.delete(name);
  }

  /** All of them; removing while iterating is allowed. */
  *[Symbol.iterator](): Iterator<L1Entry> {
    for (const { entries } of this.#groups.values()) yield* entries;
  }
}

function groupName(key: ObjectKey, writer: string): string {
  return `${writer.length}:${writer}${key.id}`;
}
