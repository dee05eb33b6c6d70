/**
 * The status server: a live page, health, status and metrics of a cache over HTTP.
 *
 * @example Serve the status of a cache
 * ```ts
 * import { HostDevice, TieredCache } from "@kvtier/kvtier";
 * import { serveStatus } from "@kvtier/kvtier/server";
 * import { assertEquals } from "@std/assert";
 *
 * await using cache = await TieredCache.open({ device: new HostDevice() });
 * await using server = serveStatus(cache, { port: 0 });
 * const response = await fetch(new URL("health", server.url));
 * assertEquals((await response.json()).isHealthy, true);
 * ```
 *
 * @module
 */
export type { StatusServerOptions } from "./server_options.ts";
export { serveStatus, type StatusServer } from "./status_server.ts";
