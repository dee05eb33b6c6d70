import { sha256 } from "../base/digest.ts";

/** Why a request is rejected. */
export interface Rejection {
  /** HTTP status. */
  readonly status: 401 | 403 | 421;
  readonly message: string;
}

/** What a request may do. */
export type RequestAccess =
  /** Nothing. */
  | "none"
  /** Read. */
  | "read"
  /** Read, and change the cache. */
  | "write";

/** Whether only this machine can reach a host. */
export function isLoopback(hostname: string): boolean {
  const name = hostname.replace(/^\[(.*)\]$/, "$1").toLowerCase();
  return name === "localhost" || name === "::1" || /^127(?:\.\d{1,3}){3}$/.test(name);
}

/** Decides which requests are answered. */
export class AccessRules {
  readonly #tokenDigest: Uint8Array | undefined;
  readonly #hosts: ReadonlySet<string>;

  /** @param hosts Host names by which clients may address the server. */
  constructor(token: string | undefined, hosts: readonly string[]) {
    this.#tokenDigest = token === undefined ? undefined : digestOf(token);
    this.#hosts = new Set(["localhost", ...hosts].map((name) => name.toLowerCase()));
  }

  /** Whether there is a token, without which nothing can be changed. */
  get hasToken(): boolean {
    return this.#tokenDigest !== undefined;
  }

  /**
   * Rejects requests that a page of another web site causes: its own name leads to this server (DNS
   * rebinding), or it sends requests across origins.
   */
  checkOrigin(request: Request): Rejection | undefined {
    const host = request.headers.get("host") ?? "";
    const hostname = /^(\[[^\]]*\]|[^:]*)(?::\d+)?$/.exec(host)?.[1]?.toLowerCase() ?? "";
    if (!isAddress(hostname) && !this.#hosts.has(hostname)) {
      const message = "Unknown host name: use an IP address, or add the name to allowedHosts";
      return { status: 421, message };
    }
    const origin = request.headers.get("origin");
    const site = request.headers.get("sec-fetch-site");
    const isNavigation = request.headers.get("sec-fetch-mode") === "navigate" &&
      request.method === "GET";
    const isForeign = (origin !== null && hostOf(origin) !== host.toLowerCase()) ||
      (site !== null && site !== "same-origin" && site !== "none" && !isNavigation);
    return isForeign
      ? { status: 403, message: "Requests from other origins are rejected" }
      : undefined;
  }

  /** What a request may do. Without a token, any client that reaches the server may read. */
  accessOf(request: Request): RequestAccess {
    if (this.#tokenDigest === undefined) return "read";
    const [, token] =
      /^Bearer ([!-~]{1,1024})$/i.exec(request.headers.get("authorization") ?? "") ??
        [];
    return token !== undefined && areEqual(digestOf(token), this.#tokenDigest) ? "write" : "none";
  }
}

/** Host and port of an origin, or `undefined` for an opaque one. */
function hostOf(origin: string): string | undefined {
  return URL.parse(origin)?.host;
}

/** Whether a host name is an IP address, which no web site can make its own. */
function isAddress(hostname: string): boolean {
  return /^\d{1,3}(?:\.\d{1,3}){3}$/.test(hostname) || /^\[[0-9a-f:.%]+\]$/.test(hostname);
}

function digestOf(token: string): Uint8Array {
  return sha256(new TextEncoder().encode(token));
}

/** Compares digests in constant time. */
function areEqual(a: Uint8Array, b: Uint8Array): boolean {
  let difference = a.length ^ b.length;
  for (let i = 0; i < a.length; i++) difference |= (a[i] ?? 0) ^ (b[i] ?? 0);
  return difference === 0;
}
