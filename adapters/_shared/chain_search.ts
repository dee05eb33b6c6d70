/** Chains up to this length are asked for whole: that is one round, and finds every gap. */
const WHOLE_CHAIN = 16;
/** Places that a round of the search asks for, where nothing else is said. */
const PROBES = 8;

/**
 * Finds the end of a chain whose objects are there up to some place, without asking for each: a
 * search in rounds of a few questions that are asked at once. Of a gap, where one that is missing
 * stands before others, it may know nothing: a chain is written from its front and evicted from its
 * back, so that gaps are rare.
 *
 * @param length Objects in the chain.
 * @param isPresent Asks for one.
 * @param suspects Places that are asked for in any case.
 * @param width Places that a round asks for: more where an answer takes long, and rounds are dear.
 * @returns How many of the first objects are there.
 */
export async function findChainEnd(
  length: number,
  isPresent: (place: number) => Promise<boolean>,
  suspects: readonly number[] = [],
  width: number = PROBES,
): Promise<number> {
  let present = 0;
  let end = length;
  let places = length <= WHOLE_CHAIN
    ? Array.from({ length }, (_, place) => place)
    : [...new Set([0, ...probes(0, length, width), ...suspects])];
  while (places.length > 0) {
    const answers = await Promise.all(places.map(isPresent));
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

/** Places from `from` to `to - 1`, the last of all among them, at even distances. */
function probes(from: number, to: number, width: number): number[] {
  const count = Math.min(width, to - from);
  return Array.from({ length: count }, (_, i) => to - 1 - Math.floor(i * (to - from) / count));
}
