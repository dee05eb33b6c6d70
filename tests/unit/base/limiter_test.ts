import { assert, assertEquals, assertRejects } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import { Limiter } from "../../../src/base/limiter.ts";
import { runs } from "../../support/runs.ts";

// Acquire and release

/** Asks for bytes; says what became of that so far. */
function ask(
  limiter: Limiter,
  bytes: number,
  signal?: AbortSignal,
): { outcome: boolean | undefined } {
  const asked: { outcome: boolean | undefined } = { outcome: undefined };
  limiter.acquire(bytes, signal).then((outcome) => asked.outcome = outcome);
  return asked;
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await Promise.resolve();
}

Deno.test("Limiter grants bytes as long as there are as many", async () => {
  const limiter = new Limiter({ bytes: 10 });
  const asked = [ask(limiter, 4), ask(limiter, 6), ask(limiter, 1)];
  await settle();
  assertEquals(asked.map(({ outcome }) => outcome), [true, true, undefined]);
  assertEquals(limiter.bytes, 10);
  limiter.release(4);
  await settle();
  assertEquals(asked[2]?.outcome, true);
});

Deno.test("Limiter is FIFO, whatever the sizes", async () => {
  const limiter = new Limiter({ bytes: 10 });
  const asked = [ask(limiter, 6), ask(limiter, 8), ask(limiter, 1)];
  await settle();
  assertEquals(asked.map(({ outcome }) => outcome), [true, undefined, undefined]);
  limiter.release(6);
  await settle();
  assertEquals(asked.map(({ outcome }) => outcome), [true, true, true]);
});

Deno.test("Limiter grants more than its limit when nothing else is in use", async () => {
  const limiter = new Limiter({ bytes: 10 });
  const asked = [ask(limiter, 25), ask(limiter, 1)];
  await settle();
  assertEquals(asked.map(({ outcome }) => outcome), [true, undefined]);
  limiter.release(25);
  await settle();
  assertEquals(asked[1]?.outcome, true);
});

Deno.test("Limiter follows its limit", async () => {
  let limit = 10;
  const limiter = new Limiter({ bytes: () => limit });
  const asked = [ask(limiter, 5), ask(limiter, 5), ask(limiter, 5)];
  limit = 5;
  limiter.release(5);
  await settle();
  assertEquals(asked[2]?.outcome, undefined);
  limiter.release(5);
  await settle();
  assertEquals(asked[2]?.outcome, true);
});

Deno.test("Limiter drops an aborted request, and serves those behind it", async () => {
  const limiter = new Limiter({ bytes: 10 });
  const controller = new AbortController();
  const asked = [ask(limiter, 6), ask(limiter, 8, controller.signal), ask(limiter, 4)];
  controller.abort();
  await settle();
  assertEquals(asked.map(({ outcome }) => outcome), [true, false, true]);
  assertEquals(limiter.bytes, 10);
  assertEquals(await limiter.acquire(0, controller.signal), false);

  // What was granted stays so.
  const late = new AbortController();
  limiter.release(10);
  assertEquals(await limiter.acquire(3, late.signal), true);
  late.abort();
  assertEquals(limiter.bytes, 3);
});

Deno.test("Limiter is never passed, never idle, and fair", async () => {
  const sizes = fc.array(
    fc.record({ bytes: fc.integer({ min: 1, max: 14 }), leaves: fc.boolean() }),
    {
      maxLength: 12,
    },
  );
  await fc.assert(
    fc.asyncProperty(sizes, fc.array(fc.nat(11), { maxLength: 20 }), async (asks, order) => {
      const limiter = new Limiter({ bytes: 10 });
      const held: number[] = [];
      const granted: number[] = [];
      const controllers = asks.map(() => new AbortController());
      const pending = asks.map(({ bytes }, i) =>
        limiter.acquire(bytes, (controllers[i] as AbortController).signal).then((isGranted) => {
          if (!isGranted) return;
          granted.push(i);
          held.push(bytes);
        })
      );
      for (const [i, { leaves }] of asks.entries()) if (leaves) controllers[i]?.abort();
      await settle();
      for (let step = 0; held.length > 0; step++) {
        assert(limiter.bytes <= 10 || held.length === 1, `${limiter.bytes} bytes`);
        assertEquals(limiter.bytes, held.reduce((sum, bytes) => sum + bytes, 0));
        const [bytes = 0] = held.splice((order[step] ?? 0) % held.length, 1);
        limiter.release(bytes);
        await settle();
      }
      await Promise.all(pending);
      assertEquals(granted, granted.toSorted((a, b) => a - b));
      assertEquals(limiter.bytes, 0);
    }),
    runs(300),
  );
});

