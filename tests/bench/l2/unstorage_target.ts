import { type BenchTarget, countInParallel, type Round } from "./target.ts";

/** Objects at a time. */
const CONCURRENCY = 8;

/** Opens unstorage with its driver for files, which neither checks objects nor writes atomically. */
export async function openUnstorageTarget(directory: string): Promise<BenchTarget> {
  const { createStorage } = await import("npm:unstorage@^1.17.6");
  const { default: fsDriver } = await import("npm:unstorage@^1.17.6/drivers/fs-lite");
  const storage = createStorage({ driver: fsDriver({ base: directory }) });
  const each = ({ length }: Round["keys"], run: (index: number) => Promise<boolean>) =>
    countInParallel(length, CONCURRENCY, run);
  return {
    name: "unstorage",
    concurrency: CONCURRENCY,
    lookupKinds: ["each"],
    store: ({ keys, buffers: { sources } }) =>
      each(keys, async (index) => {
        await storage.setItemRaw(keys[index]?.chunkHashHex ?? "", sources[index]?.payload);
        return true;
      }),
    lookup: ({ lookups }) =>
      each(lookups, (index) => storage.hasItem(lookups[index]?.chunkHashHex ?? "")),
    load: ({ keys, buffers: { layout }, onLoaded }) =>
      each(keys, async (index) => {
        const bytes = await storage.getItemRaw<Uint8Array>(keys[index]?.chunkHashHex ?? "");
        if (bytes === null) return false;
        onLoaded?.(index, bytes);
        return bytes.byteLength === layout.byteLength;
      }),
    clear: () => storage.clear(),
    [Symbol.asyncDispose]: () => storage.dispose(),
  };
}
