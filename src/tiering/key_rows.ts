import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";

/**
 * The objects of one group of layers, in the order of their chunks. All rows of a request have one
 * key a chunk.
 */
export interface KeyRow {
  /** One key for each chunk of the prompt. */
  readonly keys: readonly ObjectKey[];
  /** Layout of all of them. */
  readonly layout: ObjectLayout;
  /**
   * For attention with a sliding window: how many chunks before the next token are needed, at
   * least 1. Left out, all are.
   */
  readonly windowChunks?: number;
}

/** The first chunk of a row that is needed for a prefix of `length` chunks. */
export function firstNeeded({ windowChunks = Infinity }: KeyRow, length: number): number {
  return Math.max(0, length - windowChunks);
}

/**
 * The longest prefix, in chunks and at most `limit`, for which every row has what it needs: rows
 * with a window their last chunks, the others all.
 */
export function usablePrefix(
  rows: readonly KeyRow[],
  limit: number,
  has: (row: number, chunk: number) => boolean,
): number {
  let length = limit;
  for (const [r, { windowChunks }] of rows.entries()) {
    if (windowChunks !== undefined) continue;
    let chunk = 0;
    while (chunk < length && has(r, chunk)) chunk++;
    length = chunk;
  }
  const windowed = [...rows.entries()].filter(([, { windowChunks }]) => windowChunks !== undefined);
  const served = windowed.map(([r, row]) => servedLengths(row, length, (chunk) => has(r, chunk)));
  while (length > 0 && !served.every((lengths) => lengths[length] === 1)) length--;
  return length;
}

/** For each length of a prefix, whether its last `windowChunks` chunks are there. */
function servedLengths(
  { windowChunks = Infinity }: KeyRow,
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
