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

/**
 * Yields to the event loop. Runs on the CPU do not: without this, timers, signals, files and
 * connections would stall between the steps of a prompt and the tokens of a response.
 */
export function turnEventLoop(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
