import type { LoadEstimate } from "../l2/load_speed.ts";
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

/** What loading and computing cost, for {@linkcode cheapestPrefix}. */
export interface PrefixCosts {
  /**
   * What loads of the adapter that is to load an object cost; `undefined` if the object costs
   * nothing. Loads of adapters with different estimates overlap.
   */
  readonly sourceOf: (slot: number) => LoadEstimate | undefined;
  /** For each prefix length in chunks, the time in milliseconds to compute everything behind it. */
  readonly computeMs: ArrayLike<number>;
}

/** A prefix, and the estimated time in milliseconds to load what is missing of it. */
export interface PricedPrefix {
  readonly length: number;
  readonly loadMs: number;
}

/** The prefixes between which {@linkcode cheapestPrefix} chooses. */
export interface PrefixChoice {
  /** The one with the least estimated time to the first token; of several, the longest. */
  readonly best: PricedPrefix;
  /** The longest one. */
  readonly longest: PricedPrefix;
  /** Length of the longest one that needs no load. */
  readonly free: number;
}

/**
 * Of the prefixes whose objects pass `canHave`, the one that is loaded, and the rest computed, in the
 * least time.
 */
export function cheapestPrefix(
  table: ChunkTable,
  canHave: (slot: number) => boolean,
  { sourceOf, computeMs }: PrefixCosts,
): PrefixChoice {
  const { groups, end } = table;
  const count = groups.length;
  const usable = usablePrefixes(groups, end, (g, chunk) => canHave(chunk * count + g));
  /** Bytes that each adapter would load of the first chunks of each group. */
  const bytes = new Map<LoadEstimate, Float64Array[]>();
  for (let slot = 0; slot < usable.limit * count; slot++) {
    const source = canHave(slot) ? sourceOf(slot) : undefined;
    if (source === undefined) continue;
    let sums = bytes.get(source);
    if (sums === undefined) bytes.set(source, sums = groups.map(() => new Float64Array(end + 1)));
    (sums[slot % count] as Float64Array)[table.chunkOf(slot) + 1] = table.bytes(slot);
  }
  for (const sum of [...bytes.values()].flat()) {
    for (let i = 1; i <= end; i++) sum[i] = (sum[i] as number) + (sum[i - 1] as number);
  }
  const loadMs = (length: number): number => {
    let slowest = 0;
    for (const [{ latencyMs, msPerByte }, sums] of bytes) {
      let all = 0;
      for (let g = 0; g < count; g++) {
        const sum = sums[g] as Float64Array;
        const first = firstNeeded(groups[g] as KeyGroup, length);
        all += (sum[length] as number) - (sum[first] as number);
      }
      if (all > 0) slowest = Math.max(slowest, latencyMs + msPerByte * all);
    }
    return slowest;
  };
  let best: PricedPrefix = { length: 0, loadMs: 0 };
  let longest = best;
  let free = 0;
  for (let length = 1; length <= usable.limit; length++) {
    if (!usable.has(length)) continue;
    longest = { length, loadMs: loadMs(length) };
    if (longest.loadMs === 0) free = length;
    const totalMs = longest.loadMs + (computeMs[length] ?? 0);
    if (totalMs <= best.loadMs + (computeMs[best.length] ?? 0)) best = longest;
  }
  return { best, longest, free };
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
  const usable = usablePrefixes(groups, limit, has);
  let length = usable.limit;
  while (!usable.has(length)) length--;
  return length;
}

/**
 * Tells which prefixes have what every group needs.
 *
 * @returns Length of the longest prefix without a gap in any group without a window, and whether a
 * prefix of at most that length is usable. The empty one is.
 */
function usablePrefixes(
  groups: readonly KeyGroup[],
  limit: number,
  has: (group: number, chunk: number) => boolean,
): { readonly limit: number; readonly has: (length: number) => boolean } {
  let end = limit;
  for (const [g, { windowChunks }] of groups.entries()) {
    if (windowChunks !== undefined) continue;
    let chunk = 0;
    while (chunk < end && has(g, chunk)) chunk++;
    end = chunk;
  }
  const served = [...groups.entries()]
    .filter(([, { windowChunks }]) => windowChunks !== undefined)
    .map(([g, group]) => servedLengths(group, end, (chunk) => has(g, chunk)));
  const hasAll = (length: number): boolean =>
    length === 0 || served.every((lengths) => lengths[length] === 1);
  return { limit: end, has: hasAll };
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
