import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";

/** A parsed request. */
export interface ScriptedRequest {
  /** The method. */
  readonly method: string;
  /** The name of the object; empty for the bucket. */
  readonly name: string;
  /** The query. */
  readonly query: URLSearchParams;
  /** The headers. */
  readonly headers: Headers;
}

/** Replaces, passes on or modifies the server's response. */
export type Script = (
  request: ScriptedRequest,
  proceed: () => Promise<Response>,
) => Response | Promise<Response>;

/** An object in the bucket. */
export interface HeldObject {
  /** Its bytes. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The headers returned to readers. */
  readonly headers: Readonly<Record<string, string>>;
}

interface Upload {
  readonly name: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly parts: Map<number, Uint8Array<ArrayBuffer>>;
}

const ACCESS_KEY = "SCRIPTED-ACCESS-KEY";
/** Secrets that must not appear anywhere. */
export const SECRETS = ["scripted-secret-key", "scripted-session-token"] as const;

/** An in-memory object store whose behaviour a test can override. */
export class ScriptedS3 implements AsyncDisposable {
  /** The objects. */
  readonly objects = new Map<string, HeldObject>();
  /** Uploads that are neither completed nor aborted. */
  readonly uploads = new Map<string, Upload>();
  /** `METHOD name?query`, of every request since the start or the last {@linkcode takeLog}. */
  readonly log: string[] = [];
  /** Overrides the handling of requests, if set. */
  script: Script | undefined;
  /** Objects per page of a listing. */
  pageSize = 1_000;
  /** Current and maximum number of requests in progress. */
  readonly concurrent = { now: 0, most: 0 };
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #closing = new AbortController();
  #uploadCount = 0;

