import type { AwsV4Signer } from "aws4fetch";
import { type Clock, type RandomSource, wait } from "../../src/l2/adapter.ts";
import { FlightLimit } from "../_shared/flight_limit.ts";
import type { Bucket } from "./bucket_url.ts";
import type { Credentials } from "./credentials.ts";
import {
  absentOrFail,
  isTransient,
  S3ConnectionError,
  S3Error,
  S3TimeoutError,
} from "./s3_error.ts";

/** The wait before the second attempt is below this, in milliseconds; then it doubles. */
const FIRST_WAIT_MS = 100;
const LONGEST_WAIT_MS = 5_000;
/** Servers close connections that are idle for longer, in milliseconds. */
const IDLE_MS = 15_000;
const NOTHING = new Uint8Array(0);

/** How an {@linkcode S3Client} is set up. */
export interface S3ClientOptions {
  /** Where the bucket is. */
  readonly bucket: Bucket;
  /** Who asks. */
  readonly credentials: Credentials;
  /** The region that requests are signed for. */
  readonly region: string;
  /** Computes signatures. */
  readonly signer: typeof AwsV4Signer;
  /** Whether the signature covers the body, whose SHA-256 is computed for it. */
  readonly signsPayload: boolean;
  /** Most requests at a time. */
  readonly maxRequests: number;
  /** Most attempts of one request. */
  readonly maxAttempts: number;
  /** One attempt is given up after so long, in milliseconds. */
  readonly timeoutMs: number;
  /** Whether HTTP/2 is used where the server offers it. */
  readonly prefersHttp2: boolean;
  /** Certificates to trust beside those of the system. */
  readonly caCertificates: readonly string[];
  /** Source of time. */
  readonly clock: Clock;
  /** Source of chance. */
  readonly random: RandomSource;
}

/** One request to the bucket. */
export interface S3Request {
  /** The method. */
  readonly method: "GET" | "HEAD" | "PUT" | "POST" | "DELETE";
  /** The name of an object; left out for the bucket itself. */
  readonly name?: string;
  /** The query. */
  readonly query?: Readonly<Record<string, string>>;
  /** Headers that are signed. */
  readonly headers?: Readonly<Record<string, string>>;
  /** `first-last` of the bytes wanted. */
  readonly range?: string;
  /** Makes the body when it is wanted, which may be more than once; it is copied at once. */
  readonly body?: () => Uint8Array<ArrayBuffer>;
  /** Statuses that are answers too, beside those of successes. */
  readonly answers?: readonly number[];
  /** Most attempts, if not as many as usual. */
  readonly maxAttempts?: number;
}

/**
 * Sends signed requests to a bucket, and sends them again, after waits with full jitter, when they
 * fail for reasons that pass.
 */
export class S3Client implements Disposable {
  readonly #options: S3ClientOptions;
  readonly #limit: FlightLimit;
  readonly #http: Deno.HttpClient;
  /** Keys that signatures are made with, by day; none is ever shown. */
  readonly #signingKeys = new Map<string, ArrayBuffer>();
  /** Whether answers to HEAD have always told the bytes. */
  #headsHaveSizes = true;
  #requests = 0;
  #retries = 0;
  #isClosed = false;

  /** Connects when it is used. */
  constructor(options: S3ClientOptions) {
    const { maxRequests, prefersHttp2, caCertificates } = options;
    this.#options = options;
    this.#limit = new FlightLimit({ operations: maxRequests });
    this.#http = Deno.createHttpClient({
      poolMaxIdlePerHost: maxRequests,
      poolIdleTimeout: IDLE_MS,
      http2: prefersHttp2,
      caCerts: [...caCertificates],
    });
  }

  /** Requests sent so far, those that were sent again among them. */
  get requests(): number {
    return this.#requests;
  }

  /** Requests that were sent again. */
  get retries(): number {
    return this.#retries;
  }

  /**
   * Sends a request; resolves to what `read` makes of the answer. What it leaves of the body is
   * cancelled.
   *
   * @throws {S3Error} If the server refuses.
   * @throws If it does not answer, or `signal` aborts.
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

  /** Whether an object is there. */
  async has(name: string, signal: AbortSignal): Promise<boolean> {
    const request = { method: "HEAD", name, answers: [404] } as const;
    return await this.request(request, signal, ({ status }) => status !== 404);
  }

  /**
   * Bytes of an object; `undefined` if it is not there. Some servers and proxies leave them out of
   * answers to HEAD: there one byte is read, whose range tells them.
   *
   * @throws {S3Error} If the server does not tell.
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
    if (!await this.#limit.take(0, signal)) throw signal.reason;
    const { clock, timeoutMs } = this.#options;
    const { method, answers = [] } = request;
    const timeout = new AbortController();
    const cancel = clock.schedule(() => timeout.abort(), timeoutMs);
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
      cancel();
      await response?.body?.cancel().catch(() => {});
      this.#limit.giveBack(0);
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
    // Proxies change these two: they are not signed.
    headers.set("accept-encoding", "identity");
    if (range !== undefined) headers.set("range", `bytes=${range}`);
    signal.throwIfAborted();
    this.#requests++;
    return await fetch(url, {
      method,
      headers,
      // Elsewhere the credentials are nobody's business.
      redirect: "manual",
      signal,
      client: this.#http,
      ...(body === undefined ? {} : { body: body() }),
    });
  }

  /** A random time up to a limit that doubles: what failed together does not come back together. */
  #waitMs(attempt: number): number {
    const limit = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (attempt - 1));
    const [a = 0, b = 0] = this.#options.random.bytes(2);
    return limit * (a * 256 + b + 1) / 65_536;
  }
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

/** A number of bytes in a header; `null` if it is none. */
function sizeIn(header: string | null): number | null {
  const size = Number(header || NaN);
  return Number.isSafeInteger(size) && size >= 0 ? size : null;
}
