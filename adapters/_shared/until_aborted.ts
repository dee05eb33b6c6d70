/**
 * Resolves to the result of `work`, or to `fallback()` as soon as `signal` aborts. A later
 * rejection of `work` is ignored.
 */
export async function untilAborted<Value>(
  signal: AbortSignal,
  work: Promise<Value>,
  fallback: () => Value,
): Promise<Value> {
  const { promise, resolve } = Promise.withResolvers<Value>();
  const giveUp = (): void => {
    work.catch(() => {});
    resolve(fallback());
  };
  if (signal.aborted) giveUp();
  signal.addEventListener("abort", giveUp, { once: true });
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", giveUp);
  }
}