Deno.test("Limiter serves very many that wait in no time to speak of", async () => {
  const limiter = new Limiter({ bytes: 1 });
  const pending = Array.from({ length: 20_000 }, () => limiter.acquire(1));
  for (const turn of pending) {
    await turn;
    limiter.release(1);
  }
  assertEquals(limiter.bytes, 0);
});

Deno.test("a limiter is given first come, first served, and never passed", async () => {
  const limiter = new Limiter({ bytes: 10 });
  const order: number[] = [];
  const take = (amount: number) => limiter.acquire(amount, never).then(() => order.push(amount));
  const waiting = [take(6), take(5), take(1), take(4)];
  await waiting[0];
  assertEquals([limiter.bytes, order], [6, [6]]);
  limiter.release(6);
  await Promise.all(waiting);
  assertEquals([limiter.bytes, order], [10, [6, 5, 1, 4]]);
});

Deno.test("a request above the limit is granted alone", async () => {
  const limiter = new Limiter({ bytes: 10 });
  await limiter.acquire(1, never);
  let isTaken = false;
  const large = limiter.acquire(100, never).then(() => isTaken = true);
  const small = limiter.acquire(1, never);
  await Promise.resolve();
  assertEquals(isTaken, false);
  limiter.release(1);
  await large;
  assertEquals(limiter.bytes, 100);
  limiter.release(100);
  assertEquals(await small, true);
});

Deno.test("an aborted request acquires nothing, and lets the next one in", async () => {
  const limiter = new Limiter({ bytes: 10 });
  await limiter.acquire(5, never);
  const cancelled = new AbortController();
  const large = limiter.acquire(10, cancelled.signal);
  const small = limiter.acquire(5, never);
  cancelled.abort();
  assertEquals([await large, await small, limiter.bytes], [false, true, 10]);
  assertEquals(await limiter.acquire(1, cancelled.signal), false);
});

Deno.test("a limiter is all there in the end, whatever happens", async () => {
  const step = fc.record({ amount: fc.integer({ min: 1, max: 15 }), leaves: fc.boolean() });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      const limiter = new Limiter({ bytes: 10 });
      const all = steps.map(async ({ amount, leaves }) => {
        const cancelled = new AbortController();
        const taking = limiter.acquire(amount, cancelled.signal);
        if (leaves) queueMicrotask(() => cancelled.abort());
        if (!(await taking)) return;
        if (amount <= 10 && limiter.bytes > 10) throw new Error(`${limiter.bytes} are used`);
        await Promise.resolve();
        limiter.release(amount);
      });
      await Promise.all(all);
      assertEquals(limiter.bytes, 0);
    }),
    runs(200),
  );
});

// forEach

const never = new AbortController().signal;

Deno.test("operations and bytes are limited, and all callers get their turn", async () => {
  const sizes = fc.array(fc.array(fc.nat(12), { maxLength: 12 }), { maxLength: 5 });
  await fc.assert(
    fc.asyncProperty(sizes, fc.integer({ min: 1, max: 4 }), async (batches, operations) => {
      const limiter = new Limiter({ operations, bytes: 10 });
      let [now, bytes, done] = [0, 0, 0];
      const work = async (size: number): Promise<void> => {
        now++;
        bytes += size;
        assert(now <= operations && now <= limiter.operations);
        assert(bytes <= 10 || now === 1);
        await Promise.resolve();
        now--;
        bytes -= size;
        done++;
      };
      await Promise.all(batches.map((batch) => limiter.forEach(batch, self, work, never)));
      assertEquals(done, batches.flat().length);
      assertEquals(limiter.operations, 0);
    }),
    runs(100),
  );
});

