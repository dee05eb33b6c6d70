import { getLogger } from "@logtape/logtape";
import packageConfig from "../../deno.json" with { type: "json" };
import { ConfigError } from "../base/config_error.ts";
import type { TieredCache } from "../tiered_cache.ts";
import { AccessRules } from "./access.ts";
import { ACTION_NAMES, answerAction } from "./actions.ts";
import { DOCUMENT, DOCUMENT_POLICY } from "./page/document.ts";
import { EventFeed, MAX_STREAMS } from "./event_feed.ts";
import { CallDurations, PROMETHEUS_TYPE, prometheusText } from "./prometheus.ts";
import { respond, respondJson } from "./responses.ts";
import {
  type ResolvedServerOptions,
  resolveServerOptions,
  type StatusServerOptions,
} from "./server_options.ts";

const EVENTS_TYPE = "text/event-stream; charset=utf-8";

const logger = getLogger(["kvtier", "server"]);

/** A running status server. Disposing it closes it. */
export interface StatusServer extends AsyncDisposable {
  /** Address of the live page. */
  readonly url: string;
  /** Resolves when the server has ended. */
  readonly finished: Promise<void>;
  /** Stops listening, and ends all event streams and other connections. */
  close(): Promise<void>;
}

/** A path that answers requests. */
interface Route {
  readonly method: "GET" | "POST";
  /** Whether it answers without a token. */
  readonly isOpen?: boolean;
  readonly answer: (request: Request, canRead: boolean) => Response | Promise<Response>;
}

/**
 * Serves the status of a cache over HTTP: a live page at `/`, and `/health`, `/status`, `/metrics` and
 * `/events`. With a token also what changes the cache. The server keeps the process alive until it is
 * closed.
 *
 * Requires `--allow-net` permission for the host name and port.
 *
 * @throws {TypeError} If an option is unknown or has the wrong type.
 * @throws {RangeError} If the port is out of range.
 * @throws {ConfigError} If the token is too weak, or missing where it is required, or if the port is
 * in use or may not be used.
 */
export function serveStatus(cache: TieredCache, options: StatusServerOptions = {}): StatusServer {
  const resolved = resolveServerOptions(options);
  return new HttpStatusServer(cache, resolved);
}

