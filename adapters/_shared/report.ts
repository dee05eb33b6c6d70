import { AdapterError, type ObjectKey } from "../../src/adapter/contract.ts";

/** Reports a failure of an operation, and the object that it affected. */
export type Report = (operation: string, cause: unknown, key?: ObjectKey) => void;

/** Creates the function that reports the failures of an adapter. */
export function reportTo(adapter: string, onError: (error: AdapterError) => void): Report {
  return (operation, cause, key) =>
    onError(new AdapterError({ adapter, operation, cause, ...(key && { key }) }));
}
