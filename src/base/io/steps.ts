/** One step of {@linkcode Steps}: a call that returns its result or a promise of it. */
export type Step = () => unknown;

/**
 * Work whose steps are either all synchronous, in a worker thread, or asynchronous. Written once as
 * a generator function, for both.
 */
export type Steps<Value> = Generator<Step, Value, unknown>;

/** A step with a result: `yield* step(() => file.read(…))`. */
export function* step<Value>(call: () => Value | Promise<Value>): Steps<Value> {
  return (yield call) as Value;
}

/** Runs synchronous steps. */
export function runNow<Value>(steps: Steps<Value>): Value {
  let next = steps.next();
  while (next.done !== true) {
    let result: unknown;
    try {
      result = next.value();
    } catch (error) {
      next = steps.throw(error);
      continue;
    }
    next = steps.next(result);
  }
  return next.value;
}

/** Runs steps that may be asynchronous. */
export async function runLater<Value>(steps: Steps<Value>): Promise<Value> {
  let next = steps.next();
  while (next.done !== true) {
    let result: unknown;
    try {
      result = next.value();
      if (result instanceof Promise) result = await result;
    } catch (error) {
      next = steps.throw(error);
      continue;
    }
    next = steps.next(result);
  }
  return next.value;
}
