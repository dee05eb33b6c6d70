import { assert, assertEquals } from "@std/assert";
import * as fc from "fast-check";
import { OperationLimiter } from "../../../../adapters/_shared/flight_limit.ts";
import { runs } from "../../../support/runs.ts";

const never = new AbortController().signal;

Deno.test("operations and bytes are limited, and all callers get their turn", async () => {
  const sizes = fc.array(fc.array(fc.nat(12), { maxLength: 12 }), { maxLength: 5 });
  await fc.assert(
    fc.asyncProperty(sizes, fc.integer({ min: 1, max: 4 }), async (batches, operations) => {
      const limit = new OperationLimiter({ operations, bytes: 10 });
      let [now, bytes, done] = [0, 0, 0];
      const work = async (size: number): Promise<void> => {
        now++;
        bytes += size;
        assert(now <= operations && now <= limit.operations);
        assert(bytes <= 10 || now === 1);
        await Promise.resolve();
        now--;
        bytes -= size;
        done++;
      };
      await Promise.all(batches.map((batch) => limit.forEach(batch, (size) => size, never, work)));
      assertEquals(done, batches.flat().length);
      assertEquals(limit.operations, 0);
    }),
    runs(100),
  );
});

Deno.test("an aborted caller leaves the queue without blocking later ones", async () => {
  const limit = new OperationLimiter({ operations: 3, bytes: 10 });
  assert(await limit.acquire(6, never));
  const controller = new AbortController();
  const large = limit.acquire(9, controller.signal);
  const small = limit.acquire(2, never);
  controller.abort();
  assertEquals([await large, await small], [false, true]);
  assertEquals(await limit.acquire(0, controller.signal), false);
  limit.release(6);
  limit.release(2);
  assertEquals(limit.operations, 0);
});
