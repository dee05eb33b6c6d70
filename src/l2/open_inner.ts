import type { AdapterEnvironment } from "../adapter/contract.ts";
import { parseAdapterConfig } from "../adapter/config.ts";
import type { AdapterRegistry } from "./adapter_registry.ts";

/** Adds `open` to an environment, so that adapters can open others of the types in a registry. */
export function withOpen(
  registry: AdapterRegistry,
  environment: AdapterEnvironment,
): AdapterEnvironment {
  const full: AdapterEnvironment = {
    ...environment,
    open: async (config) => {
      const module = await registry.resolve(config.type);
      // The values have the types that this module declares.
      const values = parseAdapterConfig(module, config) as Record<string, never>;
      return await module.create(values, full);
    },
  };
  return full;
}
