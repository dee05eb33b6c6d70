import { tagIn } from "./xml.ts";

/** Bytes of an answer that are looked at to learn what is wrong. */
const MAX_ERROR_BYTES = 16_384;
/** What passes by itself, by the server's names; the status says the same where there is none. */
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
/** How far the clocks of client and server may be apart, in milliseconds. */
const MAX_SKEW_MS = 15 * 60_000;
const TRANSIENT_STATUSES = [429, 500, 502, 503, 504];
/** Names for answers that have no body, such as those to HEAD. */
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
 * An answer that is no success. Its message names no more than the status and the server's code:
 * what else such an answer says may hold parts of the request.
 */
export class S3Error extends Error {
  /** The name of the class. */
  override readonly name = "S3Error";
  /** The HTTP status; 200 where an error came in the body of a success. */
  readonly status: number;
  /** The server's name for the error, such as `SlowDown`. */
  readonly code: string;

  /** An error named `code` in an answer with `status` to a request by `method`. */
  constructor(status: number, code: string, method: string, hint = "") {
    super(`the server answered ${status} ${code} to ${method}${hint}`);
    this.status = status;
    this.code = code;
  }

  /** Reads what an answer with an error says; of a body that breaks off, the status is left. */
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
 * What to do about a refusal that comes from a clock that is wrong: servers take no signature that
 * is older or younger than that. Answers to HEAD do not tell the reason; their date does.
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

/** A connection that cannot be made, or breaks. */
export class S3ConnectionError extends Error {
  /** The name of the class. */
  override readonly name = "S3ConnectionError";

  /** While a request by `method` was answered. */
  constructor(method: string, cause: unknown) {
    super(`no whole answer to ${method}: ${reasonOf(cause)}`, { cause });
  }
}

/** No answer in time. */
export class S3TimeoutError extends Error {
  /** The name of the class. */
  override readonly name = "S3TimeoutError";
  /** A code as other errors have it. */
  readonly code = "ETIMEDOUT";

  /** To a request by `method` after so many milliseconds. */
  constructor(method: string, timeoutMs: number) {
    super(`the server did not complete its answer to ${method} within ${timeoutMs} ms`);
  }
}

/**
 * `absent` for an answer that an object is not there.
 *
 * @throws {S3Error} If it is the bucket that is not there.
 */
export async function absentOrFail(response: Response): Promise<"absent"> {
  const error = await S3Error.from(response, "GET");
  if (error.code === "NoSuchBucket") throw error;
  return "absent";
}

/** The code of an error document; `undefined` if it is none. */
export function codeIn(text: string): string | undefined {
  if (!/<Error[\s>]/.test(text)) return undefined;
  const code = tagIn(text, "Code");
  return code !== undefined && /^[\w.-]{1,64}$/.test(code) ? code : "UnknownError";
}

/** What the innermost cause says, without the address. */
function reasonOf(error: unknown): string {
  const inner = error instanceof Error && error.cause !== undefined ? error.cause : error;
  if (inner !== error) return reasonOf(inner);
  return (error instanceof Error ? error.message : String(error))
    .replace(/^error sending request (?:for url|from) .*?\): /, "");
}

/** Whether a failed request may succeed when it is sent again. */
export function isTransient(error: unknown): boolean {
  if (error instanceof S3Error) return error.isTransient;
  // What is not allowed will not be allowed either; all else comes from the connection.
  return !(error instanceof Deno.errors.NotCapable);
}
