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
