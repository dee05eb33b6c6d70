import { tagIn } from "./xml.ts";

/** Max bytes of an error document. */
const MAX_ERROR_BYTES = 16_384;
/** Error codes of transient failures; without a code, the HTTP status decides. */
const TRANSIENT_CODES = [
  "SlowDown",
  "Throttling",
  "ThrottlingException",
  "TooManyRequests",
  "RequestLimitExceeded",
  "ServiceUnavailable",
  "InternalError",
  "RequestTimeout",
  "OperationAborted",
  "ConditionalRequestConflict",
  "BadDigest",
  "IncompleteBody",
];
/** Max clock difference that servers accept, in milliseconds. */
const MAX_SKEW_MS = 15 * 60_000;
const TRANSIENT_STATUSES = [429, 500, 502, 503, 504];
/** Codes for answers without a body, such as those to HEAD. */
const CODES: Readonly<Record<number, string>> = {
  301: "PermanentRedirect",
  307: "TemporaryRedirect",
  403: "AccessDenied",
  404: "NotFound",
  412: "PreconditionFailed",
  429: "TooManyRequests",
  500: "InternalError",
  503: "ServiceUnavailable",
};

/**
 * An error answer. The message contains only the status and the server's code, because other parts
 * of the answer may repeat the request.
 */
export class S3Error extends Error {
  override readonly name = "S3Error";
  /** The HTTP status; 200 for an error document in a success. */
  readonly status: number;
  /** The server's error code, such as `SlowDown`. */
  readonly code: string;

  /**
   * @param method HTTP method of the request.
   * @param hint What to do, appended to the message.
   */
  constructor(status: number, code: string, method: string, hint = "") {
    super(`the server answered ${status} ${code} to ${method}${hint}`);
    this.status = status;
    this.code = code;
  }

  /** Reads an error answer; without a complete body, the code follows from the status. */
  static async from(response: Response, method: string): Promise<S3Error> {
    let code: string | undefined;
    const length = Number(response.headers.get("content-length") ?? 0);
    if (method !== "HEAD" && length <= MAX_ERROR_BYTES) {
      code = codeIn(await response.text().catch(() => ""));
    }
    const { status } = response;
    const name = code ?? CODES[status] ?? `HTTP ${status}`;
    return new S3Error(status, name, method, clockHint(status, name, response.headers));
  }

  /** Whether the same request may succeed soon. */
  get isTransient(): boolean {
    return TRANSIENT_STATUSES.includes(this.status) || TRANSIENT_CODES.includes(this.code);
  }
}

/**
 * A hint for a refusal caused by a wrong clock. Answers to HEAD do not contain the reason, but
 * their date shows the difference.
 */
function clockHint(status: number, code: string, headers: Headers): string {
  const aheadMs = Date.now() - Date.parse(headers.get("date") ?? "");
  const isOff = Math.abs(aheadMs) >= MAX_SKEW_MS;
  if (code !== "RequestTimeTooSkewed" && !(status === 403 && isOff)) return "";
  const minutes = Math.round(Math.abs(aheadMs) / 60_000);
  const offset = isOff
    ? `${minutes} minutes ${aheadMs > 0 ? "ahead of" : "behind"}`
    : "too far from";
  return `: the clock of this machine is ${offset} the server's: set it`;
}

/** A connection could not be opened, or broke. */
export class S3ConnectionError extends Error {
  override readonly name = "S3ConnectionError";

  constructor(method: string, cause: unknown) {
    super(`incomplete answer to ${method}: ${reasonOf(cause)}`, { cause });
  }
}

/** No complete answer in time. */
export class S3TimeoutError extends Error {
  override readonly name = "S3TimeoutError";
  /** Error code, as other errors have it. */
  readonly code = "ETIMEDOUT";

  constructor(method: string, timeoutMs: number) {
    super(`the server did not complete its answer to ${method} within ${timeoutMs} ms`);
  }
}

/**
 * Resolves to `absent` for an answer that the object does not exist.
 *
 * @throws {S3Error} If the bucket does not exist.
 */
export async function absentOrFail(response: Response): Promise<"absent"> {
  const error = await S3Error.from(response, "GET");
  if (error.code === "NoSuchBucket") throw error;
  return "absent";
}

/** The code in an error document; `undefined` if the document is no error. */
export function codeIn(text: string): string | undefined {
  if (!/<Error[\s>]/.test(text)) return undefined;
  const code = tagIn(text, "Code");
  return code !== undefined && /^[\w.-]{1,64}$/.test(code) ? code : "UnknownError";
}

/** Message of the innermost cause, without the URL. */
function reasonOf(error: unknown): string {
  const inner = error instanceof Error && error.cause !== undefined ? error.cause : error;
  if (inner !== error) return reasonOf(inner);
  return (error instanceof Error ? error.message : String(error))
    .replace(/^error sending request (?:for url|from) .*?\): /, "");
}

/** Whether a failed request may succeed if it is retried. */
export function isTransient(error: unknown): boolean {
  if (error instanceof S3Error) return error.isTransient;
  // A missing permission stays missing; all other errors come from the connection.
  return !(error instanceof Deno.errors.NotCapable);
}
