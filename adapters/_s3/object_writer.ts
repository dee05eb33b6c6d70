import type { AdapterObject, Clock } from "../../src/l2/adapter.ts";
import { ObjectParts } from "../_shared/object_parts.ts";
import { BodyComposer } from "./body_composer.ts";
import type { ObjectNames } from "./object_names.ts";
import type { S3Client, S3Request } from "./s3_client.ts";
import { codeIn, S3Error } from "./s3_error.ts";
import { settleAll } from "./settle_all.ts";
import { escapeXml, tagIn } from "./xml.ts";

/** Parts that an upload may have. */
const MOST_PARTS = 10_000;
/** Closing waits so long for uploads to be aborted, in milliseconds. */
const LAST_ABORTS_MS = 5_000;
const encoder = new TextEncoder();

/** How an {@linkcode ObjectWriter} is set up. */
export interface ObjectWriterOptions {
  /** The bucket. */
  readonly client: S3Client;
  /** How objects are called. */
  readonly names: ObjectNames;
  /** Bytes of a part. */
  readonly partBytes: number;
  /** Objects with more bytes are uploaded in parts. */
  readonly multipartAboveBytes: number;
  /** Whether what is there stays, if it has the right size. */
  readonly putsIfAbsent: boolean;
  /** Source of time. */
  readonly clock: Clock;
}

/** Writes objects: with one request, or in parts that become visible together. */
export class ObjectWriter implements AsyncDisposable {
  readonly #options: ObjectWriterOptions;
  readonly #bodies = new BodyComposer();
  /** Ends uploads in parts. */
  readonly #stopping = new AbortController();
  /** Ends everything. */
  readonly #closing = new AbortController();
  /** Uploads in parts that are under way. */
  readonly #uploads = new Set<Promise<void>>();
  /** Uploads that are being aborted. */
  readonly #aborts = new Set<Promise<void>>();

  /** Writes nothing yet. */
  constructor(options: ObjectWriterOptions) {
    this.#options = options;
  }

  /**
   * Writes one object.
   *
   * @returns Bytes written: none if it was there, and was to stay.
   * @throws {S3Error} If the server refuses.
   * @throws If it does not answer, or `signal` aborts; then the object may be there, or not.
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
    // Something else lies in the place of the object: it would be a miss for ever.
    await write(object, {}, signal);
    return object.byteLength;
  }

  /** Aborts uploads in parts: what is left of them would be paid for. */
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
    const bytes = new ObjectParts(parts);
    await this.#send({
      method: "PUT",
      name: names.nameOf(key),
      headers: { ...names.headersOf(key), ...condition },
      body: () => this.#bodies.compose(bytes, 0, byteLength),
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
    // Without its answer nobody could abort what it began.
    const uploadId = tagIn(
      await this.#send(create, AbortSignal.any([signal, this.#closing.signal])),
      "UploadId",
    );
    if (uploadId === undefined) throw new S3Error(200, "NoUploadId", "POST");
    const stop = AbortSignal.any([signal, this.#stopping.signal]);
    try {
      const bytes = new ObjectParts(parts);
      const size = Math.max(partBytes, Math.ceil(byteLength / MOST_PARTS));
      const numbers = Array.from({ length: Math.ceil(byteLength / size) }, (_, i) => i + 1);
      const etags = await settleAll<number, string>(numbers, stop, async (number, stop) => {
        const end = Math.min(number * size, byteLength);
        const body = () => this.#bodies.compose(bytes, (number - 1) * size, end);
        const query = { partNumber: String(number), uploadId };
        return await client.request({ method: "PUT", name, query, body }, stop, (response) => {
          const etag = response.headers.get("etag");
          if (etag === null) throw new S3Error(response.status, "NoETag", "PUT");
          return etag;
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
      // The answer to an attempt before this one was lost.
      const isGone = error instanceof S3Error && error.code === "NoSuchUpload";
      if (!isGone || await this.#sizeOf(name, signal) !== byteLength) throw error;
    }
  }

  /** Sends a request whose success may turn out to be an error in its body; resolves to that. */
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

  /** Gives parts back that nobody will see, whatever has become of the call. */
  #abortUpload(name: string, uploadId: string): void {
    const request = { method: "DELETE", name, query: { uploadId }, answers: [404] } as const;
    const aborting = this.#options.client.request(request, this.#closing.signal, () => {})
      // A rule of the bucket removes what cannot be removed now.
      .catch(() => {})
      .finally(() => this.#aborts.delete(aborting));
    this.#aborts.add(aborting);
  }
}
