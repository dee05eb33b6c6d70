import { assertEquals } from "@std/assert";
import { AccessRules, isLoopback } from "../../../src/server/access.ts";

const TOKEN = "0123456789abcdef";

function request(headers: Record<string, string>, method = "GET"): Request {
  return new Request("http://ignored/", { method, headers: { host: "localhost:1", ...headers } });
}

Deno.test("access: loopback addresses are told from others", () => {
  for (const name of ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "[::1]"]) {
    assertEquals(isLoopback(name), true, name);
  }
  for (const name of ["0.0.0.0", "::", "127.0.0.1.example.org", "10.0.0.1", "localhost.example"]) {
    assertEquals(isLoopback(name), false, name);
  }
});

Deno.test("access: host names that a web site can own are rejected", () => {
  const rules = new AccessRules(TOKEN, ["127.0.0.1", "cache.internal"]);
  const statusOf = (host: string) => rules.checkOrigin(request({ host }))?.status;
  for (
    const host of [
      "localhost",
      "localhost:80",
      "LocalHost:1",
      "127.0.0.1:8765",
      "[::1]:8765",
      "10.1.2.3",
      "cache.internal:8765",
    ]
  ) assertEquals(statusOf(host), undefined, host);
  for (
    const host of [
      "evil.example",
      "evil.example:8765",
      "127.0.0.1.evil.example",
      "localhost.evil.example",
      "evil.example@127.0.0.1",
      "",
      "[evil.example]",
      "x.cache.internal",
    ]
  ) assertEquals(statusOf(host), 421, host);
});

Deno.test("access: requests of other origins are rejected", () => {
  const rules = new AccessRules(TOKEN, []);
  const statusOf = (headers: Record<string, string>, method?: string) =>
    rules.checkOrigin(request(headers, method))?.status;
  assertEquals(statusOf({ origin: "http://localhost:1" }, "POST"), undefined);
  assertEquals(statusOf({ origin: "https://localhost:1" }, "POST"), undefined, "behind TLS");
  assertEquals(statusOf({ "sec-fetch-site": "same-origin" }, "POST"), undefined);
  assertEquals(statusOf({ origin: "http://localhost:2" }, "POST"), 403);
  assertEquals(statusOf({ origin: "https://evil.example" }, "POST"), 403);
  assertEquals(statusOf({ origin: "null" }, "POST"), 403);
  for (const site of ["cross-site", "same-site"]) {
    assertEquals(statusOf({ "sec-fetch-site": site }), 403);
    assertEquals(statusOf({ "sec-fetch-site": site, "sec-fetch-mode": "navigate" }), undefined);
    assertEquals(statusOf({ "sec-fetch-site": site, "sec-fetch-mode": "navigate" }, "POST"), 403);
  }
});

Deno.test("access: only the token opens the server", () => {
  const closed = new AccessRules(TOKEN, []);
  const accessOf = (authorization: string) => closed.accessOf(request({ authorization }));
  assertEquals(accessOf(`Bearer ${TOKEN}`), "write");
  assertEquals(accessOf(`bearer ${TOKEN}`), "write");
  assertEquals(closed.accessOf(request({})), "none");
  for (
    const wrong of [
      TOKEN,
      "Bearer",
      "Bearer ",
      `Bearer ${TOKEN.slice(1)}`,
      `Bearer ${TOKEN}x`,
      `Bearer ${TOKEN.toUpperCase()}`,
      `Bearer ${TOKEN} ${TOKEN}`,
      `Basic ${btoa(`x:${TOKEN}`)}`,
      `Bearer ${"x".repeat(5000)}`,
    ]
  ) assertEquals(accessOf(wrong), "none", wrong);

  const open = new AccessRules(undefined, []);
  assertEquals(open.accessOf(request({})), "read");
  assertEquals(open.accessOf(request({ authorization: "Bearer undefined" })), "read");
});
