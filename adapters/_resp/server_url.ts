import type { ServerAddress } from "./connection.ts";

/** What a URL says about servers. */
export interface ServerUrl {
  /** Where they listen. */
  readonly servers: readonly ServerAddress[];
  /** Whether they are reached by TLS. */
  readonly isEncrypted: boolean;
  /** Who this is. */
  readonly username?: string | undefined;
  /** The secret. */
  readonly password?: string | undefined;
  /** Number of the database. */
  readonly database?: number | undefined;
}

/** What a URL has to look like. */
export const URL_SHAPE = "redis://[user[:password]@]host[:port][/db], or rediss:// for TLS; " +
  "several for a cluster, with the same user and password, are separated by commas";

const ENCRYPTED = ["rediss:", "valkeys:"];
const PROTOCOLS = ["redis:", "valkey:", ...ENCRYPTED];

/**
 * Reads one or several URLs; `undefined` if one is wrong, or says what the first one does not. They
 * are never shown: they may be secret.
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
