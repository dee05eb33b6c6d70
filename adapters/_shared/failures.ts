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

  /** Records the failure of one object. */
  add(key: ObjectKey, cause: unknown): void {
    this.#count++;
    const code = cause instanceof Error ? String(Reflect.get(cause, "code") ?? cause.name) : "";
    if (!this.#first.has(code)) this.#first.set(code, { key, cause });
  }

  /** Whether at least `count` objects failed. */
  isAll(count: number): boolean {
    return count > 0 && this.#count >= count;
  }

  /** One error for each distinct error code. */
  errors(): AdapterError[] {
    return [...this.#first.values()].map(({ key, cause }) =>
      new AdapterError({ adapter: this.#adapter, operation: this.#operation, key, cause })
    );
  }
}
