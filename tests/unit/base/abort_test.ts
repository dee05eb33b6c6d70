import { assertEquals, assertRejects } from "@std/assert";
import { untilAborted } from "../../../src/base/abort.ts";

/** A signal that counts its listeners. */
function countedSignal(): { controller: AbortController; listeners: () => number } {
  const controller = new AbortController();
  const { signal } = controller;
  let listeners = 0;
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (...args: Parameters<typeof add>) => (listeners++, add(...args));
  signal.removeEventListener = (
    ...args: Parameters<typeof remove>
  ) => (listeners--, remove(...args));
  return { controller, listeners: () => listeners };
}

Deno.test("untilAborted() resolves to the result of the work and leaves no listener", async () => {
  const { controller, listeners } = countedSignal();
  const { promise, resolve } = Promise.withResolvers<string>();
  const result = untilAborted(controller.signal, promise, () => "fallback");
  assertEquals(listeners(), 1);
  resolve("work");
  assertEquals(await result, "work");
  assertEquals(listeners(), 0);
});

Deno.test("untilAborted() rejects with the failure of the work and leaves no listener", async () => {
  const { controller, listeners } = countedSignal();
  const failing = Promise.reject(new Error("work"));
  await assertRejects(() => untilAborted(controller.signal, failing), Error, "work");
  assertEquals(listeners(), 0);
});

Deno.test("untilAborted() resolves to the fallback on an abort; later failures are ignored", async () => {
  const { controller, listeners } = countedSignal();
  const { promise, reject } = Promise.withResolvers<string>();
  const result = untilAborted(controller.signal, promise, () => "fallback");
  controller.abort();
  assertEquals(await result, "fallback");
  reject(new Error("too late"));
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(listeners(), 0);
});

Deno.test("untilAborted() rejects with the reason of the signal if there is no fallback", async () => {
  const controller = new AbortController();
  const result = untilAborted(controller.signal, new Promise(() => {}));
  controller.abort(new Error("too late"));
  await assertRejects(() => result, Error, "too late");
  const aborted = AbortSignal.abort(new Error("before"));
  await assertRejects(() => untilAborted(aborted, new Promise(() => {})), Error, "before");
});

Deno.test("untilAborted() without a signal is the work", async () => {
  assertEquals(await untilAborted(undefined, Promise.resolve(1)), 1);
});
