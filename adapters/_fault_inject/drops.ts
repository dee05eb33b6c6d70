import type { ObjectKey } from "../../src/l2/adapter.ts";
import { sha256 } from "../../src/runtime/digest.ts";

/** Which loads fail. */
export interface DropRules {
  /** Share of the keys. */
  readonly rate: number;
  /** Which keys these are. */
  readonly seed: number;
  /** Positions from the head of a load. */
  readonly gapIndices: readonly number[];
  /** Positions from its tail, as shares of its length. */
  readonly gapTailRatios: readonly number[];
}

/**
 * Says whether the object of `key`, at position `index` of a load of `count` objects, cannot be
 * loaded.
 */
export function drops(
  { rate, seed, gapIndices, gapTailRatios }: DropRules,
): (key: ObjectKey, index: number, count: number) => boolean {
  const indices = new Set(gapIndices);
  return (key, index, count) =>
    indices.has(index) ||
    gapTailRatios.some((ratio) => Math.round((1 - ratio) * (count - 1)) === index) ||
    (rate > 0 && fractionOf(seed, key) < rate);
}

/** A number from 0 up to 1 that looks random, and follows from the seed and the key. */
function fractionOf(seed: number, { digest }: ObjectKey): number {
  const seeded = sha256(new TextEncoder().encode(`${seed}:`), digest);
  return new DataView(seeded.buffer).getUint32(0) / 2 ** 32;
}
