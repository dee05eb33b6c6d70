/** An error that the server answered with: the connection is fine. */
export class ReplyError extends Error {
  /** The name of the class. */
  override readonly name = "ReplyError";
  /** What the server calls it: `OOM`, `LOADING`, `READONLY`, …; `ERR` where it has no name. */
  readonly code: string;

  /** An error reply; what a server repeats of the command is left out: it may be a password. */
  constructor(message: string) {
    super(message.replace(/, with args beginning with:[^]*/, ""));
    this.code = /^-?([A-Z]+)\b/.exec(message)?.[1] ?? "ERR";
  }
}

/** The server could not be asked, or did not answer. */
export class ConnectionError extends Error {
  /** The name of the class. */
  override readonly name = "ConnectionError";
  /** The system's name for the error, such as `ECONNREFUSED`; `ECONNRESET` where it has none. */
  readonly code: string;

  /** A failure of a connection. */
  constructor(cause: unknown) {
    const text = cause instanceof Error ? cause.message : String(cause);
    super(text === "" ? "The connection failed" : text);
    const code: unknown = cause instanceof Error ? Reflect.get(cause, "code") : undefined;
    this.code = typeof code === "string" ? code : "ECONNRESET";
  }
}
