import type { L2Adapter } from "./contract.ts";

/**
 * Wraps an adapter and overrides the given methods. Optional methods that `inner` lacks stay
 * undefined unless they are given.
 */
export function wrapAdapter(inner: L2Adapter, methods: Partial<L2Adapter>): L2Adapter {
  return {
    get capabilities() {
      return inner.capabilities;
    },
    store: (objects, options) => inner.store(objects, options),
    lookupAndLock: (keys, options) => inner.lookupAndLock(keys, options),
    load: (objects, options) => inner.load(objects, options),
    ...ownMethod(inner, "unlock"),
    ...ownMethod(inner, "touch"),
    ...ownMethod(inner, "delete"),
    ...ownMethod(inner, "list"),
    ...ownMethod(inner, "usage"),
    ...ownMethod(inner, "reportStatus"),
    [Symbol.asyncDispose]: () => inner[Symbol.asyncDispose](),
    ...methods,
  };
}

type OptionalMethod = "unlock" | "touch" | "delete" | "list" | "usage" | "reportStatus";

function ownMethod<Name extends OptionalMethod>(
  adapter: L2Adapter,
  name: Name,
): Pick<L2Adapter, Name> | Record<never, never> {
  const method = adapter[name];
  return method === undefined ? {} : { [name]: method.bind(adapter) };
}
