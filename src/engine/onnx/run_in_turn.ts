const lastRuns = new WeakMap<object, Promise<unknown>>();

/**
 * Runs work of one runtime sequentially: onnxruntime-web supports one run at a time over all
 * sessions and rejects a second one.
 */
export function runInTurn<Result>(
  runtime: object,
  work: () => Promise<Result>,
): Promise<Result> {
  const run = (lastRuns.get(runtime) ?? Promise.resolve()).then(work);
  lastRuns.set(runtime, run.catch(() => {}));
  return run;
}
