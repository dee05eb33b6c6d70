import type { L2Adapter } from "../../src/l2/adapter.ts";
import { wrapAdapter } from "../../src/l2/wrap_adapter.ts";

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
  return wrapAdapter(adapter, {
    reportStatus: () => ({ ...adapter.reportStatus?.(), plugin: { ...origin } }),
  });
}