class HttpStatusServer implements StatusServer {
  readonly url: string;
  readonly finished: Promise<void>;
  readonly #stopping = new AbortController();
  readonly #cache: TieredCache;
  readonly #options: ResolvedServerOptions;
  readonly #access: AccessRules;
  readonly #durations: CallDurations;
  readonly #feed: EventFeed;
  readonly #routes: Readonly<Record<string, Route>> = {
    "/": { method: "GET", isOpen: true, answer: () => this.#page() },
    "/health": { method: "GET", isOpen: true, answer: (_, canRead) => this.#health(canRead) },
    "/status": { method: "GET", answer: () => respondJson(this.#cache.reportStatus()) },
    "/metrics": { method: "GET", answer: () => this.#metrics() },
    "/events": { method: "GET", answer: (request) => this.#events(request) },
    ...Object.fromEntries(ACTION_NAMES.map((name) => [`/actions/${name}`, this.#action(name)])),
  };

  constructor(cache: TieredCache, options: ResolvedServerOptions) {
    const { hostname, port, token, allowedHosts } = options;
    this.#cache = cache;
    this.#options = options;
    this.#access = new AccessRules(token, [hostname, ...allowedHosts]);
    const server = listen(hostname, port, this.#stopping.signal, (request) => {
      return this.#answer(request);
    });
    this.#durations = new CallDurations(cache.events);
    this.#feed = new EventFeed(cache, {
      version: packageConfig.version,
      canAct: this.#access.hasToken,
    });
    this.finished = server.finished;
    const host = hostname.includes(":") ? `[${hostname}]` : hostname;
    this.url = `http://${host}:${server.addr.port}/`;
    logger.info("The status server listens on {url}", { url: this.url });
  }

  async close(): Promise<void> {
    this.#durations[Symbol.dispose]();
    this.#feed[Symbol.dispose]();
    this.#stopping.abort();
    await this.finished;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    const route = Object.hasOwn(this.#routes, pathname) ? this.#routes[pathname] : undefined;
    const rejection = this.#access.checkOrigin(request);
    if (rejection !== undefined) return refuse(rejection.status, rejection.message);
    if (route === undefined) return refuse(404, "There is nothing at this path");
    const { method, isOpen = false, answer } = route;
    if (request.method !== method && !(method === "GET" && request.method === "HEAD")) {
      const allow = method === "GET" ? "GET, HEAD" : method;
      return refuse(405, `This path answers ${allow}`, { allow });
    }
    const access = this.#access.accessOf(request);
    if (access === "none" && !isOpen) {
      const message = "Send the token of the server as Authorization: Bearer TOKEN";
      return refuse(401, message, { "www-authenticate": 'Bearer realm="kvtier"' });
    }
    if (access !== "write" && method === "POST") {
      return refuse(403, "Nothing can be changed, because the server has no token");
    }
    try {
      return await answer(request, access !== "none");
    } catch (error) {
      logger.error("The status server could not answer {pathname}: {error}", { pathname, error });
      return refuse(500, "Internal error: see the log");
    }
  }

  /** The live page has no figures itself, so that it needs no token. */
  #page(): Response {
    const policy = { "content-security-policy": DOCUMENT_POLICY };
    return respond(DOCUMENT, "text/html; charset=utf-8", 200, policy);
  }

  #action(name: string): Route {
    const onDone = (said: string): void => this.#feed.note("action", said);
    return {
      method: "POST",
      answer: (request) => answerAction(this.#cache, name, request, onDone),
    };
  }

  #health(canRead: boolean): Response {
    const { isHealthy, problems } = this.#cache.reportStatus();
    const health = canRead ? { isHealthy, problems } : { isHealthy };
    return respondJson({ ...health, version: packageConfig.version }, isHealthy ? 200 : 503);
  }

  #events({ method }: Request): Response {
    if (method === "HEAD") return respond(null, EVENTS_TYPE);
    const stream = this.#feed.open();
    if (stream !== undefined) return respond(stream, EVENTS_TYPE);
    const error = `There are ${MAX_STREAMS} event streams already: close one, or try again later`;
    return refuse(503, error, { "retry-after": "10" });
  }

  #metrics(): Response {
    const salts = this.#options.salts ? this.#cache.usageBySalt() : undefined;
    const source = { status: this.#cache.reportStatus(), salts };
    return respond(prometheusText(source, this.#durations), PROMETHEUS_TYPE);
  }
}

/** An answer to a request that is not served. */
function refuse(
  status: number,
  error: string,
  headers: Readonly<Record<string, string>> = {},
): Response {
  return respondJson({ error }, status, headers);
}

/** @throws {ConfigError} If the port cannot be used. */
function listen(
  hostname: string,
  port: number,
  signal: AbortSignal,
  handler: (request: Request) => Promise<Response>,
): Deno.HttpServer<Deno.NetAddr> {
  const place = `${hostname}:${port}`;
  const wrong = (key: string, expected: string, cause: Error): never => {
    throw new ConfigError({ subject: "serveStatus", key, expected, received: place, cause });
  };
  try {
    return Deno.serve({ hostname, port, signal, onListen: () => {} }, handler);
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse) {
      return wrong("port", "a port that no other program uses, or 0 for any free port", error);
    }
    if (error instanceof Deno.errors.NotCapable) {
      return wrong("port", `the permission --allow-net=${place}`, error);
    }
    if (!(error instanceof Error)) throw error;
    return wrong("hostname", `an address to listen on (${error.message})`, error);
  }
}