Deno.test("an aborted caller leaves the queue without blocking later ones", async () => {
  const limiter = new Limiter({ operations: 3, bytes: 10 });
  assert(await limiter.acquire(6, never));
  const controller = new AbortController();
  const large = limiter.acquire(9, controller.signal);
  const small = limiter.acquire(2, never);
  controller.abort();
  assertEquals([await large, await small], [false, true]);
  assertEquals(await limiter.acquire(0, controller.signal), false);
  limiter.release(6);
  limiter.release(2);
  assertEquals(limiter.operations, 0);
});

/** Work that ends on command. */
class Gate {
  readonly started: number[] = [];
  readonly #ends = new Map<number, () => void>();

  run = (bytes: number): Promise<void> => {
    this.started.push(bytes);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#ends.set(bytes, resolve);
    return promise;
  };

  async end(bytes: number): Promise<void> {
    this.#ends.get(bytes)?.();
    await turn();
  }
}

const self = (bytes: number): number => bytes;

async function turn(): Promise<void> {
  for (let i = 0; i < 10; i++) await Promise.resolve();
}

Deno.test("operations and bytes are limited over all callers together", async () => {
  const caller = fc.array(fc.nat(120), { maxLength: 12 });
  const limits = fc.record({
    operations: fc.integer({ min: 1, max: 5 }),
    bytes: fc.integer({ min: 1, max: 100 }),
  });
  const delays = fc.array(fc.nat(6), { minLength: 1, maxLength: 20 });
  await fc.assert(
    fc.asyncProperty(
      fc.array(caller, { maxLength: 5 }),
      limits,
      delays,
      async (callers, limit, d) => {
        const limiter = new Limiter(limit);
        let [operations, bytes, done] = [0, 0, 0];
        const work = async (size: number): Promise<void> => {
          operations++;
          bytes += size;
          assert(operations <= limit.operations, "too many operations");
          assert(bytes <= limit.bytes || operations === 1, "too many bytes");
          assert(limiter.operations >= operations && limiter.operations <= limit.operations);
          for (let i = 0; i < (d[done % d.length] ?? 0); i++) await Promise.resolve();
          operations--;
          bytes -= size;
          done++;
        };
        await Promise.all(callers.map((sizes) => limiter.forEach(sizes, self, work)));
        await limiter.idle();
        assertEquals([done, limiter.operations], [callers.flat().length, 0]);
      },
    ),
    runs(500),
  );
});

Deno.test("callers are served in order, whatever their size", async () => {
  const limiter = new Limiter({ operations: 2, bytes: 100 });
  const gate = new Gate();
  const all = [60, 50, 10, 41].map((bytes) => limiter.forEach([bytes], self, gate.run));
  await turn();
  // 10 would fit next to 60, but 50 is first in the queue.
  assertEquals(gate.started, [60]);
  await gate.end(60);
  assertEquals(gate.started, [60, 50, 10]);
  await gate.end(10);
  assertEquals(gate.started, [60, 50, 10, 41]);
  await gate.end(50);
  await gate.end(41);
  await Promise.all(all);
});

Deno.test("an operation of more bytes than allowed runs alone", async () => {
  const limiter = new Limiter({ operations: 8, bytes: 100 });
  const gate = new Gate();
  const all = [1, 1000, 2].map((bytes) => limiter.forEach([bytes], self, gate.run));
  await turn();
  assertEquals(gate.started, [1]);
  await gate.end(1);
  assertEquals(gate.started, [1, 1000]);
  await gate.end(1000);
  assertEquals(gate.started, [1, 1000, 2]);
  await gate.end(2);
  await Promise.all(all);
});

Deno.test("one caller runs as many operations as allowed, in order", async () => {
  const limiter = new Limiter({ operations: 3, bytes: 1000 });
  const gate = new Gate();
  const all = limiter.forEach([1, 2, 3, 4, 5], self, gate.run);
  await turn();
  assertEquals(gate.started, [1, 2, 3]);
  await gate.end(2);
  assertEquals(gate.started, [1, 2, 3, 4]);
  for (const bytes of [1, 3, 4, 5]) await gate.end(bytes);
  await all;
});

