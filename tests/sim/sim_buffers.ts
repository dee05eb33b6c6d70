import type { AdapterObject } from "../../src/adapter/contract.ts";

type Use = "store" | "load";

/**
 * Buffers in use by calls to adapters: a buffer that one call fills must not be used by another.
 */
export class SimBuffers {
  readonly #uses = new Map<ArrayBufferLike, Record<Use, number>>();

  /** Marks the buffers of objects as used by a call until the result is disposed. */
  lend(
    objects: readonly AdapterObject[],
    use: Use,
    violated: (what: string) => void,
  ): Disposable {
    const buffers = new Set(objects.flatMap(({ parts }) => parts.map(({ buffer }) => buffer)));
    for (const buffer of buffers) {
      const uses = this.#uses.get(buffer) ?? { store: 0, load: 0 };
      if (uses.load > 0 || (use === "load" && uses.store > 0)) {
        violated(`a ${use} is lent a buffer that another call still uses`);
      }
      uses[use]++;
      this.#uses.set(buffer, uses);
    }
    return {
      [Symbol.dispose]: () => {
        for (const buffer of buffers) {
          const uses = this.#uses.get(buffer);
          if (uses === undefined) continue;
          uses[use]--;
          if (uses.load + uses.store === 0) this.#uses.delete(buffer);
        }
      },
    };
  }
}
