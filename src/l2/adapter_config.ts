import { nearestName } from "../base/options.ts";
import { ConfigError } from "../base/config_error.ts";
import { parseAdapterConfig } from "../adapter/config.ts";
import type { InnerConfig, L2AdapterModule } from "../adapter/contract.ts";
import type { AdapterRegistry } from "./adapter_registry.ts";
import { type AdapterEviction, parseEviction } from "./eviction_config.ts";
import { type CheckedTransform, parseSerde } from "./transforms/serde.ts";

/** Configuration of a storage adapter: its type and the keys that the type declares. */
export interface L2Config extends InnerConfig {
  /** Capacity and eviction, unless the adapter handles them itself; see docs/adapters.md. */
  readonly eviction?: unknown;
  /** Transforms of the stored bytes; see docs/transforms.md. */
  readonly serde?: unknown;
}

/** A validated configuration. */
export interface CheckedConfig {
  readonly module: L2AdapterModule;
  /** Values passed to the adapter. */
  readonly values: Record<string, never>;
  /** Transforms of the stored bytes. */
  readonly serde?: readonly CheckedTransform[] | undefined;
  /** Limits that the cache enforces on it. */
  readonly eviction?: AdapterEviction | undefined;
}

/**
 * Resolves the module of a configuration and validates its values.
 *
 * @param subject Subject of error messages while the type is unknown.
 * @throws {ConfigError} If the type is unknown or a value is not valid.
 */
export async function checkConfig(
  registry: AdapterRegistry,
  config: L2Config,
  subject = "adapter configuration",
): Promise<CheckedConfig> {
  const given: unknown = config;
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    const expected = 'an object, like { type: "fs", base_path: "/data/kv" }';
    throw new ConfigError({ subject, expected, received: given, hidden: true });
  }
  if (typeof config.type !== "string") {
    const meant = Object.keys(given).find((key) => nearestName(key, ["type"]) !== undefined);
    const hint = meant === undefined || meant === "type"
      ? ""
      : ` (did you mean "type" instead of "${meant}"?)`;
    const expected = `the name of an adapter type, as a string${hint}`;
    const received = "type" in given ? given.type : given;
    throw new ConfigError({ subject, key: "type", expected, received, hidden: true });
  }
  return checkValues(await registry.resolve(config.type), config);
}

/**
 * Validates the configuration of a module. The cache handles `eviction` and `serde`, unless the
 * module declares them itself.
 *
 * @throws {ConfigError} If a value is not valid.
 */
export function checkValues(
  module: L2AdapterModule,
  config: Readonly<Record<string, unknown>>,
): CheckedConfig {
  const { type } = module;
  const own = { ...config };
  const take = (key: string): unknown => {
    if (key in module.config) return undefined;
    delete own[key];
    return config[key];
  };
  const [eviction, serde] = [take("eviction"), take("serde")];
  return {
    module,
    serde: serde === undefined ? undefined : parseSerde(type, serde),
    // The values have the types that this module declares.
    values: parseAdapterConfig(module, own) as Record<string, never>,
    eviction: eviction === undefined ? undefined : parseEviction(type, eviction),
  };
}
