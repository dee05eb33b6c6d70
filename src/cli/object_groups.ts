import type { ListedObject } from "../adapter/contract.ts";
import { useOf } from "./objects.ts";

/** Max number of groups; the objects of further groups are counted together. */
const MAX_GROUPS = 65_536;

/** Totals of some objects. */
export interface ObjectTotals {
  objects: number;
  bytes: number;
  /** Time of the last use of any of them, in milliseconds since 1970; 0 if unknown. */
  usedAt: number;
}

/** Totals of objects by a name, in bounded memory. */
export class ObjectGroups {
  readonly totals: ObjectTotals = noObjects();
  /** Totals of the objects without a group of their own. */
  readonly others: ObjectTotals = noObjects();
  readonly #groups = new Map<string, ObjectTotals>();

  /** Counts an object under a name. */
  add(name: string, object: ListedObject): void {
    count(this.totals, object);
    const known = this.#groups.get(name);
    if (known !== undefined) return count(known, object);
    if (this.#groups.size === MAX_GROUPS) return count(this.others, object);
    const group = noObjects();
    this.#groups.set(name, group);
    count(group, object);
  }

  /** The totals of a name. */
  get(name: string): ObjectTotals | undefined {
    return this.#groups.get(name);
  }

  /** All groups. */
  get all(): [name: string, totals: ObjectTotals][] {
    return [...this.#groups];
  }
}

function noObjects(): ObjectTotals {
  return { objects: 0, bytes: 0, usedAt: 0 };
}

function count(totals: ObjectTotals, object: ListedObject): void {
  totals.objects++;
  totals.bytes += object.byteLength;
  totals.usedAt = Math.max(totals.usedAt, useOf(object) ?? 0);
}
