import { assertEquals } from "@std/assert";
import * as fc from "fast-check";
import { Allowance } from "../../../../src/l2/transforms/allowance.ts";
import { runs } from "../../../support/runs.ts";

const never = new AbortController().signal;

Deno.test("an allowance is given first come, first served, and never passed", async () => {
  const allowance = new Allowance(10);
  const order: number[] = [];
  const take = (amount: number) => allowance.take(amount, never).then(() => order.push(amount));
  const waiting = [take(6), take(5), take(1), take(4)];
  await waiting[0];
  assertEquals([allowance.used, order], [6, [6]]);
  allowance.give(6);
  await Promise.all(waiting);
  assertEquals([allowance.used, order], [10, [6, 5, 1, 4]]);
});

Deno.test("who asks for more than there is gets it alone", async () => {
  const allowance = new Allowance(10);
  await allowance.take(1, never);
  let isTaken = false;
  const large = allowance.take(100, never).then(() => isTaken = true);
  const small = allowance.take(1, never);
  await Promise.resolve();
  assertEquals(isTaken, false);
  allowance.give(1);
  await large;
  assertEquals(allowance.used, 100);
  allowance.give(100);
  assertEquals(await small, true);
});

Deno.test("who gives up takes nothing, and lets the next one in", async () => {
  const allowance = new Allowance(10);
  await allowance.take(5, never);
  const leaving = new AbortController();
  const large = allowance.take(10, leaving.signal);
  const small = allowance.take(5, never);
  leaving.abort();
  assertEquals([await large, await small, allowance.used], [false, true, 10]);
  assertEquals(await allowance.take(1, leaving.signal), false);
});

Deno.test("an allowance is all there in the end, whatever happens", async () => {
  const step = fc.record({ amount: fc.integer({ min: 1, max: 15 }), leaves: fc.boolean() });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      const allowance = new Allowance(10);
      const all = steps.map(async ({ amount, leaves }) => {
        const leaving = new AbortController();
        const taking = allowance.take(amount, leaving.signal);
        if (leaves) queueMicrotask(() => leaving.abort());
        if (!(await taking)) return;
        if (amount <= 10 && allowance.used > 10) throw new Error(`${allowance.used} are used`);
        await Promise.resolve();
        allowance.give(amount);
      });
      await Promise.all(all);
      assertEquals(allowance.used, 0);
    }),
    runs(200),
  );
});
