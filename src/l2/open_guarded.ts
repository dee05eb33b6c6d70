import type { AdapterEnvironment, L2Adapter } from "./adapter.ts";
import type { AdapterError } from "./adapter_error.ts";
import { AdapterGuard, type AdapterGuardOptions } from "./adapter_guard.ts";

/**
 * Opens an adapter and guards it. What it reports while it opens is told to its guard.
 *
 * @param open Opens the adapter, which is to report to `onError`. What it throws is thrown.
 */
export async function openGuarded(
  open: (onError: AdapterEnvironment["onError"]) => L2Adapter | Promise<L2Adapter>,
  options: AdapterGuardOptions,
): Promise<AdapterGuard> {
  const early: AdapterError[] = [];
  const opened: { guard?: AdapterGuard } = {};
  const adapter = await open((error) => {
    if (opened.guard === undefined) early.push(error);
    else opened.guard.reportError(error);
  });
  const guard = new AdapterGuard(adapter, options);
  opened.guard = guard;
  for (const error of early) guard.reportError(error);
  return guard;
}
