import { AdapterError, type ObjectKey } from "../../src/adapter/contract.ts";

/** Collects the failures of one call, by object. */
export class Failures {
  readonly #adapter: string;
  readonly #operation: string;
  readonly #first = new Map<string, { readonly key: ObjectKey; readonly cause: unknown }>();
  #count = 0;

  /**
   * @param adapter Adapter type that errors name.
   * @param operation Kind of call, such as `store`.
   */
  constructor(adapter: string, operation: string) {
    this.#adapter = adapter;
    this.#operation = operation;
  }

  /**
   * Records the failure of one object.
   *
   * @param isOutage Whether other calls are likely to fail too.
   */
  add(key: ObjectKey, cause: unknown, isOutage = true): void {
    if (isOutage) this.#count++;
    const code = cause instanceof Error ? String(Reflect.get(cause, "code") ?? cause.name) : "";
    if (!this.#first.has(code)) this.#first.set(code, { key, cause });
  }

  /** A function that records failures until `signal` aborts. */
  adderUntil(signal: AbortSignal): (key: ObjectKey, cause: unknown) => void {
    return (key, cause) => {
      if (!signal.aborted) this.add(key, cause);
    };
  }

  /**
   * Reports one error for each distinct error code.
   *
   * @param total Number of objects of the call.
   * @throws {AdapterError} If there was an outage for all objects.
   */
  report(total: number, onError: (error: AdapterError) => void): void {
    const [adapter, operation] = [this.#adapter, this.#operation];
    for (const { key, cause } of this.#first.values()) {
      const error = new AdapterError({ adapter, operation, key, cause });
      if (this.#count >= total) throw error;
      onError(error);
    }
  }
}
