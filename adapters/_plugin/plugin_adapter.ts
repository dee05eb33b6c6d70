import type { L2Adapter } from "../../src/adapter/contract.ts";
import { wrapAdapter } from "../../src/adapter/wrap_adapter.ts";

const REQUIRED = ["store", "lookupAndLock", "load", Symbol.asyncDispose] as const;

/** Origin of an adapter. */
export interface PluginOrigin {
  /** Module specifier from the configuration. */
  readonly module: string;
  /** Adapter type that the module declares. */
  readonly type: string;
}

/** Lists the required members that an adapter lacks; `undefined` if it has all. */
export function whatIsMissing(made: L2Adapter): string | undefined {
  const missing = REQUIRED.filter((name) => typeof made?.[name] !== "function").map(String);
  if (typeof made?.capabilities !== "object") missing.unshift("capabilities");
  return missing.length === 0 ? undefined : missing.join(", ");
}

/** Adds the origin of an adapter to its status. */
export function withOrigin(adapter: L2Adapter, origin: PluginOrigin): L2Adapter {
  return wrapAdapter(adapter, {
    reportStatus: () => ({ ...adapter.reportStatus?.(), plugin: { ...origin } }),
  });
}
