const lastRuns = new WeakMap<object, Promise<unknown>>();

/**
 * Runs work of one runtime after what was asked for before: onnxruntime-web computes one run at a
 * time, whichever session it is of, and refuses a second one.
 */
export function runInTurn<Result>(
  runtime: object,
  work: () => Promise<Result>,
): Promise<Result> {
  const run = (lastRuns.get(runtime) ?? Promise.resolve()).then(work);
  lastRuns.set(runtime, run.catch(() => {}));
  return run;
}
