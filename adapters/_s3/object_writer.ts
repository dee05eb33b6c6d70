import type { AdapterObject, Clock } from "../../src/adapter/contract.ts";
import { forEachPart } from "../_remote/split_values.ts";
import { BodyComposer } from "./body_composer.ts";
import type { S3ObjectNames } from "./object_names.ts";
import type { S3Client, S3Request } from "./s3_client.ts";
import { codeIn, S3Error } from "./s3_error.ts";
import { escapeXml, tagIn } from "./xml.ts";

/** Max parts of an upload. */
const MAX_PARTS = 10_000;
/** Max time that closing waits for uploads to be aborted, in milliseconds. */
const LAST_ABORTS_MS = 5_000;
const encoder = new TextEncoder();

/** Options of an {@linkcode S3ObjectWriter}. */
export interface S3ObjectWriterOptions {
  readonly client: S3Client;
  readonly names: S3ObjectNames;
  /** Bytes of a part. */
  readonly partBytes: number;
  /** Objects with more bytes are uploaded in parts. */
  readonly multipartAboveBytes: number;
  /** Whether an existing object of the right size is kept. */
  readonly putsIfAbsent: boolean;
  readonly clock: Clock;
}

/**
 * Writes objects: in one request, or as a multipart upload that becomes visible when it completes.
 */
export class S3ObjectWriter implements AsyncDisposable {
  readonly #options: S3ObjectWriterOptions;
  readonly #bodies = new BodyComposer();
  /** Aborts multipart uploads. */
  readonly #stopping = new AbortController();
  /** Aborts all requests. */
  readonly #closing = new AbortController();
  /** Multipart uploads in progress. */
  readonly #uploads = new Set<Promise<void>>();
  /** Multipart uploads being aborted. */
  readonly #aborts = new Set<Promise<void>>();

  constructor(options: S3ObjectWriterOptions) {
    this.#options = options;
  }

  /**
   * Writes one object.
   *
   * @returns Bytes written; 0 if an existing object was kept.
   * @throws {S3Error} If the server refuses.
   * @throws If the server does not answer, or `signal` aborts; the object may exist then.
   */
  async write(object: AdapterObject, signal: AbortSignal): Promise<number> {
    const { multipartAboveBytes, putsIfAbsent } = this.#options;
    const write = object.byteLength > multipartAboveBytes
      ? this.#upload.bind(this)
      : this.#writeWhole.bind(this);
    if (!putsIfAbsent) {
      await write(object, {}, signal);
      return object.byteLength;
    }
    if (object.byteLength > multipartAboveBytes && await this.#isWhole(object, signal)) return 0;
    try {
      await write(object, { "if-none-match": "*" }, signal);
      return object.byteLength;
    } catch (error) {
      if (!(error instanceof S3Error) || error.status !== 412) throw error;
    }
    if (await this.#isWhole(object, signal)) return 0;
    // Something else has the object's name, which would be a permanent miss.
    await write(object, {}, signal);
    return object.byteLength;
  }

  /** Aborts multipart uploads, whose parts would be billed. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    if (this.#uploads.size + this.#aborts.size === 0) return;
    const cancel = this.#options.clock.schedule(() => this.#closing.abort(), LAST_ABORTS_MS);
    await Promise.allSettled(this.#uploads);
    await Promise.all(this.#aborts);
    cancel();
  }

  async #upload(
    object: AdapterObject,
    condition: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<void> {
    const upload = this.#writeParts(object, condition, signal)
      .finally(() => this.#uploads.delete(upload));
    this.#uploads.add(upload);
    await upload;
  }

  async #writeWhole(
    { key, parts, byteLength }: AdapterObject,
    condition: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<void> {
    const { names } = this.#options;
    await this.#send({
      method: "PUT",
      name: names.nameOf(key),
      headers: { ...names.headersOf(key), ...condition },
      body: () => this.#bodies.compose(parts, 0, byteLength),
    }, signal);
  }

  async #writeParts(
    { key, parts, byteLength }: AdapterObject,
    condition: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<void> {
    const { names, client, partBytes } = this.#options;
    const name = names.nameOf(key);
    const headers = names.headersOf(key);
    const create = { method: "POST", name, query: { uploads: "" }, headers } as const;
    // Not aborted when closing starts: without the upload id, the upload could not be aborted.
    const uploadId = tagIn(
      await this.#send(create, AbortSignal.any([signal, this.#closing.signal])),
      "UploadId",
    );
    if (uploadId === undefined) throw new S3Error(200, "NoUploadId", "POST");
    const stop = AbortSignal.any([signal, this.#stopping.signal]);
    try {
      const size = Math.max(partBytes, Math.ceil(byteLength / MAX_PARTS));
      const split = { byteLength, partBytes: size, count: Math.ceil(byteLength / size) };
      const etags: string[] = [];
      await forEachPart(split, Infinity, stop, async ({ index, start, end }, stop) => {
        const body = () => this.#bodies.compose(parts, start, end);
        const query = { partNumber: String(index + 1), uploadId };
        await client.request({ method: "PUT", name, query, body }, stop, (response) => {
          const etag = response.headers.get("etag");
          if (etag === null) throw new S3Error(response.status, "NoETag", "PUT");
          etags[index] = etag;
        });
      });
      await this.#complete(name, uploadId, etags, condition, byteLength, stop);
    } catch (error) {
      this.#abortUpload(name, uploadId);
      throw error;
    }
  }

  async #complete(
    name: string,
    uploadId: string,
    etags: readonly string[],
    headers: Readonly<Record<string, string>>,
    byteLength: number,
    signal: AbortSignal,
  ): Promise<void> {
    const parts = etags.map((etag, i) =>
      `<Part><PartNumber>${i + 1}</PartNumber><ETag>${escapeXml(etag)}</ETag></Part>`
    );
    const tag = "CompleteMultipartUpload";
    const document = encoder.encode(`<${tag}>${parts.join("")}</${tag}>`);
    const body = () => document;
    try {
      await this.#send({ method: "POST", name, query: { uploadId }, headers, body }, signal);
    } catch (error) {
      // An earlier attempt succeeded, but its answer was lost.
      const isGone = error instanceof S3Error && error.code === "NoSuchUpload";
      if (!isGone || await this.#sizeOf(name, signal) !== byteLength) throw error;
    }
  }

  /**
   * Sends a request that may answer with an error document despite a success status; resolves to
   * the body.
   */
  async #send(request: S3Request, signal: AbortSignal): Promise<string> {
    return await this.#options.client.request(request, signal, async (response) => {
      const text = await response.text();
      const code = codeIn(text);
      if (code !== undefined) throw new S3Error(response.status, code, request.method);
      return text;
    });
  }

  async #isWhole({ key, byteLength }: AdapterObject, signal: AbortSignal): Promise<boolean> {
    return await this.#sizeOf(this.#options.names.nameOf(key), signal) === byteLength;
  }

  async #sizeOf(name: string, signal: AbortSignal): Promise<number | undefined> {
    return await this.#options.client.sizeOf(name, signal);
  }

  /** Aborts a multipart upload, independently of the call that started it. */
  #abortUpload(name: string, uploadId: string): void {
    const request = { method: "DELETE", name, query: { uploadId }, answers: [404] } as const;
    const aborting = this.#options.client.request(request, this.#closing.signal, () => {})
      // A lifecycle rule of the bucket removes what cannot be removed now.
      .catch(() => {})
      .finally(() => this.#aborts.delete(aborting));
    this.#aborts.add(aborting);
  }
}
