import { assertEquals } from "@std/assert";
import * as fc from "fast-check";
import { LruPolicy } from "../../../src/l1/lru.ts";
import { runs } from "../../support/runs.ts";

Deno.test("LruPolicy lets the tail of a prefix leave before its head", () => {
  const policy = new LruPolicy();
  policy.admitted(["a1", "a2", "a3"]);
  policy.admitted(["b1", "b2"]);
  assertEquals([...policy.candidates()], ["a3", "a2", "a1", "b2", "b1"]);
});

Deno.test("LruPolicy.touched() makes a prefix the last to leave, its tail first", () => {
  const policy = new LruPolicy();
  policy.admitted(["a1", "a2", "a3", "b1"]);
  policy.touched(["a1", "a2"]);
  assertEquals([...policy.candidates()], ["b1", "a3", "a2", "a1"]);
});

Deno.test("LruPolicy.touched() ignores ids that it does not know", () => {
  const policy = new LruPolicy();
  policy.admitted(["a"]);
  policy.removed("a");
  policy.removed("b");
  policy.touched(["a", "b"]);
  assertEquals([...policy.candidates()], []);
});

Deno.test("LruPolicy.candidates() goes on when ids are removed meanwhile", () => {
  const policy = new LruPolicy();
  policy.admitted(["d", "c", "b", "a"]);
  const seen: string[] = [];
  for (const id of policy.candidates()) {
    seen.push(id);
    policy.removed(id);
    if (id === "a") policy.removed("b");
  }
  assertEquals(seen, ["a", "c", "d"]);
});

Deno.test("LruPolicy orders by last use", () => {
  const ids = fc.uniqueArray(fc.constantFrom<string[]>("a", "b", "c", "d", "e", "f"), {
    maxLength: 4,
  });
  const steps = fc.array(fc.tuple(fc.constantFrom("admitted", "touched", "removed"), ids));
  fc.assert(
    fc.property(steps, (calls) => {
      const policy = new LruPolicy();
      let order: string[] = [];
      for (const [call, batch] of calls) {
        const known = call === "touched" ? batch.filter((id) => order.includes(id)) : batch;
        order = order.filter((id) => !batch.includes(id));
        if (call === "removed") {
          for (const id of batch) policy.removed(id);
        } else {
          policy[call as "admitted" | "touched"](batch);
          order.push(...known.toReversed());
        }
        assertEquals([...policy.candidates()], order);
      }
    }),
    runs(300),
  );
});
