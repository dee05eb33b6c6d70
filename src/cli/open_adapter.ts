import type { AdapterGuard } from "../l2/adapter_guard.ts";
import { DEFAULT_ADAPTER_TIMEOUTS } from "../l2/adapter_status.ts";
import { openGuarded } from "../l2/open_guarded.ts";
import { withOpen } from "../l2/open_inner.ts";
import { systemClock } from "../base/clock.ts";
import { checkConfig, type L2Config } from "../hotplug/adapter_manager.ts";
import { type AdapterPlaces, openAdapterRegistry } from "../known_adapters.ts";

/**
 * Opens an adapter without a cache.
 *
 * @throws {ConfigError} If its configuration is not valid.
 */
export async function openAdapter(
  config: L2Config,
  places: AdapterPlaces = {},
): Promise<{ guard: AdapterGuard } & AsyncDisposable> {
  const registry = await openAdapterRegistry(places);
  const { module, values } = await checkConfig(registry, config);
  const guard = await openGuarded(
    (reports) =>
      module.create(
        values,
        withOpen(registry, {
          clock: systemClock,
          signal: new AbortController().signal,
          l1Memory: { type: "host", maxObjectBytes: 2 ** 31, alignmentBytes: 256 },
          ...reports,
        }),
      ),
    { id: 0, type: module.type, clock: systemClock, timeouts: DEFAULT_ADAPTER_TIMEOUTS },
  );
  return { guard, [Symbol.asyncDispose]: () => guard.close() };
}
