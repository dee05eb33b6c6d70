import { assert, assertEquals } from "@std/assert";
import * as fc from "fast-check";
import { ByteLimiter } from "../../../src/tiering/byte_budget.ts";
import { runs } from "../../support/runs.ts";

/** Requests bytes; returns the outcome so far. */
function ask(
  budget: ByteLimiter,
  bytes: number,
  signal?: AbortSignal,
): { outcome: boolean | undefined } {
  const asked: { outcome: boolean | undefined } = { outcome: undefined };
  budget.acquire(bytes, signal).then((outcome) => asked.outcome = outcome);
  return asked;
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await Promise.resolve();
}

Deno.test("ByteLimiter grants bytes as long as there are as many", async () => {
  const budget = new ByteLimiter(() => 10);
  const asked = [ask(budget, 4), ask(budget, 6), ask(budget, 1)];
  await settle();
  assertEquals(asked.map(({ outcome }) => outcome), [true, true, undefined]);
  assertEquals(budget.used, 10);
  budget.release(4);
  await settle();
  assertEquals(asked[2]?.outcome, true);
});

Deno.test("ByteLimiter is FIFO, whatever the sizes", async () => {
  const budget = new ByteLimiter(() => 10);
  const asked = [ask(budget, 6), ask(budget, 8), ask(budget, 1)];
  await settle();
  assertEquals(asked.map(({ outcome }) => outcome), [true, undefined, undefined]);
  budget.release(6);
  await settle();
  assertEquals(asked.map(({ outcome }) => outcome), [true, true, true]);
});

Deno.test("ByteLimiter grants more than its limit when nothing else is in use", async () => {
  const budget = new ByteLimiter(() => 10);
  const asked = [ask(budget, 25), ask(budget, 1)];
  await settle();
  assertEquals(asked.map(({ outcome }) => outcome), [true, undefined]);
  budget.release(25);
  await settle();
  assertEquals(asked[1]?.outcome, true);
});

Deno.test("ByteLimiter follows its limit", async () => {
  let limit = 10;
  const budget = new ByteLimiter(() => limit);
  const asked = [ask(budget, 5), ask(budget, 5), ask(budget, 5)];
  limit = 5;
  budget.release(5);
  await settle();
  assertEquals(asked[2]?.outcome, undefined);
  budget.release(5);
  await settle();
  assertEquals(asked[2]?.outcome, true);
});

Deno.test("ByteLimiter drops an aborted request, and serves those behind it", async () => {
  const budget = new ByteLimiter(() => 10);
  const controller = new AbortController();
  const asked = [ask(budget, 6), ask(budget, 8, controller.signal), ask(budget, 4)];
  controller.abort();
  await settle();
  assertEquals(asked.map(({ outcome }) => outcome), [true, false, true]);
  assertEquals(budget.used, 10);
  assertEquals(await budget.acquire(0, controller.signal), false);

  // A granted request stays granted.
  const late = new AbortController();
  budget.release(10);
  assertEquals(await budget.acquire(3, late.signal), true);
  late.abort();
  assertEquals(budget.used, 3);
});

Deno.test("ByteLimiter is never passed, never idle, and fair", async () => {
  const sizes = fc.array(
    fc.record({ bytes: fc.integer({ min: 1, max: 14 }), leaves: fc.boolean() }),
    {
      maxLength: 12,
    },
  );
  await fc.assert(
    fc.asyncProperty(sizes, fc.array(fc.nat(11), { maxLength: 20 }), async (asks, order) => {
      const budget = new ByteLimiter(() => 10);
      const held: number[] = [];
      const granted: number[] = [];
      const controllers = asks.map(() => new AbortController());
      const pending = asks.map(({ bytes }, i) =>
        budget.acquire(bytes, (controllers[i] as AbortController).signal).then((isGranted) => {
          if (!isGranted) return;
          granted.push(i);
          held.push(bytes);
        })
      );
      for (const [i, { leaves }] of asks.entries()) if (leaves) controllers[i]?.abort();
      await settle();
      for (let step = 0; held.length > 0; step++) {
        assert(budget.used <= 10 || held.length === 1, `${budget.used} bytes`);
        assertEquals(budget.used, held.reduce((sum, bytes) => sum + bytes, 0));
        const [bytes = 0] = held.splice((order[step] ?? 0) % held.length, 1);
        budget.release(bytes);
        await settle();
      }
      await Promise.all(pending);
      assertEquals(granted, granted.toSorted((a, b) => a - b));
      assertEquals(budget.used, 0);
    }),
    runs(300),
  );
});

Deno.test("ByteLimiter serves very many that wait in no time to speak of", async () => {
  const budget = new ByteLimiter(() => 1);
  const pending = Array.from({ length: 20_000 }, () => budget.acquire(1));
  for (const turn of pending) {
    await turn;
    budget.release(1);
  }
  assertEquals(budget.used, 0);
});
