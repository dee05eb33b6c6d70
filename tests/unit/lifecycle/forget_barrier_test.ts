import { assertEquals, assertRejects } from "@std/assert";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import { ForgetBarrier } from "../../../src/lifecycle/forget_barrier.ts";
import { testKeys } from "../../support/objects.ts";
import { settle } from "../../support/prefetch.ts";
import { gate } from "../../support/recording_adapter.ts";

const [a, b, c] = testKeys(3) as [ObjectKey, ObjectKey, ObjectKey];
const everything = { matches: () => true };

Deno.test("ForgetBarrier blocks what is being forgotten, and what has expired", () => {
  const barrier = new ForgetBarrier();
  const blocked = (): boolean[] => [a, b, c].map((key) => barrier.blocks(key));
  {
    using _a = barrier.raise({ matches: ({ id }) => id === a.id });
    using _again = barrier.raise({ matches: ({ id }) => id === a.id || id === b.id });
    barrier.block(c);
    assertEquals([blocked(), barrier.forgets], [[true, true, true], 2]);
  }
  assertEquals([blocked(), barrier.forgets], [[false, false, true], 0]);
  barrier.unblock(c);
  assertEquals(blocked(), [false, false, false]);
});

Deno.test("ForgetBarrier.passed() waits for stores, and for the copies in flight", async () => {
  const barrier = new ForgetBarrier();
  const [storing, first, later] = [gate(), gate(), gate()];
  const targets: unknown[] = [];
  barrier.addWriter({
    settle: (target) => {
      targets.push(target);
      return storing.promise;
    },
  });
  const copy = barrier.track(first.promise.then(() => Promise.reject(new Error("no room"))));
  let hasPassed = false;
  const passed = barrier.passed(everything).then(() => hasPassed = true);
  const nextCopy = barrier.track(later.promise);
  assertEquals(targets, [everything]);

  storing.open();
  await settle();
  assertEquals(hasPassed, false, "a copy is in flight");
  first.open();
  await assertRejects(() => copy, Error, "no room");
  await passed;

  later.open();
  await nextCopy;
  await barrier.passed(everything);
});
