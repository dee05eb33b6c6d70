import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";

/**
 * The objects of one group of layers in chunk order. All groups of a request have one key for each
 * chunk.
 */
export interface KeyGroup {
  /** One key for each chunk of the prompt. */
  readonly keys: readonly ObjectKey[];
  /** Layout of every object of the group. */
  readonly layout: ObjectLayout;
  /**
   * For sliding-window attention, the number of chunks before the next token that are needed, at
   * least 1. If left out, all chunks are.
   */
  readonly windowChunks?: number;
}

/** @deprecated Use {@linkcode KeyGroup}. */
export type KeyRow = KeyGroup;

/** First chunk of a group that a prefix of `length` chunks needs. */
export function firstNeeded(
  { windowChunks = Infinity }: Pick<KeyGroup, "windowChunks">,
  length: number,
): number {
  return Math.max(0, length - windowChunks);
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
  const windowed = [...groups.entries()].filter(([, { windowChunks }]) =>
    windowChunks !== undefined
  );
  const served = windowed.map(([g, group]) =>
    servedLengths(group, length, (chunk) => has(g, chunk))
  );
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
