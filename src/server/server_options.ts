import { ConfigError, failFor } from "../base/config_error.ts";
import { type OptionRules, readOptions, STRING } from "../base/options.ts";
import { isLoopback } from "./access.ts";

/** Options of {@linkcode serveStatus}. */
export interface StatusServerOptions {
  /** Host name or address to listen on. @default {"127.0.0.1"} */
  readonly hostname?: string;
  /** Port to listen on; 0 for a free one. @default {8765} */
  readonly port?: number;
  /**
   * Secret that requests have to send as `Authorization: Bearer TOKEN`, of at least 16 printable
   * ASCII characters. Required unless `hostname` is a loopback address. Only with it can requests
   * change anything.
   */
  readonly token?: string;
  /**
   * Host names by which clients address the server, in addition to `localhost`, `hostname` and IP
   * addresses. Requests for other names are rejected, because a name that a web site controls could
   * lead to this server.
   */
  readonly allowedHosts?: readonly string[];
  /** Whether `/metrics` has cache salts as a label. @default {false} */
  readonly salts?: boolean;
}

/** Options with all defaults. */
export interface ResolvedServerOptions {
  readonly hostname: string;
  readonly port: number;
  readonly token: string | undefined;
  readonly allowedHosts: readonly string[];
  readonly salts: boolean;
}

const DEFAULT_HOSTNAME = "127.0.0.1";
/** Default port of the status server. */
export const DEFAULT_PORT = 8765;

const isBoolean = (value: unknown): boolean => typeof value === "boolean";
const isNames = (value: unknown): boolean =>
  Array.isArray(value) && value.every((name) => typeof name === "string" && name !== "");

const rules: OptionRules<StatusServerOptions> = {
  hostname: STRING,
  port: { type: "number", minimum: 0, maximum: 65535, multipleOf: 1, default: DEFAULT_PORT },
  token: STRING,
  allowedHosts: { type: "value", accepts: isNames, expected: "an array of host names" },
  salts: { type: "value", accepts: isBoolean, expected: "a boolean" },
};

const TOKEN = /^[!-~]{16,1024}$/;

const fail = failFor("serveStatus");

/**
 * Validates options and applies defaults.
 *
 * @throws {TypeError} If a key is unknown, or a value has the wrong type.
 * @throws {RangeError} If the port is out of range.
 * @throws {ConfigError} If the token is too weak, or missing where it is required.
 */
export function resolveServerOptions(options: StatusServerOptions): ResolvedServerOptions {
  const read = readOptions("serveStatus() options", options, rules);
  const { hostname = DEFAULT_HOSTNAME, port = DEFAULT_PORT, token, salts = false } = read;
  const { allowedHosts = [] } = read;
  if (hostname === "") fail("hostname", "a host name or an address", hostname);
  if (token !== undefined && !TOKEN.test(token)) {
    const expected = "16 to 1024 printable ASCII characters without spaces";
    throw new ConfigError({
      subject: "serveStatus",
      key: "token",
      expected,
      received: token,
      hidden: true,
    });
  }
  if (token === undefined && !isLoopback(hostname)) {
    fail("token", `a token, because other hosts can reach ${hostname}`, undefined);
  }
  return { hostname, port, token, allowedHosts, salts };
}
