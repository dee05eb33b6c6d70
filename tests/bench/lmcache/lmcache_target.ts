import type { BenchTarget, Round } from "../l2/target.ts";
import type { LmcacheServer } from "./lmcache_server.ts";

/** One of LMCache's own adapters, in a directory of its own. */
export class LmcacheTarget implements BenchTarget {
  /** Name in the results. */
  readonly name: string;
  /** LMCache looks each key up. */
  readonly lookupKinds = ["each"] as const;
  /** Time of the last operation as LMCache's process measures it: without the pipe between us. */
  ownMs = NaN;
  readonly #server: LmcacheServer;
  readonly #adapter: number;

  private constructor(server: LmcacheServer, name: string, adapter: number) {
    this.#server = server;
    this.name = name;
    this.#adapter = adapter;
  }

  /**
   * Opens an adapter with its defaults.
   *
   * @param type `fs` or `fs_native`.
   * @throws {Error} If LMCache cannot create it.
   */
  static async open(server: LmcacheServer, type: string, path: string): Promise<LmcacheTarget> {
    const { adapter = NaN } = await server.call({ op: "open", config: { type, base_path: path } });
    return new LmcacheTarget(server, `lmcache-${type}`, adapter);
  }

  /** Stores objects of the process's own. */
  store({ keys, inFlight }: Round): Promise<number> {
    return this.#measure("store", keys, inFlight);
  }

  /** Looks keys up; giving the locks back is not measured. */
  lookup({ lookups, inFlight }: Round): Promise<number> {
    return this.#measure("lookup", lookups, inFlight);
  }

  /** Loads the objects into other buffers of the process, and compares them there afterwards. */
  async load({ keys, inFlight, buffers, onLoaded }: Round): Promise<number> {
    const done = await this.#measure("load", keys, inFlight);
    for (const [index, { payload }] of buffers.sources.entries()) {
      onLoaded?.(index, done === keys.length ? payload : new Uint8Array());
    }
    return done;
  }

  /** Removes the objects. */
  async clear({ keys }: Round): Promise<void> {
    await this.#server.call({ op: "delete", adapter: this.#adapter, keys: hashesOf(keys) });
  }

  /** Closes the adapter. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.call({ op: "close", adapter: this.#adapter });
  }

  async #measure(op: string, keys: Round["keys"], calls: number): Promise<number> {
    const request = { op, adapter: this.#adapter, keys: hashesOf(keys), calls };
    const { ms = NaN, done = 0 } = await this.#server.call(request);
    this.ownMs = ms;
    return done;
  }
}

function hashesOf(keys: Round["keys"]): string[] {
  return keys.map(({ chunkHashHex }) => chunkHashHex);
}
