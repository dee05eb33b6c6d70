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

/**
 * Lets the event loop turn. A run on the CPU does not: without it no timer, signal, file or
 * connection of the process gets on between the steps of a prompt or the tokens of an answer.
 */
export function turnEventLoop(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