Deno.test("idle() waits for running and queued operations", async () => {
  const limiter = new Limiter({ operations: 1, bytes: 1 });
  await limiter.idle();
  const gate = new Gate();
  const all = Promise.all([[1, 2], [3]].map((each) => limiter.forEach(each, self, gate.run)));
  let isIdle = false;
  const idle = limiter.idle().then(() => isIdle = true);
  await turn();
  await gate.end(1);
  assertEquals([isIdle, gate.started], [false, [1, 3]]);
  await gate.end(3);
  assertEquals([isIdle, gate.started], [false, [1, 3, 2]]);
  await gate.end(2);
  await Promise.all([all, idle]);
  assert(isIdle);
});

Deno.test("failed work releases its capacity", async () => {
  const limiter = new Limiter({ operations: 1, bytes: 1 });
  const fail = () => Promise.reject(new Error("no disk"));
  await assertRejects(() => limiter.forEach([5], self, fail), Error, "no disk");
  assertEquals(limiter.operations, 0);
  await limiter.forEach([5], self, () => Promise.resolve());
});

Deno.test("an empty list completes at once", async () => {
  await new Limiter({ operations: 1, bytes: 1 }).forEach([], self, () => Promise.reject());
});

Deno.test("items not started when the signal aborts are skipped, with capacity or without", async () => {
  for (const operations of [1, 8]) {
    const limiter = new Limiter({ operations });
    const controller = new AbortController();
    const started: number[] = [];
    await limiter.forEach([1, 2, 3], self, async (item) => {
      started.push(item);
      await Promise.resolve();
      if (operations === 1) controller.abort();
    }, controller.signal);
    assertEquals(started, operations === 1 ? [1] : [1, 2, 3]);
    await limiter.forEach([4], self, () => Promise.reject(), AbortSignal.abort());
    await limiter.idle();
    assertEquals(limiter.operations, 0);
  }
});

Deno.test("a call that waits has one request in the queue, so that callers take turns", async () => {
  const limiter = new Limiter({ bytes: 10 });
  const gate = new Gate();
  const all = [[7, 4, 5], [6]].map((each) => limiter.forEach(each, self, gate.run));
  await turn();
  assertEquals(gate.started, [7]);
  await gate.end(7);
  assertEquals(gate.started, [7, 4, 6]);
  await gate.end(4);
  await gate.end(6);
  assertEquals(gate.started, [7, 4, 6, 5]);
  await gate.end(5);
  await Promise.all(all);
});

Deno.test("a call that waited uses all the capacity that comes free", async () => {
  const limiter = new Limiter({ bytes: 10 });
  const gate = new Gate();
  const all = limiter.forEach([10, 1, 2, 3, 4], self, gate.run);
  await turn();
  assertEquals(gate.started, [10]);
  await gate.end(10);
  assertEquals(gate.started, [10, 1, 2, 3, 4]);
  for (const bytes of [1, 2, 3, 4]) await gate.end(bytes);
  await all;
});

Deno.test("operations without bytes count as operations", () => {
  const limiter = new Limiter({ operations: 2 });
  assert(limiter.tryAcquire(0) && limiter.tryAcquire(0));
  assert(!limiter.tryAcquire(0));
  limiter.release(0);
  assert(limiter.tryAcquire(0));
});

Deno.test("a call that waits when its signal aborts ends without starting anything", async () => {
  const limiter = new Limiter({ operations: 1 });
  assert(limiter.tryAcquire(0));
  const controller = new AbortController();
  const started: number[] = [];
  const all = limiter.forEach([1, 2], self, (item) => {
    started.push(item);
    return Promise.resolve();
  }, controller.signal);
  controller.abort();
  await all;
  assertEquals([started, limiter.operations], [[], 1]);
});

Deno.test("a request that was granted leaves no listener on its signal", async () => {
  const limiter = new Limiter({ operations: 1 });
  const { signal } = new AbortController();
  let listeners = 0;
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (...args: Parameters<typeof add>) => (listeners++, add(...args));
  signal.removeEventListener = (
    ...args: Parameters<typeof remove>
  ) => (listeners--, remove(...args));
  assert(limiter.tryAcquire(0));
  const granted = limiter.acquire(0, signal);
  assertEquals(listeners, 1);
  limiter.release(0);
  assert(await granted);
  assertEquals(listeners, 0);
});
