import { Buffer } from "node:buffer";
import { type BenchTarget, countInParallel, type Round } from "./target.ts";

/** What is used of cacache. */
interface Cacache {
  put(directory: string, key: string, data: Buffer): Promise<unknown>;
  readonly get: {
    (
      directory: string,
      key: string,
      options: { readonly memoize: boolean },
    ): Promise<{ readonly data: Buffer }>;
    info(directory: string, key: string, options: { readonly memoize: boolean }): Promise<unknown>;
  };
  readonly rm: { all(directory: string): Promise<unknown> };
}

/** Objects at a time. */
const CONCURRENCY = 8;

/** Opens npm's content-addressed cache, which checks a SHA-512 of each object. */
export async function openCacacheTarget(directory: string): Promise<BenchTarget> {
  const cacache: Cacache = (await import("npm:cacache@^21.0.2")).default;
  const each = ({ length }: Round["keys"], run: (index: number) => Promise<boolean>) =>
    countInParallel(length, CONCURRENCY, run);
  const memoize = false;
  return {
    name: "cacache",
    concurrency: CONCURRENCY,
    lookupKinds: ["each"],
    store: ({ keys, buffers: { sources } }) =>
      each(keys, async (index) => {
        const { buffer, byteLength } = sources[index]?.payload ?? new Uint8Array();
        await cacache.put(directory, keys[index]?.id ?? "", Buffer.from(buffer, 0, byteLength));
        return true;
      }),
    lookup: ({ lookups }) =>
      each(
        lookups,
        async (index) =>
          await cacache.get.info(directory, lookups[index]?.id ?? "", { memoize }) !== null,
      ),
    load: ({ keys, buffers: { layout }, onLoaded }) =>
      each(keys, async (index) => {
        const { data } = await cacache.get(directory, keys[index]?.id ?? "", { memoize });
        onLoaded?.(index, data);
        return data.byteLength === layout.byteLength;
      }),
    clear: async () => void await cacache.rm.all(directory),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
