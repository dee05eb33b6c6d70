import type { AdapterEnvironment, L2Adapter } from "../adapter/contract.ts";
import type { AdapterError } from "../adapter/errors.ts";
import { AdapterGuard, type AdapterGuardOptions } from "./adapter_guard.ts";

/** Reports that an adapter makes by itself. */
export type AdapterReports = Required<Pick<AdapterEnvironment, "onError" | "onEvicted">>;

/**
 * Opens an adapter and wraps it in a guard. Errors reported during opening are passed to the guard.
 *
 * @param open Opens the adapter with the given report callbacks. Its exceptions are propagated.
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
    // Nothing has counted objects that are evicted during opening.
    onEvicted: (keys) => opened.guard?.reportEvicted(keys),
  });
  const guard = new AdapterGuard(adapter, options);
  opened.guard = guard;
  for (const error of early) guard.reportError(error);
  return guard;
}
