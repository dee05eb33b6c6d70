import type { AdapterEnvironment, L2Adapter } from "./adapter.ts";
import type { AdapterError } from "./adapter_error.ts";
import { AdapterGuard, type AdapterGuardOptions } from "./adapter_guard.ts";

/** What an adapter reports without being asked. */
export type AdapterReports = Required<Pick<AdapterEnvironment, "onError" | "onEvicted">>;

/**
 * Opens an adapter and guards it. What it reports while it opens is told to its guard.
 *
 * @param open Opens the adapter, which is to make these reports. What it throws is thrown.
 */
export async function openGuarded(
  open: (reports: AdapterReports) => L2Adapter | Promise<L2Adapter>,
  options: AdapterGuardOptions,
): Promise<AdapterGuard> {
  const early: AdapterError[] = [];
  const opened: { guard?: AdapterGuard } = {};
  const adapter = await open({
    onError(error) {
      if (opened.guard === undefined) early.push(error);
      else opened.guard.reportError(error);
    },
    // What it removes while it opens has not been counted by anything yet.
    onEvicted: (keys) => opened.guard?.reportEvicted(keys),
  });
  const guard = new AdapterGuard(adapter, options);
  opened.guard = guard;
  for (const error of early) guard.reportError(error);
  return guard;
}
