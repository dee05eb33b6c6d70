const followers = new WeakMap<AbortSignal, Set<AbortController>>();

/** A signal that follows another one until it is disposed. */
export interface FollowingSignal extends Disposable {
  /** Meant for one listener. */
  readonly signal: AbortSignal;
}

/**
 * Creates a signal of its own for each listener. With many listeners on one signal, adding and
 * removing each is linear in their number.
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
