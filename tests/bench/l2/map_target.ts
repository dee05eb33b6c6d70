import type { BenchTarget, Round } from "./target.ts";

/** The plainest loop over host memory: a new array for each object, and copies. */
export class MapTarget implements BenchTarget {
  /** Name in the results. */
  readonly name: string;
  /** There is nothing to search in. */
  readonly lookupKinds = ["each"] as const;
  readonly #held = new Map<string, Uint8Array>();

  /** Nothing is held yet. */
  constructor(name: string) {
    this.name = name;
  }

  /** Copies each payload. */
  store({ keys, buffers: { sources } }: Round): Promise<number> {
    for (const [i, { id }] of keys.entries()) {
      this.#held.set(id, sources[i]?.payload.slice() ?? new Uint8Array());
    }
    return Promise.resolve(keys.length);
  }

  /** Asks for each. */
  lookup({ lookups }: Round): Promise<number> {
    return Promise.resolve(lookups.filter(({ id }) => this.#held.has(id)).length);
  }

  /** Copies each into its buffer. */
  load({ keys, buffers: { aligned }, onLoaded }: Round): Promise<number> {
    let count = 0;
    for (const [i, { id }] of keys.entries()) {
      const bytes = this.#held.get(id);
      if (bytes === undefined) continue;
      aligned[i]?.payload.set(bytes);
      onLoaded?.(i, bytes);
      count++;
    }
    return Promise.resolve(count);
  }

  /** Forgets the objects. */
  clear({ keys }: Round): Promise<void> {
    for (const { id } of keys) this.#held.delete(id);
    return Promise.resolve();
  }

  /** Nothing is open. */
  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}
