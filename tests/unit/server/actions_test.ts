import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { serveStatus } from "../../../src/server/status_server.ts";
import type { TieredCache } from "../../../src/tiered_cache.ts";
import { openBusyCache } from "../../support/busy_cache.ts";
import { eventsOf } from "../../support/event_stream.ts";

const TOKEN = "correct-horse-battery-staple";

/** Headers of a valid request. */
const valid = { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" };

/** Posts to an action; the status and the JSON of the answer. */
async function post(
  url: string,
  name: string,
  body: unknown,
  init: RequestInit = {},
  // deno-lint-ignore no-explicit-any -- answers have many shapes
): Promise<[status: number, answer: any]> {
  const response = await fetch(new URL(`actions/${name}`, url), {
    method: "POST",
    headers: valid,
    body: typeof body === "string" ? body : JSON.stringify(body),
    ...init,
  });
  return [response.status, await response.json()];
}

/** What actions can change. */
function stateOf(cache: TieredCache): unknown {
  return [cache.listAdapters(), cache.quota.list(), Object.fromEntries(cache.usageBySalt())];
}

const requests: readonly [name: string, body: unknown][] = [
  ["forget", { salt: "tenant-0" }],
  ["quota", { salt: "tenant-1", quota: { l1Bytes: 0 } }],
  ["add-adapter", { config: { type: "dram", max_capacity_gb: 0.01 } }],
  ["remove-adapter", { id: 0 }],
];

Deno.test("actions change the cache, and the feed tells of them", async () => {
  await using cache = await openBusyCache();
  await using server = serveStatus(cache, { port: 0, token: TOKEN });
  const { url } = server;
  const events = eventsOf(await fetch(new URL("events", url), { headers: valid }));
  const [forgotten, report] = await post(url, "forget", { salt: "tenant-0" });
  assertEquals(forgotten, 200);
  assertEquals([report.l1.objects, report.adapters[0].objects], [2, 2]);

  const quota = { l1Bytes: 1024, l2Bytes: 4096 };
  assertEquals(await post(url, "quota", { salt: "tenant-1", quota }), [200, {}]);
  assertEquals(cache.quota.get("tenant-1"), quota);
  assertEquals(cache.usageBySalt().get("tenant-1"), 1024);
  const removal = { salt: "tenant-1", quota: null };
  assertEquals(await post(url, "quota", removal), [200, { isDeleted: true }]);
  assertEquals(cache.quota.list(), []);

  const [added, { id }] = await post(url, "add-adapter", {
    config: { type: "dram", "max_capacity_gb": 0.01 },
  });
  assertEquals([added, id], [200, 1]);
  const [removed, { copiedObjects }] = await post(url, "remove-adapter", { id: 0, mode: "drop" });
  assertEquals([removed, copiedObjects], [200, 0]);
  assertEquals(cache.listAdapters().map((adapter) => adapter.id), [1]);

  const said: string[] = [];
  for await (const { event, data } of events) {
    if (event === "cache" && data.type === "action") said.push(data.reason);
    if (said.length === 5) break;
  }
  assertEquals(said[0], 'forgot the salt "tenant-0": 4 objects');
  assertEquals(said[4], "removed adapter 0 (mode drop)");
});

Deno.test("actions: nothing changes without the token, by GET, or from elsewhere", async () => {
  await using cache = await openBusyCache();
  await using server = serveStatus(cache, { port: 0, token: TOKEN });
  const { url } = server;
  const before = stateOf(cache);
  for (const [name, body] of requests) {
    const statusOf = async (init: RequestInit) => (await post(url, name, body, init))[0];
    const { authorization, ...noToken } = valid;
    assertEquals(await statusOf({ headers: noToken }), 401);
    assertEquals(await statusOf({ headers: { ...valid, authorization: "Bearer no" } }), 401);
    assertEquals(await statusOf({ headers: { ...valid, origin: "https://evil.example" } }), 403);
    assertEquals(await statusOf({ headers: { ...valid, "sec-fetch-site": "same-site" } }), 403);
    assertEquals(await statusOf({ headers: { ...valid, "content-type": "text/plain" } }), 415);
    assertEquals(await statusOf({ headers: { authorization } }), 415, "a form of another site");
    const get = await fetch(new URL(`actions/${name}`, url), { headers: valid });
    assertEquals([get.status, get.headers.get("allow")], [405, "POST"]);
    await get.body?.cancel();
  }
  const { hostname, port } = new URL(url);
  using connection = await Deno.connect({ hostname, port: Number(port) });
  const body = JSON.stringify({ salt: "tenant-0" });
  await connection.write(
    new TextEncoder().encode(
      `POST /actions/forget HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer ${TOKEN}\r\n` +
        `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    ),
  );
  const answer = new Uint8Array(1024);
  const length = await connection.read(answer) ?? 0;
  assertStringIncludes(new TextDecoder().decode(answer.subarray(0, length)), " 421 ");
  assertEquals(stateOf(cache), before);
});

Deno.test("actions: a server without a token changes nothing", async () => {
  await using cache = await openBusyCache();
  await using server = serveStatus(cache, { port: 0 });
  const before = stateOf(cache);
  for (const [name, body] of requests) {
    const [status, { error }] = await post(server.url, name, body);
    assertEquals([status, error], [403, "Nothing can be changed, because the server has no token"]);
  }
  assertEquals(stateOf(cache), before);
});

Deno.test("actions: what is wrong is said, and nothing of secrets", async () => {
  await using cache = await openBusyCache();
  await using server = serveStatus(cache, { port: 0, token: TOKEN });
  const before = stateOf(cache);
  const wrong: readonly [name: string, body: unknown, status: number, said: string][] = [
    ["forget", '{"salt":"secret-', 400, "not valid JSON"],
    ["forget", {}, 400, "exactly one"],
    ["forget", { slat: "x" }, 400, "did you mean salt?"],
    ["forget", [], 400, "must be an object"],
    ["forget", { salt: "x", model: "y" }, 400, "exactly one"],
    ["quota", { salt: "x", quota: { l1Bytes: -1 } }, 400, "l1Bytes"],
    ["quota", { salt: 1, quota: {} }, 400, "salt"],
    ["add-adapter", {}, 400, "config"],
    ["add-adapter", { config: { type: "dran" } }, 400, "dram"],
    ["add-adapter", { config: { type: "plugin", module: "./x.ts" } }, 403, "module"],
    [
      "add-adapter",
      { config: { type: "fault_inject", inner: { type: "plugin", module: "./x.ts" } } },
      403,
      "module",
    ],
    ["remove-adapter", { id: 9 }, 400, "No adapter has id 9"],
    ["remove-adapter", { id: 0, mode: "drip" }, 400, "drain"],
    ["forget", { salt: "x".repeat(70_000) }, 413, "65536"],
  ];
  for (const [name, body, status, said] of wrong) {
    const [got, { error }] = await post(server.url, name, body);
    assertEquals(got, status, `${JSON.stringify(body).slice(0, 80)}: ${error}`);
    assertStringIncludes(error, said);
    assert(!error.includes("secret-"));
  }
  assertEquals(stateOf(cache), before);
});
