import type { ChunkTable } from "./chunk_table.ts";
import { firstNeeded, type KeyGroup } from "./key_group.ts";

/** Objects that the longest possible prefix needs. */
export interface PrefetchPlan {
  /** Number of chunks in the prefix once its objects are loaded. */
  readonly length: number;
  /** Slots that the prefix needs and that are not resident. */
  readonly slots: readonly number[];
}

/** Plans the longest prefix whose objects are resident or pass `canHave`. */
export function plan(table: ChunkTable, canHave: (slot: number) => boolean): PrefetchPlan {
  const { groups } = table;
  const isResident = (slot: number): boolean => table.state(slot) === "resident";
  const length = usablePrefix(groups, table.end, (g, chunk) => {
    const slot = chunk * groups.length + g;
    return isResident(slot) || canHave(slot);
  });
  return { length, slots: neededSlots(groups, length).filter((slot) => !isResident(slot)) };
}

/** Slots that a prefix of `length` chunks needs, in order. */
export function neededSlots(groups: readonly KeyGroup[], length: number): number[] {
  const slots: number[] = [];
  const first = groups.map((group) => firstNeeded(group, length));
  for (let chunk = Math.min(...first); chunk < length; chunk++) {
    for (const [g, needed] of first.entries()) {
      if (chunk >= needed) slots.push(chunk * groups.length + g);
    }
  }
  return slots;
}

/**
 * Length in chunks, at most `limit`, of the longest prefix for which every group has the chunks it
 * needs: its last `windowChunks` for a group with a window, all of them for the others.
 */
export function usablePrefix(
  groups: readonly KeyGroup[],
  limit: number,
  has: (group: number, chunk: number) => boolean,
): number {
  let length = limit;
  for (const [g, { windowChunks }] of groups.entries()) {
    if (windowChunks !== undefined) continue;
    let chunk = 0;
    while (chunk < length && has(g, chunk)) chunk++;
    length = chunk;
  }
  const served = [...groups.entries()]
    .filter(([, { windowChunks }]) => windowChunks !== undefined)
    .map(([g, group]) => servedLengths(group, length, (chunk) => has(g, chunk)));
  while (length > 0 && !served.every((lengths) => lengths[length] === 1)) length--;
  return length;
}

/** For each prefix length, whether its last `windowChunks` chunks are present. */
function servedLengths(
  { windowChunks = Infinity }: KeyGroup,
  limit: number,
  has: (chunk: number) => boolean,
): Uint8Array {
  const served = new Uint8Array(limit + 1);
  let run = 0;
  for (let length = 1; length <= limit; length++) {
    run = has(length - 1) ? run + 1 : 0;
    if (run >= Math.min(windowChunks, length)) served[length] = 1;
  }
  return served;
}
