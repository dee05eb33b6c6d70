/** The smallest value that a share of all values does not exceed, by nearest rank. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const rank = Math.max(1, Math.ceil(share * sorted.length));
  return sorted[rank - 1] ?? NaN;
}

/** The value in the middle, by nearest rank: the lower one of two. */
export function median(values: readonly number[]): number {
  return percentile(values, 0.5);
}
