import { assert, assertEquals } from "@std/assert";
import { abortAfter, systemClock, wait } from "../../../src/base/clock.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";

/** Whether a promise has settled, without waiting for it. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  promise.finally(() => settled = true);
  for (let turn = 0; turn < 10; turn++) await Promise.resolve();
  return settled;
}

Deno.test("systemClock.now() never goes backwards", () => {
  let before = systemClock.now();
  for (let i = 0; i < 1000; i++) {
    const now = systemClock.now();
    assert(now >= before);
    before = now;
  }
});

Deno.test("systemClock.schedule() calls once the delay is over", async () => {
  const start = systemClock.now();
  await new Promise<void>((resolve) => systemClock.schedule(resolve, 2));
  assert(systemClock.now() - start >= 1, "1 ms of rounding at most");
});

Deno.test("systemClock.schedule() returns a cancel function that can be called twice and late", async () => {
  let calls = 0;
  const cancel = systemClock.schedule(() => calls++, 0);
  cancel();
  cancel();
  const cancelTooLate = await new Promise<() => void>((resolve) => {
    const late = systemClock.schedule(() => resolve(late), 0);
  });
  cancelTooLate();
  assertEquals(calls, 0);
});

Deno.test("wait() resolves after the delay, not before", async () => {
  const clock = new ManualClock();
  const waiting = wait(clock, 100);
  await clock.advance(99);
  assert(!await isSettled(waiting));
  await clock.advance(1);
  assert(await isSettled(waiting));
});

Deno.test("wait() resolves when its signal aborts and leaves no timer", async () => {
  const clock = new ManualClock();
  const controller = new AbortController();
  const waiting = wait(clock, 100, controller.signal);
  assert(!await isSettled(waiting));
  controller.abort();
  await waiting;
  assertEquals(clock.pendingTimers, 0);
});

Deno.test("wait() schedules nothing when its signal aborted before", async () => {
  const clock = new ManualClock();
  await wait(clock, 100, AbortSignal.abort());
  assertEquals(clock.pendingTimers, 0);
});

Deno.test("wait() leaves no listener on its signal", async () => {
  const clock = new ManualClock();
  const { signal } = new AbortController();
  let listeners = 0;
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (...args: Parameters<typeof add>) => (listeners++, add(...args));
  signal.removeEventListener = (
    ...args: Parameters<typeof remove>
  ) => (listeners--, remove(...args));
  const waiting = wait(clock, 100, signal);
  assertEquals(listeners, 1);
  await clock.advance(100);
  await waiting;
  assertEquals(listeners, 0);
});

Deno.test("systemClock.schedule() supports delays beyond the limit of setTimeout", async () => {
  let calls = 0;
  const cancels = [Infinity, 2 ** 31, 2 ** 40].map((delayMs) =>
    systemClock.schedule(() => calls++, delayMs)
  );
  await new Promise<void>((resolve) => systemClock.schedule(resolve, 20));
  assertEquals(calls, 0);
  for (const cancel of cancels) cancel();
});

/** What a program that does something with `systemClock` prints on stdout and stderr. */
async function outputOf(statements: string): Promise<string> {
  const url = new URL("../../../src/base/clock.ts", import.meta.url);
  const program = `import { systemClock } from "${url}"; ${statements}`;
  const signal = AbortSignal.timeout(20_000);
  const args = ["eval", program];
  const command = new Deno.Command(Deno.execPath(), { args, stdin: "null", signal });
  const { stdout, stderr, code } = await command.output();
  assertEquals(code, 0, "it ends by itself");
  return [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes)).join("");
}

Deno.test("systemClock.schedule() accepts any delay without a warning", async () => {
  const delays = "[-1, NaN, -Infinity, 0, 0.1]";
  const statements = `for (const ms of ${delays}) systemClock.schedule(() => console.log(ms), ms)`;
  assertEquals((await outputOf(statements)).trim().split("\n").length, 5);
});

Deno.test("systemClock.schedule() does not keep the process alive for background work", async () => {
  const statements = [
    "systemClock.schedule(() => console.log('late'), 3_600_000, { background: true })",
    "systemClock.schedule(() => console.log('late'), 2 ** 40, { background: true })",
    "systemClock.schedule(() => console.log('awaited'), 1)",
  ];
  assertEquals(await outputOf(statements.join(";")), "awaited\n");
});

Deno.test("abortAfter() aborts after the delay, with the reason", async () => {
  const clock = new ManualClock();
  const reason = new Error("too late");
  using limit = abortAfter(clock, 100, reason);
  await clock.advance(99);
  assert(!limit.signal.aborted);
  await clock.advance(1);
  assert(limit.signal.reason === reason);
});

Deno.test("abortAfter() leaves no timer when it is disposed, and none that never ends", () => {
  const clock = new ManualClock();
  {
    using limit = abortAfter(clock, 100);
    assertEquals([limit.signal.aborted, clock.pendingTimers], [false, 1]);
  }
  assertEquals(clock.pendingTimers, 0);
  using _ = abortAfter(clock, Infinity);
  assertEquals(clock.pendingTimers, 0);
});
