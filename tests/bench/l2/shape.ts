/** How much is moved in a round. */
export interface Shape {
  /** Size of an object. */
  readonly objectBytes: number;
  /** Keys a call. */
  readonly numKeys: number;
  /** Calls in flight together. */
  readonly inFlight: number;
}

/** Objects of 1,000 present keys: a prompt of 256,000 tokens, looked up at once. */
export const CHAIN_SHAPE: Shape = { objectBytes: 4096, numKeys: 1_000, inFlight: 1 };

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const SIZES = [64 * KIB, 256 * KIB, MIB, 2.25 * MIB, 4 * MIB, 16 * MIB];
const NUM_KEYS = 32;
const IN_FLIGHT = 3;
const MAX_ROUND_BYTES = NUM_KEYS * IN_FLIGHT * 2.25 * MIB;

/** What is measured unless a size is given; left out, the numbers are those of `sweep` itself. */
export function sweep(numKeys?: number, inFlight?: number): Shape[] {
  return SIZES.map((objectBytes): Shape => {
    const most = mostKeys(objectBytes, MAX_ROUND_BYTES, IN_FLIGHT);
    return numKeys === undefined && inFlight === undefined
      ? { objectBytes, numKeys: Math.min(NUM_KEYS, most), inFlight: IN_FLIGHT }
      : { objectBytes, numKeys: numKeys ?? NUM_KEYS, inFlight: inFlight ?? 1 };
  });
}

/** The same with fewer keys, where they would be more bytes a round. */
export function limited({ objectBytes, numKeys, inFlight }: Shape, maxRoundBytes: number): Shape {
  const most = mostKeys(objectBytes, maxRoundBytes, inFlight);
  return { objectBytes, numKeys: Math.min(numKeys, most), inFlight };
}

function mostKeys(objectBytes: number, roundBytes: number, inFlight: number): number {
  return Math.max(1, Math.floor(roundBytes / inFlight / objectBytes));
}

/** Objects of one size. */
export function oneSize(objectBytes: number, numKeys = NUM_KEYS, inFlight = 1): Shape[] {
  return [{ objectBytes, numKeys, inFlight }];
}
