/**
 * Resolves to the result of `work`, or to `fallback()` as soon as `signal` aborts. A later
 * rejection of `work` is ignored.
 *
 * @throws Without a fallback, the reason of `signal` when that aborts.
 */
export function untilAborted<Value>(
  signal: AbortSignal | undefined,
  work: Promise<Value>,
  fallback?: () => Value | Promise<Value>,
): Promise<Value> {
  if (signal === undefined) return work;
  if (signal.aborted) {
    // A result that is there already counts.
    return Promise.race([
      work,
      fallback === undefined ? Promise.reject(signal.reason) : fallback(),
    ]);
  }
  const { promise, resolve, reject } = Promise.withResolvers<Value>();
  const giveUp = (): void => fallback === undefined ? reject(signal.reason) : resolve(fallback());
  const stop = (): void => signal.removeEventListener("abort", giveUp);
  signal.addEventListener("abort", giveUp, { once: true });
  work.then(
    (value) => {
      stop();
      resolve(value);
    },
    (error: unknown) => {
      stop();
      reject(error);
    },
  );
  return promise;
}
