import { assertEquals } from "@std/assert";
import { AdapterCalls, type CallEnd } from "../../../src/l2/adapter_calls.ts";
import type { Clock } from "../../../src/base/clock.ts";

/**
 * Clock of a thread that sometimes computes: callbacks due in the meantime are called late, once.
 */
class BusyThreadClock implements Clock {
  #now = 0;
  #timers: { readonly at: number; readonly callback: () => void }[] = [];

  now(): number {
    return this.#now;
  }

  schedule(callback: () => void, delayMs: number): () => void {
    const timer = { at: this.#now + delayMs, callback };
    this.#timers.push(timer);
    return () => this.#timers = this.#timers.filter((other) => other !== timer);
  }

  /** Computes for some time, then runs the event loop once. */
  compute(ms: number): void {
    this.#now += ms;
    const due = this.#timers.filter(({ at }) => at <= this.#now);
    this.#timers = this.#timers.filter(({ at }) => at > this.#now);
    for (const { callback } of due) callback();
  }
}

Deno.test("AdapterCalls: time in which the event loop does not turn is no adapter's", async () => {
  const clock = new BusyThreadClock();
  const calls = new AdapterCalls(clock, () => {});
  const ends: CallEnd<string>[] = [];
  const ended = (end: CallEnd<string>): void => void ends.push(end);
  const { promise, resolve } = Promise.withResolvers<string>();
  const quick = calls.run({ timeoutMs: 3_500, work: () => promise, ended });
  for (let i = 0; i < 3; i++) clock.compute(100_000);
  assertEquals(calls.hung, 0);
  resolve("stored");
  assertEquals((await quick).value, "stored");

  const never = new Promise<string>(() => {});
  const slow = calls.run({ timeoutMs: 3_500, work: () => never, ended });
  for (let i = 0; i < 3; i++) clock.compute(100_000);
  assertEquals(calls.hung, 0);
  clock.compute(499);
  assertEquals(calls.hung, 0);
  clock.compute(1);
  assertEquals((await slow).status, "timed-out");
  assertEquals(ends.map(({ status }) => status), ["answered", "failed"]);
});
