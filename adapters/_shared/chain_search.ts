/** Chains up to this length are probed at every position: one round, which finds every gap. */
const WHOLE_CHAIN = 16;
/** Default number of positions probed per round. */
const PROBES = 8;

/**
 * Finds the end of a chain without probing every object: a k-ary search whose probes run
 * together. It may miss a gap (a missing object before present ones). Gaps are rare, because a
 * chain is written from its front and evicted from its back.
 *
 * @param length Number of objects in the chain.
 * @param arePresent Probes the objects at some positions.
 * @param suspects Positions to probe in the first round in any case.
 * @param width Probes per round; use more where a round trip is slow.
 * @returns Number of leading objects that are present.
 */
export async function findChainEnd(
  length: number,
  arePresent: (places: readonly number[]) => Promise<readonly boolean[]>,
  suspects: readonly number[] = [],
  width: number = PROBES,
): Promise<number> {
  let present = 0;
  let end = length;
  let places = length <= Math.max(WHOLE_CHAIN, width)
    ? Array.from({ length }, (_, place) => place)
    : [...new Set([0, ...probes(0, length, width), ...suspects])];
  while (places.length > 0) {
    const answers = await arePresent(places);
    for (const [i, place] of places.entries()) {
      if (answers[i] === false) end = Math.min(end, place);
    }
    for (const [i, place] of places.entries()) {
      if (answers[i] === true && place < end) present = Math.max(present, place + 1);
    }
    places = probes(present, end, width);
  }
  return end;
}

/** Up to `width` evenly spaced positions from `from` to `to - 1`, always including `to - 1`. */
function probes(from: number, to: number, width: number): number[] {
  const count = Math.min(width, to - from);
  return Array.from({ length: count }, (_, i) => to - 1 - Math.floor(i * (to - from) / count));
}
