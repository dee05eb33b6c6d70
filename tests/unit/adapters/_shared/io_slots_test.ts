import { assert, assertEquals, assertRejects } from "@std/assert";
import * as fc from "fast-check";
import { IoLimiter } from "../../../../adapters/_shared/io_slots.ts";
import { runs } from "../../../support/runs.ts";

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
        const slots = new IoLimiter(limit);
        let [operations, bytes, done] = [0, 0, 0];
        const work = async (size: number): Promise<void> => {
          operations++;
          bytes += size;
          assert(operations <= limit.operations, "too many operations");
          assert(bytes <= limit.bytes || operations === 1, "too many bytes");
          assert(slots.operations >= operations && slots.operations <= limit.operations);
          for (let i = 0; i < (d[done % d.length] ?? 0); i++) await Promise.resolve();
          operations--;
          bytes -= size;
          done++;
        };
        await Promise.all(callers.map((sizes) => slots.forEach(sizes, self, work)));
        await slots.idle();
        assertEquals([done, slots.operations], [callers.flat().length, 0]);
      },
    ),
    runs(500),
  );
});

Deno.test("callers are served in order, whatever their size", async () => {
  const slots = new IoLimiter({ operations: 2, bytes: 100 });
  const gate = new Gate();
  const all = [60, 50, 10, 41].map((bytes) => slots.forEach([bytes], self, gate.run));
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
  const slots = new IoLimiter({ operations: 8, bytes: 100 });
  const gate = new Gate();
  const all = [1, 1000, 2].map((bytes) => slots.forEach([bytes], self, gate.run));
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
  const slots = new IoLimiter({ operations: 3, bytes: 1000 });
  const gate = new Gate();
  const all = slots.forEach([1, 2, 3, 4, 5], self, gate.run);
  await turn();
  assertEquals(gate.started, [1, 2, 3]);
  await gate.end(2);
  assertEquals(gate.started, [1, 2, 3, 4]);
  for (const bytes of [1, 3, 4, 5]) await gate.end(bytes);
  await all;
});

Deno.test("idle() waits for running and queued operations", async () => {
  const slots = new IoLimiter({ operations: 1, bytes: 1 });
  await slots.idle();
  const gate = new Gate();
  const all = Promise.all([[1, 2], [3]].map((each) => slots.forEach(each, self, gate.run)));
  let isIdle = false;
  const idle = slots.idle().then(() => isIdle = true);
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
  const slots = new IoLimiter({ operations: 1, bytes: 1 });
  const fail = () => Promise.reject(new Error("no disk"));
  await assertRejects(() => slots.forEach([5], self, fail), Error, "no disk");
  assertEquals(slots.operations, 0);
  await slots.forEach([5], self, () => Promise.resolve());
});

Deno.test("an empty list completes at once", async () => {
  await new IoLimiter({ operations: 1, bytes: 1 }).forEach([], self, () => Promise.reject());
});
