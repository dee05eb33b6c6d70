import { adaptersDirectory, builtInAdapters } from "../adapters/mod.ts";
import type { TieredCacheOptions } from "./cache_options.ts";
import { asAdapterModule, type L2AdapterModule } from "./adapter/contract.ts";
import { unmetPath } from "./adapter/host_path.ts";
import { ConfigError } from "./base/config_error.ts";
import {
  type AdapterSource,
  builtInAdapterSources,
  discoverAdapters,
  givenAdapter,
} from "./l2/adapter_discovery.ts";
import { AdapterRegistry } from "./l2/adapter_registry.ts";

/** Sources of adapter modules in addition to the built-in ones. */
export type AdapterPlaces = Pick<TieredCacheOptions, "adaptersDir" | "adapters">;

/**
 * Collects the adapter modules that a cache with these options can use.
 *
 * @throws {ConfigError} If `adaptersDir` cannot be listed.
 */
export async function openAdapterRegistry(options: AdapterPlaces): Promise<AdapterRegistry> {
  const { adaptersDir, adapters = [] } = options;
  const given = adapters.map((each, i) => givenAdapter(checkModule(each, i)));
  const found = adaptersDir === undefined ? [] : await listAdaptersDir(adaptersDir);
  const builtIn = await builtInAdapterSources(adaptersDirectory, builtInAdapters);
  return new AdapterRegistry({ builtIn, custom: [...given, ...found] });
}

function checkModule(module: unknown, i: number): L2AdapterModule {
  try {
    return asAdapterModule(module);
  } catch {
    const expected = "a module made by defineL2Adapter(): the default export, not its namespace";
    throw new ConfigError({
      subject: `adapters[${i}]`,
      expected,
      received: module,
      hidden: true,
    });
  }
}

async function listAdaptersDir(directory: string | URL): Promise<AdapterSource[]> {
  const expected = typeof directory === "string" ? unmetPath(directory) : undefined;
  if (expected !== undefined) {
    throw new ConfigError({ subject: "adaptersDir", expected, received: directory });
  }
  try {
    return await discoverAdapters(directory);
  } catch (cause) {
    throw new ConfigError({
      subject: "adaptersDir",
      expected: "a directory that can be listed",
      received: String(directory),
      cause,
    });
  }
}
