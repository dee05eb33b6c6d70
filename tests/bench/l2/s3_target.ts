import { AwsClient } from "aws4fetch";
import { type BenchTarget, countInParallel, type Round } from "./target.ts";

/** Plain requests of the client that the `s3` adapter uses, to a bucket. */
export function openS3Target(
  bucket: string,
  keys: { readonly accessKeyId: string; readonly secretAccessKey: string },
  concurrency: number,
): BenchTarget {
  const client = new AwsClient({ ...keys, service: "s3", region: "us-east-1", retries: 0 });
  const each = ({ length }: Round["keys"], run: (index: number) => Promise<boolean>) =>
    countInParallel(length, concurrency, run);
  const send = (
    method: string,
    key: Round["keys"][number] | undefined,
    body?: Uint8Array<ArrayBuffer>,
  ): Promise<Response> =>
    client.fetch(`${bucket}/plain/${key?.chunkHashHex}`, {
      method,
      ...(body === undefined ? {} : { body }),
    });
  const isDone = async (response: Response): Promise<boolean> => {
    await response.body?.cancel();
    return response.ok;
  };
  return {
    name: "limit-s3",
    concurrency,
    lookupKinds: ["each"],
    store: ({ keys, buffers: { sources } }) =>
      each(
        keys,
        async (index) => isDone(await send("PUT", keys[index], sources[index]?.payload)),
      ),
    lookup: ({ lookups }) =>
      each(lookups, async (index) => isDone(await send("HEAD", lookups[index]))),
    load: ({ keys, buffers: { layout }, onLoaded }) =>
      each(keys, async (index) => {
        const bytes = new Uint8Array(await (await send("GET", keys[index])).arrayBuffer());
        onLoaded?.(index, bytes);
        return bytes.byteLength === layout.byteLength;
      }),
    clear: async ({ keys }) =>
      void await each(keys, async (index) => isDone(await send("DELETE", keys[index]))),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
