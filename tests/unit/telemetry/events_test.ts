import { assert, assertEquals } from "@std/assert";
import { configure, reset } from "@logtape/logtape";
import {
  type CacheEvent,
  CacheEvents,
  type CacheEventType,
} from "../../../src/telemetry/events.ts";

const LOST = { message: "gone" };

Deno.test("CacheEvents calls all listeners of a type in order", () => {
  const events = new CacheEvents();
  const heard: string[] = [];
  events.addEventListener(
    "devicelost",
    ({ type, detail }) => heard.push(`a ${type} ${detail.message}`),
  );
  events.addEventListener("devicelost", {
    handleEvent: ({ detail }) => heard.push(`b ${detail.message}`),
  });
  events.addEventListener("deviceattached", () => heard.push("attached"));
  events.emit("devicelost", LOST);
  assertEquals(heard, ["a devicelost gone", "b gone"]);
});

Deno.test("CacheEvents calls a listener once per event until it is removed", () => {
  const events = new CacheEvents();
  let calls = 0;
  const listener = (): void => void calls++;
  events.addEventListener("devicelost", listener);
  events.addEventListener("devicelost", listener);
  events.emit("devicelost", LOST);
  assertEquals(calls, 1);
  events.removeEventListener("devicelost", listener);
  events.emit("devicelost", LOST);
  assertEquals(calls, 1);
});

Deno.test("CacheEvents knows `once`, signals, and no listener at all", () => {
  const events = new CacheEvents();
  let calls = 0;
  const stop = new AbortController();
  events.addEventListener("devicelost", () => calls++, { once: true });
  events.addEventListener("devicelost", () => calls += 10, { signal: stop.signal });
  events.addEventListener("devicelost", null);
  events.removeEventListener("devicelost", null);
  events.emit("devicelost", LOST);
  assertEquals(calls, 11);
  stop.abort();
  events.emit("devicelost", LOST);
  assertEquals(calls, 11);
});

Deno.test("CacheEvents: an error of a listener reaches neither the cache nor other listeners", () => {
  const events = new CacheEvents();
  let calls = 0;
  events.addEventListener("devicelost", () => {
    throw new Error("a bug in a dashboard");
  });
  events.addEventListener("devicelost", {
    handleEvent() {
      throw new Error("another");
    },
  });
  events.addEventListener("devicelost", () => calls++);
  events.emit("devicelost", LOST);
  assertEquals(calls, 1);
});

Deno.test("CacheEvents creates no events without listeners", () => {
  const events = new CacheEvents();
  let made = 0;
  const dispatch = events.dispatchEvent.bind(events);
  events.dispatchEvent = (event) => {
    made++;
    return dispatch(event);
  };
  events.emit("devicelost", LOST);
  assertEquals(made, 0);
  events.addEventListener("devicelost", () => {});
  events.emit("devicelost", LOST);
  assertEquals(made, 1);
});

Deno.test("CacheEvents: the types of the details are checked", () => {
  const events = new CacheEvents();
  const heard: CacheEventType[] = [];
  events.addEventListener("stored", (event: CacheEvent<"stored">) => {
    const { adapter, objects, bytes } = event.detail;
    const sum: number = adapter.id + objects + bytes;
    heard.push("stored");
    assertEquals(sum, 6);
    // @ts-expect-error -- the event has no such detail
    assertEquals(event.detail.message, undefined);
  });
  // @ts-expect-error -- there is no such event
  events.addEventListener("eaten", () => {});
  const ofAnother = (event: CacheEvent<"devicelost">): void => void event.detail.message;
  // @ts-expect-error -- a listener of another event
  events.addEventListener("deleted", ofAnother);
  events.emit("stored", { adapter: { id: 1, type: "fs" }, objects: 2, bytes: 3 });
  // @ts-expect-error -- a detail is missing
  events.emit("deadline", { objects: 2, servedObjects: 3 });
  // @ts-expect-error -- a detail has another type
  events.emit("devicelost", { message: 5 });
  assertEquals(heard, ["stored"]);
});

Deno.test("a rejection of a listener is logged and has no other effect", async () => {
  const messages: string[] = [];
  await configure({
    sinks: { messages: (record) => messages.push(record.message.join("")) },
    loggers: [
      { category: "kvtier", sinks: ["messages"] },
      { category: ["logtape", "meta"], sinks: [] },
    ],
  });
  try {
    const events = new CacheEvents();
    const heard: string[] = [];
    events.addEventListener("devicelost", async () => {
      await Promise.resolve();
      throw new Error("the driver is being reset");
    });
    events.addEventListener("devicelost", () => void heard.push("the other one"));
    events.emit("devicelost", { message: "" });
    await new Promise((resolve) => setTimeout(resolve));
    assertEquals(heard, ["the other one"]);
    assert(messages.some((message) => message.includes("the driver is being reset")));
  } finally {
    await reset();
  }
});
