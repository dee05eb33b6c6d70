/**
 * What a server answers that cannot do its work now: mostly another one has taken its place, and the
 * connection leads to the old one.
 */
const WRONG_SERVER = ["READONLY", "MASTERDOWN", "LOADING", "CLUSTERDOWN", "NOREPLICAS"];
/** The same within the answer of a script, as servers before Redis 7 put it. */
const IN_SCRIPT = new RegExp(` -(?:${WRONG_SERVER.join("|")})\\b`);

/** An error that the server answered with: the connection itself works. */
export class ReplyError extends Error {
  /** The name of the class. */
  override readonly name = "ReplyError";
  /** What the server calls it: `OOM`, `LOADING`, `READONLY`, …; `ERR` where it has no name. */
  readonly code: string;
  /** Whether the connection may lead to the wrong server, such as the old master of a failover. */
  readonly isWrongServer: boolean;

  /** An error reply; what a server repeats of the command is left out: it may be a password. */
  constructor(message: string) {
    super(message.replace(/, with args beginning with:[^]*/, ""));
    this.code = /^-?([A-Z]+)\b/.exec(message)?.[1] ?? "ERR";
    this.isWrongServer = WRONG_SERVER.includes(this.code) || IN_SCRIPT.test(message);
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
