import type { ObjectKey } from "../../src/adapter/contract.ts";
import { sha256 } from "../../src/base/digest.ts";

/** Rules for the loads that fail. */
export interface DropRules {
  /** Share of all keys that fail. */
  readonly rate: number;
  /** Chooses those keys. */
  readonly seed: number;
  /** Positions in a load that fail, counted from its front. */
  readonly gapIndices: readonly number[];
  /** Positions in a load that fail, as a fraction of its length counted from its end. */
  readonly gapTailRatios: readonly number[];
}

/** Returns a predicate: whether the load of `key` at position `index` of `count` objects fails. */
export function drops(
  { rate, seed, gapIndices, gapTailRatios }: DropRules,
): (key: ObjectKey, index: number, count: number) => boolean {
  const indices = new Set(gapIndices);
  return (key, index, count) =>
    indices.has(index) ||
    gapTailRatios.some((ratio) => Math.round((1 - ratio) * (count - 1)) === index) ||
    (rate > 0 && fractionOf(seed, key) < rate);
}

/** A pseudorandom number from 0 (inclusive) to 1 (exclusive), derived from the seed and the key. */
function fractionOf(seed: number, { digest }: ObjectKey): number {
  const seeded = sha256(new TextEncoder().encode(`${seed}:`), digest);
  return new DataView(seeded.buffer).getUint32(0) / 2 ** 32;
}
