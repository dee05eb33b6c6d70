import { assertEquals } from "@std/assert";
import { Bitmap } from "../../../src/adapter/contract.ts";
import type { StoredObject } from "../../../src/l2/guard_listener.ts";
import { answerWith, empty, filledGuard, guardOf, keys, sealed } from "./guarded.ts";

const all = new Bitmap(3, 3);

Deno.test("guard: listeners are told what objects take, where the adapter says so", async () => {
  const told: StoredObject[] = [];
  const { guard } = guardOf({
    store: answerWith({ stored: Bitmap.from([1, 0, 1], Boolean), bytes: 40, sizes: [10, 20, 30] }),
  });
  guard.addListener({ stored: (objects) => told.push(...objects) });
  await guard.store(sealed);
  assertEquals(told.map(({ key, byteLength }) => [key.id, byteLength]), [
    [keys[0]?.id, 10],
    [keys[2]?.id, 30],
  ]);
  assertEquals(guard.reportStatus().storedBytes, 40);
});

for (const sizes of [[1, 2], [1, 2, -3], [1, 2, "3"], "123", null]) {
  Deno.test(`guard: sizes ${JSON.stringify(sizes)} are no answer`, async () => {
    const { guard } = guardOf({ store: answerWith({ stored: all, bytes: 6, sizes }) });
    assertEquals((await guard.store(sealed)).done.popcount(), 0);
    assertEquals(guard.reportStatus().failedCalls, 1);
  });
}

Deno.test("guard: what an adapter itself finds damaged is counted and removed", async () => {
  const removed: string[] = [];
  const { guard } = await filledGuard({
    load(batch, { onLoaded }) {
      onLoaded?.(0, "transform");
      onLoaded?.(1, "layout");
      onLoaded?.(7, "transform");
      return Promise.resolve(new Bitmap(batch.length));
    },
    delete(keys) {
      removed.push(...keys.map(({ id }) => id));
      return Promise.resolve({ deleted: new Bitmap(keys.length, keys.length), bytes: 0 });
    },
  });
  const { done } = await guard.load(empty());
  assertEquals(done.popcount(), 0);
  const { damagedObjects, missedLoads } = guard.reportStatus();
  assertEquals([damagedObjects, missedLoads], [{ transform: 1, layout: 1 }, 3]);
  assertEquals(removed, [keys[0]?.id], "an object of another layout may belong to another reader");
});

Deno.test("guard: what was verified early and taken back is a miss, and no damage", async () => {
  const { guard } = await filledGuard({
    load(batch, { onLoaded }) {
      onLoaded?.(0);
      return Promise.resolve(new Bitmap(batch.length));
    },
  });
  assertEquals((await guard.load(empty())).done.popcount(), 0);
  assertEquals(guard.reportStatus().damagedObjects, {});
});
