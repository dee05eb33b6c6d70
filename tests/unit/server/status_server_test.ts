import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { ConfigError } from "../../../src/base/config_error.ts";
import { serveStatus } from "../../../src/server/status_server.ts";
import { openBusyCache } from "../../support/busy_cache.ts";
import { parsePrometheus } from "../../support/prometheus_text.ts";
import { testKey, testLayout } from "../../support/objects.ts";

const TOKEN = "correct-horse-battery-staple";
const authorization = { authorization: `Bearer ${TOKEN}` };

Deno.test("status server: health, status and metrics say the same as the cache", async () => {
  await using cache = await openBusyCache();
  await using server = serveStatus(cache, { port: 0 });
  assertMatch(server.url, /^http:\/\/127\.0\.0\.1:\d+\/$/);
  const read = (path: string) => fetch(new URL(path, server.url));

  const health = await read("health");
  assertEquals(health.status, 200);
  const { version, ...rest } = await health.json();
  assertEquals(rest, { isHealthy: true, problems: [] });
  assertMatch(version, /^\d+\.\d+\.\d+$/);

  const status = await read("status");
  assertEquals(await status.json(), JSON.parse(JSON.stringify(cache.reportStatus())));

  const metrics = await read("metrics");
  assertStringIncludes(metrics.headers.get("content-type") ?? "", "version=0.0.4");
  const families = parsePrometheus(await metrics.text());
  const { prefetch } = cache.reportStatus();
  assertEquals(
    families.get("kvtier_lookup_objects_total")?.samples[0]?.value,
    prefetch.requestedObjects,
  );
});

Deno.test("status server: a cache with problems answers 503", async () => {
  const cache = await openBusyCache();
  await using server = serveStatus(cache, { port: 0 });
  await cache.close();
  const health = await fetch(new URL("health", server.url));
  assertEquals(health.status, 503);
  assertEquals((await health.json()).problems, ["the cache is closed"]);
  const status = await fetch(new URL("status", server.url));
  assertEquals((await status.json()).isHealthy, false);
});

Deno.test("status server: with a token, only the health is there for everyone", async () => {
  await using cache = await openBusyCache();
  await using server = serveStatus(cache, { port: 0, token: TOKEN });
  const ask = async (path: string, headers: HeadersInit = {}) => {
    const response = await fetch(new URL(path, server.url), { headers });
    const body = await response.text();
    return { status: response.status, body, challenge: response.headers.get("www-authenticate") };
  };
  for (const path of ["status", "metrics"]) {
    const { status, body, challenge } = await ask(path);
    assertEquals([status, challenge], [401, 'Bearer realm="kvtier"']);
    assertStringIncludes(body, "Authorization: Bearer TOKEN");
    assertEquals((await ask(path, { authorization: "Bearer wrong" })).status, 401);
    // A URL ends up in histories and logs, so that a token in it is worth nothing.
    assertEquals((await ask(`${path}?token=${TOKEN}`)).status, 401);
    assertEquals((await ask(path, authorization)).status, 200);
  }
  const health = JSON.parse((await ask("health")).body);
  assertEquals(Object.keys(health), ["isHealthy", "version"], "no problems without the token");
  assertEquals(JSON.parse((await ask("health", authorization)).body).problems, []);
});

Deno.test("status server: every answer has the headers that browsers need", async () => {
  await using cache = await openBusyCache();
  await using server = serveStatus(cache, { port: 0 });
  for (const path of ["", "health", "status", "metrics", "missing"]) {
    const { headers, body } = await fetch(new URL(path, server.url));
    await body?.cancel();
    assertEquals(headers.get("x-content-type-options"), "nosniff", path);
    assertEquals(headers.get("cache-control"), "no-store", path);
    assertEquals(headers.get("referrer-policy"), "no-referrer", path);
    assertStringIncludes(headers.get("content-security-policy") ?? "", "default-src 'none'", path);
    assertEquals(headers.get("access-control-allow-origin"), null, path);
  }
});

Deno.test("status server: other paths, methods, hosts and origins are turned away", async () => {
  await using cache = await openBusyCache();
  await using server = serveStatus(cache, { port: 0 });
  const { hostname, port } = new URL(server.url);
  const ask = async (path: string, init: RequestInit = {}) => {
    const response = await fetch(new URL(path, server.url), init);
    return { status: response.status, ...await response.json() };
  };
  assertEquals(await ask("x"), { status: 404, error: "There is nothing at this path" });
  assertEquals((await ask("__proto__")).status, 404);
  assertEquals((await ask("status", { method: "POST" })).status, 405);
  assertEquals((await ask("status", { method: "DELETE" })).status, 405);
  assertEquals((await ask("status", { method: "OPTIONS" })).status, 405);
  assertEquals((await ask("status", { headers: { origin: "https://evil.example" } })).status, 403);
  const head = await fetch(new URL("status", server.url), { method: "HEAD" });
  assertEquals([head.status, await head.text()], [200, ""]);

  // fetch() does not send another Host.
  using connection = await Deno.connect({ hostname, port: Number(port) });
  await connection.write(
    new TextEncoder().encode("GET /status HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
  );
  const answer = new Uint8Array(1024);
  const length = await connection.read(answer) ?? 0;
  assertMatch(new TextDecoder().decode(answer.subarray(0, length)), /^HTTP\/1\.1 421 /);
});

Deno.test("status server: a port in use, and options that make no sense, are clear errors", async () => {
  await using cache = await openBusyCache();
  await using server = serveStatus(cache, { port: 0 });
  const port = Number(new URL(server.url).port);
  const failure = (options: Parameters<typeof serveStatus>[1]) =>
    assertThrows(() => serveStatus(cache, options), ConfigError).message;
  assertEquals(
    failure({ port }),
    "serveStatus: port: expected a port that no other program uses, or 0 for any free port: " +
      `received "127.0.0.1:${port}"`,
  );
  assertStringIncludes(failure({ hostname: "0.0.0.0", port: 0 }), "other hosts can reach 0.0.0.0");
  const weak = failure({ token: "hunter2", port: 0 });
  assertStringIncludes(weak, "16 to 1024");
  assert(!weak.includes("hunter2"));
  assertStringIncludes(failure({ hostname: "203.0.113.7", token: TOKEN, port: 0 }), "hostname");
  assertThrows(() => serveStatus(cache, { port: 70_000 }), RangeError);
  assertThrows(() => serveStatus(cache, { prot: 1 } as never), TypeError, "did you mean port?");
});

Deno.test("status server: details of an adapter that JSON cannot hold are left out", async () => {
  const loop: Record<string, unknown> = {};
  loop.self = loop;
  await using cache = await openBusyCache();
  const { adapters, ...rest } = cache.reportStatus();
  const reportStatus = () => ({
    ...rest,
    adapters: adapters.map((adapter, i) => ({ ...adapter, details: i === 0 ? loop : { n: 2n } })),
  });
  await using server = serveStatus(Object.assign(Object.create(cache), { reportStatus }), {
    port: 0,
  });
  const status = await (await fetch(new URL("status", server.url))).json();
  assertEquals(status.adapters[0].details, {});
});

Deno.test("status server: closing it ends it, and nothing stays open", async () => {
  await using cache = await openBusyCache();
  const server = serveStatus(cache, { port: 0 });
  await server.close();
  await server.finished;
  await server.close();
  const again = serveStatus(cache, { port: Number(new URL(server.url).port) });
  await again.close();
  // The cache works on.
  using hit = await cache.match([testKey(0)], testLayout(1024));
  assertEquals(hit.length, 1);
});
