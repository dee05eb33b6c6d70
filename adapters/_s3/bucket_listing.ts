import type { FoundObject } from "../_shared/capacity.ts";
import { KEY_HEADER, type ObjectNames } from "./object_names.ts";
import type { S3Client } from "./s3_client.ts";
import { codeIn, S3Error } from "./s3_error.ts";
import { elementsIn, tagIn } from "./xml.ts";

/** Objects on one page: as many as servers give. */
const PAGE_OBJECTS = 1_000;

/** What is listed, and how. */
export interface ListingOptions {
  /** The bucket. */
  readonly client: S3Client;
  /** How objects are called. */
  readonly names: ObjectNames;
  /** Only objects of this model; left out, all. */
  readonly model?: string | undefined;
  /** Told that an object is there whose key cannot be told. */
  readonly onUnread: () => void;
  /** Aborts when nobody wants more. */
  readonly signal: AbortSignal;
}

/** An object in a bucket. */
export type ListedInBucket = FoundObject & { readonly byteLength: number };

/**
 * The objects in a bucket whose keys can be told, a page at a time.
 *
 * @throws {S3Error} If the server refuses.
 */
export async function* listBucket(options: ListingOptions): AsyncIterable<ListedInBucket[]> {
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
      // What is not listed would count as removed.
      if (next === undefined || next === token) {
        throw new S3Error(200, "IncompleteListing", "GET");
      }
      token = next;
    } while (!options.signal.aborted);
  }
}

async function readPage(
  { client, signal }: ListingOptions,
  prefix: string,
  token: string | undefined,
): Promise<string> {
  const query = {
    "list-type": "2",
    "max-keys": String(PAGE_OBJECTS),
    prefix,
    // What lies deeper belongs to others: it is not even listed.
    delimiter: "/",
    ...(token === undefined ? {} : { "continuation-token": token }),
  };
  return await client.request({ method: "GET", query }, signal, async (response) => {
    const text = await response.text();
    const code = codeIn(text);
    if (code !== undefined) throw new S3Error(response.status, code, "GET");
    // A page that breaks off would look like the last one.
    if (!text.includes("</ListBucketResult>")) throw new S3Error(200, "IncompleteBody", "GET");
    return text;
  });
}

async function readEntry(
  { client, names, model, onUnread, signal }: ListingOptions,
  element: string,
): Promise<ListedInBucket | undefined> {
  const name = tagIn(element, "Key") ?? "";
  const size = Number(tagIn(element, "Size") || NaN);
  let key = names.keyIn(name);
  if (names.isHashed(name)) {
    const header = await readKeyHeader(client, name, signal);
    if (header === undefined) return undefined;
    key = names.keyInHeader(name, header);
    if (key === null) onUnread();
  }
  if (key === null) return undefined;
  if (model !== undefined && key.model !== model) return undefined;
  const modified = Date.parse(tagIn(element, "LastModified") ?? "");
  // What is there has to be listed, whatever its size is said to be.
  const byteLength = Number.isSafeInteger(size) && size >= 0 ? size : 0;
  return { key, byteLength, usedAt: Number.isNaN(modified) ? undefined : modified };
}

/** What an object says of its key; `undefined` if it was removed meanwhile. */
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
