import type { AwsV4Signer } from "aws4fetch";
import { Limiter } from "../../src/base/limiter.ts";
import { type BackoffLimits, backoffMs } from "../../src/base/backoff.ts";
import type { RandomSource } from "../../src/adapter/contract.ts";
import { abortAfter, type Clock, wait } from "../../src/base/clock.ts";
import type { Bucket } from "./bucket_url.ts";
import type { Credentials } from "./credentials.ts";
import {
  absentOrFail,
  isTransient,
  S3ConnectionError,
  S3Error,
  S3TimeoutError,
} from "./s3_error.ts";

/** Upper bounds of the random waits. */
const WAITS: BackoffLimits = { firstMs: 100, maxMs: 5_000 };
/** Idle connections are closed after this time, before the server does so, in milliseconds. */
const IDLE_MS = 15_000;
const NOTHING = new Uint8Array(0);

/** Options of an {@linkcode S3Client}. */
export interface S3ClientOptions {
  readonly bucket: Bucket;
  readonly credentials: Credentials;
  /** Region that requests are signed for. */
  readonly region: string;
  /** Computes signatures. */
  readonly signer: typeof AwsV4Signer;
  /** Whether signatures cover the body, which costs a SHA-256 of it. */
  readonly signsPayload: boolean;
  /** Max requests at a time. */
  readonly maxRequests: number;
  /** Max attempts per request. */
  readonly maxAttempts: number;
  /** Max time of one attempt, in milliseconds. */
  readonly timeoutMs: number;
  /** Whether to use HTTP/2 if the server supports it. */
  readonly prefersHttp2: boolean;
  /** Certificates to trust in addition to those of the system. */
  readonly caCertificates: readonly string[];
  readonly clock: Clock;
  readonly random: RandomSource;
}

/** One request to the bucket. */
export interface S3Request {
  readonly method: "GET" | "HEAD" | "PUT" | "POST" | "DELETE";
  /** Name of an object; the bucket itself if left out. */
  readonly name?: string;
  readonly query?: Readonly<Record<string, string>>;
  /** Additional signed headers. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Byte range, `first-last`. */
  readonly range?: string;
  /** Returns the body. Called once per use, and the bytes are copied at once. */
  readonly body?: () => Uint8Array<ArrayBuffer>;
  /** Error statuses that are expected answers. */
  readonly answers?: readonly number[];
  /** Max attempts, if different from the client's. */
  readonly maxAttempts?: number;
}

/** Sends signed requests to a bucket. Retries transient failures after waits with full jitter. */
export class S3Client implements Disposable {
  readonly #options: S3ClientOptions;
  readonly #limiter: Limiter;
  readonly #http: Deno.HttpClient;
  /** Cache of signing keys by day; never shown. */
  readonly #signingKeys = new Map<string, ArrayBuffer>();
  /** Whether all answers to HEAD so far contained the size. */
  #headsHaveSizes = true;
  #requests = 0;
  #retries = 0;
  #isClosed = false;

