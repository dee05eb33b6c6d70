import type { FoundObject } from "../../src/adapter/contract.ts";
import type { ScanCall } from "../_remote/remote_store.ts";
import { KEY_HEADER, type S3ObjectNames } from "./object_names.ts";
import type { S3Client } from "./s3_client.ts";
import { codeIn, S3Error } from "./s3_error.ts";
import { elementsIn, tagIn } from "./xml.ts";

/** Objects per page: the maximum that servers return. */
const PAGE_OBJECTS = 1_000;

/** One scan of a bucket. */
export interface BucketScan extends ScanCall {
  readonly client: S3Client;
  readonly names: S3ObjectNames;
}

/**
 * Lists the objects in a bucket whose keys can be determined, page by page.
 *
 * @throws {S3Error} If the server refuses.
 */
export async function* listBucket(options: BucketScan): AsyncIterable<FoundObject[]> {
  for (const prefix of options.names.prefixesOf(options.model)) {
    let token: string | undefined;
    do {
      const page = await readPage(options, prefix, token);
      const objects = await Promise.all(
        elementsIn(page, "Contents").map((element) => readEntry(options, element)),
      );
      yield objects.filter((object) => object !== undefined);
      if (tagIn(page, "IsTruncated") !== "true") break;
      const next = tagIn(page, "NextContinuationToken");
      // Objects missing from the list would count as removed.
      if (next === undefined || next === token) {
        throw new S3Error(200, "IncompleteListing", "GET");
      }
      token = next;
    } while (!options.signal.aborted);
  }
}

async function readPage(
  { client, signal }: BucketScan,
  prefix: string,
  token: string | undefined,
): Promise<string> {
  const query = {
    "list-type": "2",
    "max-keys": String(PAGE_OBJECTS),
    prefix,
    // Names with a further "/" belong to other prefixes.
    delimiter: "/",
    ...(token === undefined ? {} : { "continuation-token": token }),
  };
  return await client.request({ method: "GET", query }, signal, async (response) => {
    const text = await response.text();
    const code = codeIn(text);
    if (code !== undefined) throw new S3Error(response.status, code, "GET");
    // A truncated page would look like the last one.
    if (!text.includes("</ListBucketResult>")) throw new S3Error(200, "IncompleteBody", "GET");
    return text;
  });
}

async function readEntry(
  { client, names, model, onUnread, signal }: BucketScan,
  element: string,
): Promise<FoundObject | undefined> {
  const name = tagIn(element, "Key") ?? "";
  const size = Number(tagIn(element, "Size") || NaN);
  let key = names.keyIn(name);
  if (names.isHashed(name)) {
    const header = await readKeyHeader(client, name, signal);
    if (header === undefined) return undefined;
    key = names.keyInHeader(name, header);
    if (key === null) onUnread("they lack the metadata kvtier-key");
  }
  if (key === null) return undefined;
  if (model !== undefined && key.model !== model) return undefined;
  const modified = Date.parse(tagIn(element, "LastModified") ?? "");
  // An object with an invalid size must be listed too.
  const byteLength = Number.isSafeInteger(size) && size >= 0 ? size : 0;
  return { key, byteLength, usedAt: Number.isNaN(modified) ? undefined : modified };
}

/** The key in an object's metadata; `undefined` if the object was removed meanwhile. */
async function readKeyHeader(
  client: S3Client,
  name: string,
  signal: AbortSignal,
): Promise<string | null | undefined> {
  const request = { method: "HEAD", name, answers: [404] } as const;
  return await client.request(request, signal, ({ status, headers }) => {
    return status === 404 ? undefined : headers.get(KEY_HEADER);
  });
}
