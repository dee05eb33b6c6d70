import type { ServerAddress } from "./connection.ts";

/** Contents of a server URL. */
export interface ServerUrl {
  readonly servers: readonly ServerAddress[];
  /** Whether the servers use TLS. */
  readonly isEncrypted: boolean;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  /** Number of the database. */
  readonly database?: number | undefined;
}

/** Format of a URL, for help and errors. */
export const URL_SHAPE = "redis://[user[:password]@]host[:port][/db], or rediss:// for TLS; " +
  "several for a cluster, with the same user and password, are separated by commas";

const ENCRYPTED = ["rediss:", "valkeys:"];
const PROTOCOLS = ["redis:", "valkey:", ...ENCRYPTED];

/**
 * Parses one or several URLs; `undefined` if one is invalid or differs from the first in more than
 * host and port. URLs are never shown, because they may contain a password.
 */
export function parseServerUrl(text: string): ServerUrl | undefined {
  const urls = text.split(",").map((part) => URL.parse(part.trim()));
  const [first] = urls;
  if (first === null || first === undefined) return undefined;
  const servers: ServerAddress[] = [];
  for (const url of urls) {
    if (url === null || url.protocol !== first.protocol || url.hostname === "") return undefined;
    if (url.search !== "" || url.hash !== "") return undefined;
    const isOther = (["username", "password", "pathname"] as const)
      .some((field) => url[field].replace(/^\/$/, "") !== first[field].replace(/^\/$/, ""));
    if (isOther) return undefined;
    const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
    servers.push({ host, port: url.port === "" ? 6379 : Number(url.port) });
  }
  const path = /^\/?(\d*)$/.exec(first.pathname);
  if (!PROTOCOLS.includes(first.protocol) || path === null) return undefined;
  try {
    return {
      servers,
      isEncrypted: ENCRYPTED.includes(first.protocol),
      username: decodeURIComponent(first.username) || undefined,
      password: decodeURIComponent(first.password) || undefined,
      database: path[1] ? Number(path[1]) : undefined,
    };
  } catch {
    return undefined;
  }
}
