import { AdapterError, type ObjectKey } from "../../src/l2/adapter.ts";

/** What went wrong within one call, object by object. */
export class Failures {
  readonly #adapter: string;
  readonly #operation: string;
  readonly #first = new Map<string, { readonly key: ObjectKey; readonly cause: unknown }>();
  #count = 0;

  /** Of a call of the kind `operation` to an adapter of the type `adapter`. */
  constructor(adapter: string, operation: string) {
    this.#adapter = adapter;
    this.#operation = operation;
  }

  /** Notes that an object failed. */
  add(key: ObjectKey, cause: unknown): void {
    this.#count++;
    const code = cause instanceof Error ? String(Reflect.get(cause, "code") ?? cause.name) : "";
    if (!this.#first.has(code)) this.#first.set(code, { key, cause });
  }

  /** Whether so many objects failed. */
  isAll(count: number): boolean {
    return count > 0 && this.#count >= count;
  }

  /** One error for each kind of failure. */
  errors(): AdapterError[] {
    return [...this.#first.values()].map(({ key, cause }) =>
      new AdapterError({ adapter: this.#adapter, operation: this.#operation, key, cause })
    );
  }
}
