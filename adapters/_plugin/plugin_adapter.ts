import type { L2Adapter } from "../../src/l2/adapter.ts";

const REQUIRED = ["store", "lookupAndLock", "load", Symbol.asyncDispose] as const;

/** Where an adapter comes from. */
export interface PluginOrigin {
  /** The module, as the configuration names it. */
  readonly module: string;
  /** The type that it declares. */
  readonly type: string;
}

/** What an adapter lacks that all adapters have; `undefined` if it lacks nothing. */
export function whatIsMissing(made: L2Adapter): string | undefined {
  const missing = REQUIRED.filter((name) => typeof made?.[name] !== "function").map(String);
  if (typeof made?.capabilities !== "object") missing.unshift("capabilities");
  return missing.length === 0 ? undefined : missing.join(", ");
}

/** An adapter whose status says where it comes from. */
export function withOrigin(adapter: L2Adapter, origin: PluginOrigin): L2Adapter {
  return {
    get capabilities() {
      return adapter.capabilities;
    },
    store: (objects, options) => adapter.store(objects, options),
    lookupAndLock: (keys, options) => adapter.lookupAndLock(keys, options),
    load: (objects, options) => adapter.load(objects, options),
    ...bind(adapter, "unlock"),
    ...bind(adapter, "delete"),
    ...bind(adapter, "list"),
    ...bind(adapter, "usage"),
    reportStatus: () => ({ ...adapter.reportStatus?.(), plugin: { ...origin } }),
    [Symbol.asyncDispose]: () => adapter[Symbol.asyncDispose](),
  };
}

/** A method that an adapter may have, bound to it. */
function bind<Name extends "unlock" | "delete" | "list" | "usage">(
  adapter: L2Adapter,
  name: Name,
): Pick<L2Adapter, Name> | Record<never, never> {
  const method = adapter[name];
  return method === undefined ? {} : { [name]: method.bind(adapter) };
}
