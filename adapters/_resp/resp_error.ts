/**
 * Error codes of a server that cannot do its work now. Mostly, another server has replaced it and
 * the connection still leads to the old one.
 */
const WRONG_SERVER = ["READONLY", "MASTERDOWN", "LOADING", "CLUSTERDOWN", "NOREPLICAS"];
/** The same codes in the error of a script, as servers before Redis 7 format it. */
const IN_SCRIPT = new RegExp(` -(?:${WRONG_SERVER.join("|")})\\b`);

/** An error answered by the server; the connection itself works. */
export class ReplyError extends Error {
  override readonly name = "ReplyError";
  /** Error code of the server, such as `OOM`, `LOADING` or `READONLY`; `ERR` if it has none. */
  readonly code: string;
  /**
   * Whether the connection may lead to the wrong server, such as the old master after a failover.
   */
  readonly isWrongServer: boolean;

  /** Omits the command arguments that a server may repeat: they can contain a password. */
  constructor(message: string) {
    super(message.replace(/, with args beginning with:[^]*/, ""));
    this.code = /^-?([A-Z]+)\b/.exec(message)?.[1] ?? "ERR";
    this.isWrongServer = WRONG_SERVER.includes(this.code) || IN_SCRIPT.test(message);
  }
}

/** The server is unreachable or did not answer. */
export class ConnectionError extends Error {
  override readonly name = "ConnectionError";
  /** Error code of the operating system, such as `ECONNREFUSED`; `ECONNRESET` if there is none. */
  readonly code: string;

  constructor(cause: unknown) {
    const text = cause instanceof Error ? cause.message : String(cause);
    super(text === "" ? "The connection failed" : text);
    const code: unknown = cause instanceof Error ? Reflect.get(cause, "code") : undefined;
    this.code = typeof code === "string" ? code : "ECONNRESET";
  }
}
