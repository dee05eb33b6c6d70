/**
 * Runs `work` for all items at once. After a failure, the signals of the others abort.
 *
 * @returns The results, once all have settled.
 * @throws The first failure, once all have settled.
 */
export async function settleAll<Item, Value>(
  items: readonly Item[],
  signal: AbortSignal,
  work: (item: Item, signal: AbortSignal) => Promise<Value>,
): Promise<Value[]> {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const failures: unknown[] = [];
  const outcomes = await Promise.allSettled(items.map(async (item) => {
    try {
      return await work(item, either);
    } catch (error) {
      failures.push(error);
      stop.abort();
      throw error;
    }
  }));
  if (failures.length > 0) throw failures[0];
  return outcomes.flatMap((outcome) => outcome.status === "fulfilled" ? [outcome.value] : []);
}