  constructor(options: S3ClientOptions) {
    const { maxRequests, prefersHttp2, caCertificates } = options;
    this.#options = options;
    this.#limiter = new Limiter({ operations: maxRequests });
    this.#http = Deno.createHttpClient({
      poolMaxIdlePerHost: maxRequests,
      poolIdleTimeout: IDLE_MS,
      http2: prefersHttp2,
      caCerts: [...caCertificates],
    });
  }

  /** Number of requests sent, including retries. */
  get requests(): number {
    return this.#requests;
  }

  /** Number of retries. */
  get retries(): number {
    return this.#retries;
  }

  /**
   * Sends a request; resolves to the result of `read`. Cancels the unread remainder of the body.
   *
   * @throws {S3Error} If the server refuses.
   * @throws If the server does not answer, or `signal` aborts.
   */
  async request<Value>(
    request: S3Request,
    signal: AbortSignal,
    read: (response: Response) => Promise<Value> | Value,
  ): Promise<Value> {
    const { clock, maxAttempts } = this.#options;
    for (let attempt = 1;; attempt++) {
      try {
        return await this.#attempt(request, signal, read);
      } catch (error) {
        const isLast = attempt >= (request.maxAttempts ?? maxAttempts);
        const isOver = signal.aborted || isLast || this.#isClosed;
        if (isOver || !isTransient(error)) throw error;
        await wait(clock, this.#waitMs(attempt), signal);
        if (signal.aborted) throw error;
        this.#retries++;
      }
    }
  }

  /** Whether an object exists. */
  async has(name: string, signal: AbortSignal): Promise<boolean> {
    const request = { method: "HEAD", name, answers: [404] } as const;
    return await this.request(request, signal, ({ status }) => status !== 404);
  }

  /**
   * Bytes of an object; `undefined` if it does not exist. Some servers and proxies omit the size
   * from answers to HEAD; then one byte is read, whose range contains the size.
   *
   * @throws {S3Error} If the server does not return the size.
   */
  async sizeOf(name: string, signal: AbortSignal): Promise<number | undefined> {
    if (this.#headsHaveSizes) {
      const request = { method: "HEAD", name, answers: [404] } as const;
      const size = await this.request(request, signal, ({ status, headers }) => {
        return status === 404 ? undefined : sizeIn(headers.get("content-length"));
      });
      if (size !== null) return size;
      this.#headsHaveSizes = false;
    }
    const request = { method: "GET", name, range: "0-0", answers: [404, 416] } as const;
    return await this.request(request, signal, async (response) => {
      const { status, headers } = response;
      if (status === 404) return void await absentOrFail(response);
      const header = status === 200 ? "content-length" : "content-range";
      const size = sizeIn(/(?:^|\/)(\d+)$/.exec(headers.get(header) ?? "")?.[1] ?? null);
      if (size === null) throw new S3Error(status, "NoContentLength", "GET");
      return size;
    });
  }

  /** Closes all connections. */
  [Symbol.dispose](): void {
    if (!this.#isClosed) this.#http.close();
    this.#isClosed = true;
  }

  async #attempt<Value>(
    request: S3Request,
    signal: AbortSignal,
    read: (response: Response) => Promise<Value> | Value,
  ): Promise<Value> {
    if (!await this.#limiter.acquire(0, signal)) throw signal.reason;
    const { clock, timeoutMs } = this.#options;
    const { method, answers = [] } = request;
    using timeout = abortAfter(clock, timeoutMs);
    let response: Response | undefined;
    try {
      const signals = AbortSignal.any([signal, timeout.signal]);
      response = await this.#send(request, signals);
      if (!response.ok && !answers.includes(response.status)) {
        throw await S3Error.from(response, method);
      }
      return await read(response);
    } catch (error) {
      if (timeout.signal.aborted) throw new S3TimeoutError(method, timeoutMs);
      const isOwn = error instanceof S3Error || error instanceof Deno.errors.NotCapable;
      throw isOwn || signal.aborted ? error : new S3ConnectionError(method, error);
    } finally {
      await response?.body?.cancel().catch(() => {});
      this.#limiter.release(0);
    }
  }

  async #send(request: S3Request, signal: AbortSignal): Promise<Response> {
    const { bucket, credentials, region, signer: Signer, signsPayload } = this.#options;
    const { method, name, query = {}, range, body } = request;
    const payload = signsPayload ? await sha256(body?.() ?? NOTHING) : "UNSIGNED-PAYLOAD";
    const { url, headers } = await new Signer({
      ...credentials,
      method,
      url: bucket.urlOf(name, query).href,
      headers: { ...request.headers, "x-amz-content-sha256": payload },
      service: "s3",
      region,
      cache: this.#signingKeys,
    }).sign();
    // Not signed, because proxies change these two headers.
    headers.set("accept-encoding", "identity");
    if (range !== undefined) headers.set("range", `bytes=${range}`);
    signal.throwIfAborted();
    this.#requests++;
    return await fetch(url, {
      method,
      headers,
      // A redirect would send the credentials to another server.
      redirect: "manual",
      signal,
      client: this.#http,
      ...(body === undefined ? {} : { body: body() }),
    });
  }

  /** A random wait below a limit that doubles per attempt, so that failed requests spread out. */
  #waitMs(attempt: number): number {
    const [a = 0, b = 0] = this.#options.random.bytes(2);
    return backoffMs(WAITS, attempt) * (a * 256 + b + 1) / 65_536;
  }
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

/** A byte count from a header; `null` if it is missing or invalid. */
function sizeIn(header: string | null): number | null {
  const size = Number(header || NaN);
  return Number.isSafeInteger(size) && size >= 0 ? size : null;
}
