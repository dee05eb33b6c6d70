import type { L2Adapter } from "./contract.ts";

/** Methods that tell by their presence what an adapter can do. */
const OPTIONAL = ["unlock", "touch", "delete", "list", "usage", "sweep"] as const;

/**
 * Wraps an adapter and overrides members; getters stay getters. The wrapper has an optional method
 * only if `inner` has it, whether it is overridden or not; `reportStatus` can be added.
 *
 * @typeParam Extra Members that the wrapper has in addition to those of an adapter.
 */
export function wrapAdapter<Extra extends object = object>(
  inner: L2Adapter,
  overrides: Partial<L2Adapter> & NoInfer<Extra>,
): L2Adapter & NoInfer<Extra> {
  const members = Object.getOwnPropertyDescriptors<Partial<L2Adapter>>(overrides);
  for (const name of OPTIONAL) if (inner[name] === undefined) delete members[name];
  const passing: L2Adapter = {
    get capabilities() {
      return inner.capabilities;
    },
    store: (objects, options) => inner.store(objects, options),
    lookupAndLock: (keys, options) => inner.lookupAndLock(keys, options),
    load: (objects, options) => inner.load(objects, options),
    [Symbol.asyncDispose]: () => inner[Symbol.asyncDispose](),
  };
  for (const name of [...OPTIONAL, "reportStatus"] as const) {
    if (inner[name] !== undefined) Object.assign(passing, { [name]: inner[name].bind(inner) });
  }
  return Object.defineProperties(passing, members) as L2Adapter & Extra;
}
