import { assertEquals } from "@std/assert";
import * as fc from "fast-check";
import { Limiter } from "../../../../src/l2/transforms/allowance.ts";
import { runs } from "../../../support/runs.ts";

const never = new AbortController().signal;

Deno.test("an limiter is given first come, first served, and never passed", async () => {
  const limiter = new Limiter(10);
  const order: number[] = [];
  const take = (amount: number) => limiter.acquire(amount, never).then(() => order.push(amount));
  const waiting = [take(6), take(5), take(1), take(4)];
  await waiting[0];
  assertEquals([limiter.used, order], [6, [6]]);
  limiter.release(6);
  await Promise.all(waiting);
  assertEquals([limiter.used, order], [10, [6, 5, 1, 4]]);
});

Deno.test("a request above the limit is granted alone", async () => {
  const limiter = new Limiter(10);
  await limiter.acquire(1, never);
  let isTaken = false;
  const large = limiter.acquire(100, never).then(() => isTaken = true);
  const small = limiter.acquire(1, never);
  await Promise.resolve();
  assertEquals(isTaken, false);
  limiter.release(1);
  await large;
  assertEquals(limiter.used, 100);
  limiter.release(100);
  assertEquals(await small, true);
});

Deno.test("an aborted request acquires nothing, and lets the next one in", async () => {
  const limiter = new Limiter(10);
  await limiter.acquire(5, never);
  const cancelled = new AbortController();
  const large = limiter.acquire(10, cancelled.signal);
  const small = limiter.acquire(5, never);
  cancelled.abort();
  assertEquals([await large, await small, limiter.used], [false, true, 10]);
  assertEquals(await limiter.acquire(1, cancelled.signal), false);
});

Deno.test("an limiter is all there in the end, whatever happens", async () => {
  const step = fc.record({ amount: fc.integer({ min: 1, max: 15 }), leaves: fc.boolean() });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      const limiter = new Limiter(10);
      const all = steps.map(async ({ amount, leaves }) => {
        const cancelled = new AbortController();
        const taking = limiter.acquire(amount, cancelled.signal);
        if (leaves) queueMicrotask(() => cancelled.abort());
        if (!(await taking)) return;
        if (amount <= 10 && limiter.used > 10) throw new Error(`${limiter.used} are used`);
        await Promise.resolve();
        limiter.release(amount);
      });
      await Promise.all(all);
      assertEquals(limiter.used, 0);
    }),
    runs(200),
  );
});
