import { assert, assertEquals, assertGreater, assertLess, assertStringIncludes } from "@std/assert";
import { EventFeed, MAX_STREAMS } from "../../../src/server/event_feed.ts";
import { serveStatus } from "../../../src/server/status_server.ts";
import { openBusyCache, use } from "../../support/busy_cache.ts";
import { eventsOf, type SentEvent } from "../../support/event_stream.ts";
import { waitUntil } from "../../support/wait_until.ts";

const TOKEN = "correct-horse-battery-staple";

/** Reads events until one passes the test; it is the last one of the result. */
async function readUntil(
  events: AsyncGenerator<SentEvent, void>,
  isLast: (event: SentEvent) => boolean,
): Promise<SentEvent[]> {
  const read: SentEvent[] = [];
  for (;;) {
    const { value } = await events.next();
    assert(value !== undefined, "the stream ended");
    read.push(value);
    if (isLast(value)) return read;
  }
}

Deno.test("event feed: a stream greets, shows the status, and tells what happens", async () => {
  await using cache = await openBusyCache();
  await using server = serveStatus(cache, { port: 0 });
  const response = await fetch(new URL("events", server.url));
  assertStringIncludes(response.headers.get("content-type") ?? "", "text/event-stream");
  const events = eventsOf(response);
  const [hello, status] = await readUntil(events, ({ event }) => event === "status");
  assertEquals(hello?.event, "hello");
  assertEquals(hello?.data.canAct, false);
  assertEquals(status?.data.status, JSON.parse(JSON.stringify(cache.reportStatus())));

  await use(cache, 1);
  const told = await readUntil(events, ({ event, data }) => {
    return event === "cache" && data.type === "loaded";
  });
  const stored = told.find(({ data }) => data.type === "stored")?.data;
  assertEquals([stored?.adapter, stored?.objects], [{ id: 0, type: "dram" }, 14]);
  await events.return();
});

Deno.test("event feed: events that say the same are counted together, also many", async () => {
  await using cache = await openBusyCache();
  await using server = serveStatus(cache, { port: 0 });
  const events = eventsOf(await fetch(new URL("events", server.url)));
  await readUntil(events, ({ event }) => event === "status");
  for (let i = 0; i < 10_000; i++) {
    cache.events.emit("dropped", { objects: 2, reason: "full" });
    cache.events.emit("devicelost", { message: `number ${i}` });
  }
  const told = await readUntil(events, ({ data }) => data.type === "others");
  const dropped = told.find(({ data }) => data.type === "dropped")?.data;
  assertEquals([dropped?.count, dropped?.objects], [10_000, 20_000]);
  assertLess(told.length, 100);
  await events.return();

  // A later stream begins with what is worth knowing of that.
  const again = eventsOf(await fetch(new URL("events", server.url)));
  const past = await readUntil(again, ({ event }) => event === "status");
  assert(past.some(({ data }) => data.type === "dropped" && data.objects === 20_000));
  await again.return();
});

Deno.test("event feed: a token opens it, in a header only", async () => {
  await using cache = await openBusyCache();
  await using server = serveStatus(cache, { port: 0, token: TOKEN });
  const statusOf = async (path: string, headers: HeadersInit = {}) => {
    const response = await fetch(new URL(path, server.url), { headers });
    await response.body?.cancel();
    return response.status;
  };
  assertEquals(await statusOf("events"), 401);
  assertEquals(await statusOf(`events?token=${TOKEN}`), 401);
  assertEquals(await statusOf("events", { authorization: `Bearer ${TOKEN}` }), 200);
});

Deno.test("event feed: the number of streams is bounded, and a closed one makes room", async () => {
  await using cache = await openBusyCache();
  await using server = serveStatus(cache, { port: 0 });
  const open = () => fetch(new URL("events", server.url));
  const streams = await Promise.all(Array.from({ length: MAX_STREAMS }, open));
  assertEquals(new Set(streams.map(({ status }) => status)), new Set([200]));
  const refused = await open();
  assertEquals([refused.status, refused.headers.get("retry-after")], [503, "10"]);
  assertStringIncludes(await refused.text(), "event streams already");
  await streams.pop()?.body?.cancel();
  await waitUntil(async () => {
    const response = await open();
    await response.body?.cancel();
    return response.status === 200;
  });
  for (const { body } of streams) await body?.cancel();
});

Deno.test("event feed: what waits for a reader that does not read is bounded", async () => {
  await using cache = await openBusyCache();
  using feed = new EventFeed(cache, { version: "1.0.0", canAct: false });
  const slow = feed.open();
  const prompt = eventsOf(new Response(feed.open()));
  for (let round = 0; round < 6; round++) {
    for (let i = 0; i < 60; i++) {
      cache.events.emit("devicelost", { message: `${round} ${i} `.padEnd(5_000, "x") });
    }
    await readUntil(prompt, ({ data }) => data.reason?.startsWith(`${round} 59 `));
  }
  await prompt.return();
  feed[Symbol.dispose]();
  const kept = await new Response(slow).arrayBuffer();
  assertGreater(kept.byteLength, 2 ** 17);
  assertLess(kept.byteLength, 2 ** 18 + 2 ** 14);
});

Deno.test("event feed: closing the server ends the streams; a new one takes over", async () => {
  await using cache = await openBusyCache();
  const server = serveStatus(cache, { port: 0 });
  const { url } = server;
  const events = eventsOf(await fetch(new URL("events", url)));
  const [hello] = await readUntil(events, ({ event }) => event === "status");
  await server.close();
  for (let done = false; !done;) {
    done = await events.next().then((next) => next.done === true, () => true);
  }

  await using _next = serveStatus(cache, { port: Number(new URL(url).port) });
  const again = eventsOf(await fetch(new URL("events", url)));
  const [second] = await readUntil(again, ({ event }) => event === "status");
  assert(second?.data.startedAt > hello?.data.startedAt, "it can be told from the first one");
  await again.return();
});
