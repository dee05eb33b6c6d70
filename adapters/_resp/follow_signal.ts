const followers = new WeakMap<AbortSignal, Set<AbortController>>();

/** A signal that aborts with another one, until it is ended. */
export interface FollowingSignal extends Disposable {
  /** For one listener. */
  readonly signal: AbortSignal;
}

/**
 * A signal of its own for each of many listeners: one that has them all compares each with all
 * others when it comes and when it goes.
 */
export function followSignal(signal: AbortSignal): FollowingSignal {
  const controller = new AbortController();
  if (signal.aborted) controller.abort(signal.reason);
  const group = followers.get(signal) ?? newGroup(signal);
  group.add(controller);
  return { signal: controller.signal, [Symbol.dispose]: () => void group.delete(controller) };
}

function newGroup(signal: AbortSignal): Set<AbortController> {
  const group = new Set<AbortController>();
  followers.set(signal, group);
  const abort = (): void => {
    for (const controller of group) controller.abort(signal.reason);
  };
  signal.addEventListener("abort", abort, { once: true });
  return group;
}