  /** Listens on a free port of the loopback address, with TLS if there is a certificate. */
  constructor(tls: Partial<Deno.TlsCertifiedKeyPem> = {}) {
    this.#server = Deno.serve({
      ...tls,
      hostname: "127.0.0.1",
      port: 0,
      signal: this.#closing.signal,
      onListen: () => {},
      onError: () => error(500, "InternalError"),
    }, (request) => this.#handle(request));
  }

  /** Port on the loopback address. */
  get port(): number {
    return this.#server.addr.port;
  }

  /** A configuration for the adapter. */
  get config(): Readonly<Record<string, unknown>> {
    return this.configAt(this.port);
  }

  /** A configuration that connects through another port. */
  configAt(port: number): Readonly<Record<string, unknown>> {
    return {
      "s3_endpoint": `http://127.0.0.1:${port}`,
      bucket: "kv-bucket",
      "s3_region": "us-east-1",
      "aws_access_key_id": ACCESS_KEY,
      "aws_secret_access_key": SECRETS[0],
      "aws_session_token": SECRETS[1],
    };
  }

  /** The requests since the last call. */
  takeLog(): string[] {
    return this.log.splice(0);
  }

  /** A response that is not sent until the server stops. */
  hang(): Promise<Response> {
    const { promise, resolve } = Promise.withResolvers<Response>();
    const stop = (): void => resolve(error(503, "ServiceUnavailable"));
    this.#closing.signal.addEventListener("abort", stop, { once: true });
    return promise;
  }

  /** Stops, even while clients wait for responses. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await this.#server.finished;
  }

  async #handle(request: Request): Promise<Response> {
    const { pathname, searchParams: query } = new URL(request.url);
    const [, bucket, ...segments] = pathname.split("/").map(decodeURIComponent);
    const { method, headers } = request;
    const name = segments.join("/");
    const rest = [...query.keys()].filter((key) => key !== "x-id").join("&");
    this.log.push(`${method} ${name}${rest === "" ? "" : `?${rest}`}`);
    if (bucket !== "kv-bucket") return error(404, "NoSuchBucket");
    this.concurrent.most = Math.max(this.concurrent.most, ++this.concurrent.now);
    const proceed = async (): Promise<Response> => {
      const body = await request.bytes();
      return isSigned(headers, body)
        ? this.#answer(method, name, query, headers, body)
        : error(403, "SignatureDoesNotMatch");
    };
    try {
      const { script } = this;
      if (script === undefined) return await proceed();
      return await script({ method, name, query, headers }, proceed);
    } finally {
      this.concurrent.now--;
    }
  }

  #answer(
    method: string,
    name: string,
    query: URLSearchParams,
    headers: Headers,
    body: Uint8Array<ArrayBuffer>,
  ): Response {
    if (name === "") {
      if (method === "GET") return this.#list(query);
      return method === "POST" && query.has("delete") ? this.#remove(body) : error(501, "NotDone");
    }
    const uploadId = query.get("uploadId");
    if (uploadId !== null) return this.#upload(method, uploadId, query, headers, body);
    switch (method) {
      case "POST": {
        const id = `upload-${this.#uploadCount++}&=`;
        this.uploads.set(id, { name, headers: kept(headers), parts: new Map() });
        const tag = `<UploadId>${id.replace("&", "&amp;")}</UploadId>`;
        return xml(`<InitiateMultipartUploadResult>${tag}</InitiateMultipartUploadResult>`);
      }
      case "PUT":
        if (isHeld(this.objects, name, headers)) return error(412, "PreconditionFailed");
        return this.#put(name, body, kept(headers));
      case "DELETE":
        this.objects.delete(name);
        return new Response(null, { status: 204 });
      default:
        return this.#read(method, name, headers);
    }
  }

  #put(
    name: string,
    bytes: Uint8Array<ArrayBuffer>,
    own: Readonly<Record<string, string>>,
  ): Response {
    const etag = etagOf(bytes);
    const modified = new Date().toUTCString();
    this.objects.set(name, { bytes, headers: { ...own, etag, "last-modified": modified } });
    return new Response(null, { headers: { etag } });
  }

  #upload(
    method: string,
    id: string,
    query: URLSearchParams,
    headers: Headers,
    body: Uint8Array<ArrayBuffer>,
  ): Response {
    const upload = this.uploads.get(id);
    if (upload === undefined) return error(404, "NoSuchUpload");
    if (method === "DELETE") {
      this.uploads.delete(id);
      return new Response(null, { status: 204 });
    }
    if (method === "PUT") {
      upload.parts.set(Number(query.get("partNumber")), body);
      return new Response(null, { headers: { etag: etagOf(body) } });
    }
    if (isHeld(this.objects, upload.name, headers)) return error(412, "PreconditionFailed");
    const text = new TextDecoder().decode(body);
    const wanted = [...text.matchAll(/<PartNumber>(\d+)<\/PartNumber><ETag>([^<]*)<\/ETag>/g)];
    const parts = wanted.map(([, number]) => upload.parts.get(Number(number)));
    const areRight = parts.every((part, i) =>
      part !== undefined && etagOf(part) === wanted[i]?.[2]?.replaceAll("&quot;", '"')
    );
    if (!areRight || parts.length === 0) return error(400, "InvalidPart");
    this.uploads.delete(id);
    const bytes = new Uint8Array(Buffer.concat(parts as Uint8Array[]));
    this.#put(upload.name, bytes, upload.headers);
    return xml("<CompleteMultipartUploadResult></CompleteMultipartUploadResult>");
  }

  #read(method: string, name: string, headers: Headers): Response {
    const held = this.objects.get(name);
    if (held === undefined) {
      return method === "HEAD" ? new Response(null, { status: 404 }) : error(404, "NoSuchKey");
    }
    const { byteLength } = held.bytes;
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(headers.get("range") ?? "") ?? [];
    if (method === "HEAD") {
      const length = String(byteLength);
      return new Response(null, { headers: { ...held.headers, "content-length": length } });
    }
    if (first === undefined) return new Response(held.bytes, { headers: held.headers });
    if (Number(first) >= byteLength) return error(416, "InvalidRange");
    const end = Math.min(Number(last) + 1, byteLength);
    const range = `bytes ${first}-${end - 1}/${byteLength}`;
    return new Response(held.bytes.slice(Number(first), end), {
      status: 206,
      headers: { ...held.headers, "content-range": range },
    });
  }

  #list(query: URLSearchParams): Response {
    const prefix = query.get("prefix") ?? "";
    const after = query.get("continuation-token")?.replace(/^after&/, "") ?? "";
    const delimiter = query.get("delimiter");
    const names = [...this.objects.keys()].sort().filter((name) =>
      name.startsWith(prefix) && name > after &&
      !(delimiter && name.slice(prefix.length).includes(delimiter))
    );
    const size = Math.min(this.pageSize, Number(query.get("max-keys") ?? 1_000));
    const page = names.slice(0, size).map((name) => {
      const held = this.objects.get(name);
      const modified = new Date(held?.headers["last-modified"] ?? 0).toISOString();
      return `<Contents><Key>${name}</Key><LastModified>${modified}</LastModified>` +
        `<Size>${held?.bytes.byteLength}</Size></Contents>`;
    });
    const isTruncated = names.length > size;
    const next = isTruncated ? `after&amp;${names[size - 1]}` : "";
    const token = isTruncated ? `<NextContinuationToken>${next}</NextContinuationToken>` : "";
    return xml(
      `<ListBucketResult><IsTruncated>${isTruncated}</IsTruncated>${token}${
        page.join("")
      }</ListBucketResult>`,
    );
  }

  #remove(body: Uint8Array): Response {
    const names = [...new TextDecoder().decode(body).matchAll(/<Key>([^<]*)<\/Key>/g)];
    if (names.length > 1_000) return error(400, "MalformedXML");
    for (const [, name = ""] of names) this.objects.delete(name);
    return xml("<DeleteResult></DeleteResult>");
  }
}

/** An error response. */
export function error(status: number, code: string): Response {
  const secret = `<StringToSign>${ACCESS_KEY}</StringToSign>`;
  return xml(`<Error><Code>${code}</Code>${secret}</Error>`, status);
}

/** A response with an XML document. */
export function xml(text: string, status = 200): Response {
  const headers = { "content-type": "application/xml" };
  return new Response(`<?xml version="1.0" encoding="UTF-8"?>\n${text}`, { status, headers });
}

function isHeld(objects: ReadonlyMap<string, HeldObject>, name: string, headers: Headers): boolean {
  return headers.get("if-none-match") === "*" && objects.has(name);
}

/** The headers that are stored with an object. */
function kept(headers: Headers): Record<string, string> {
  return Object.fromEntries([...headers].filter(([name]) => name.startsWith("x-amz-meta-")));
}

function etagOf(bytes: Uint8Array): string {
  return `"${createHash("md5").update(bytes).digest("hex")}"`;
}

/** Whether a request is authenticated and its body has the signed digest. */
function isSigned(headers: Headers, body: Uint8Array): boolean {
  const authorization = headers.get("authorization") ?? "";
  if (!authorization.includes(`Credential=${ACCESS_KEY}/`)) return false;
  if (headers.get("x-amz-security-token") !== SECRETS[1]) return false;
  const hash = headers.get("x-amz-content-sha256");
  if (hash === "UNSIGNED-PAYLOAD") return true;
  return hash === createHash("sha256").update(body).digest("hex");
}
