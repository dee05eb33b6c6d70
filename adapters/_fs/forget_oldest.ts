/** Forgets entries in the order in which they came, until no more than `most` are left. */
export function forgetOldest(
  entries: Map<string, unknown> | Set<string>,
  most: number,
): void {
  for (const oldest of entries.keys()) {
    if (entries.size <= most) return;
    entries.delete(oldest);
  }
}
