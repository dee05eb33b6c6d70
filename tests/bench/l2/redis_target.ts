import { Buffer } from "node:buffer";
import { createClient, RESP_TYPES } from "@redis/client";
import { type BenchTarget, countInParallel, type Round } from "./target.ts";

/** Plain commands of the client that the `resp` adapter uses, on one connection. */
export async function openRedisTarget(port: number, concurrency: number): Promise<BenchTarget> {
  const client = createClient({
    RESP: 2,
    socket: { host: "127.0.0.1", port, reconnectStrategy: false },
    commandOptions: { typeMapping: { [RESP_TYPES.BLOB_STRING]: Buffer } },
  });
  client.on("error", () => {});
  await client.connect();
  const each = ({ length }: Round["keys"], run: (index: number) => Promise<boolean>) =>
    countInParallel(length, concurrency, run);
  const nameOf = (key: Round["keys"][number] | undefined): string => `plain:${key?.chunkHashHex}`;
  return {
    name: "limit-resp",
    concurrency,
    lookupKinds: ["each"],
    store: ({ keys, buffers: { sources } }) =>
      each(keys, async (index) => {
        const { buffer, byteLength } = sources[index]?.payload ?? new Uint8Array();
        await client.sendCommand(["SET", nameOf(keys[index]), Buffer.from(buffer, 0, byteLength)]);
        return true;
      }),
    lookup: ({ lookups }) =>
      each(lookups, async (index) => await client.exists(nameOf(lookups[index])) === 1),
    load: ({ keys, buffers: { layout }, onLoaded }) =>
      each(keys, async (index) => {
        const bytes = await client.sendCommand<Buffer | null>(["GET", nameOf(keys[index])]);
        if (bytes === null) return false;
        onLoaded?.(index, bytes);
        return bytes.byteLength === layout.byteLength;
      }),
    clear: async ({ keys }) => void await client.del(keys.map(nameOf)),
    [Symbol.asyncDispose]: () => Promise.resolve(client.destroy()),
  };
}
