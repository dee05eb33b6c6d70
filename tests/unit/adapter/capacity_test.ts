import { assertEquals, assertRejects } from "@std/assert";
import {
  type AdapterObject,
  Bitmap,
  Capacity,
  type CapacityOptions,
  type ObjectKey,
} from "../../../src/adapter/contract.ts";
import { ManualClock } from "../../../src/testing/mod.ts";
import { testKey, testKeys } from "../../support/objects.ts";

const call = { signal: new AbortController().signal };

function objectOf(key: ObjectKey, byteLength = 10): AdapterObject {
  return { key, parts: [new Uint8Array(byteLength)], byteLength };
}

/** A store with room for 100 bytes; above 80, an eviction leaves 50. */
function openStore(options: Partial<CapacityOptions> = {}) {
  const held = new Map<string, AdapterObject>();
  const evicted: ObjectKey[] = [];
  const refused: unknown[] = [];
  const capacity = new Capacity({
    adapter: "test",
    bounds: { capacityBytes: 100, watermark: { high: 0.8, low: 0.5 } },
    remove: (keys) =>
      Promise.resolve(keys.map(({ id }) => {
        const bytes = held.get(id)?.byteLength ?? "absent";
        held.delete(id);
        return bytes;
      })),
    clock: new ManualClock(),
    onError: ({ cause }) => refused.push(cause),
    onEvicted: (keys) => evicted.push(...keys),
    ...options,
  });
  const write = (fitting: readonly AdapterObject[]): Promise<Bitmap> => {
    for (const object of fitting) held.set(object.key.id, object);
    return Promise.resolve(new Bitmap(fitting.length, fitting.length));
  };
  const store = async (keys: readonly ObjectKey[], byteLength?: number): Promise<string> => {
    const objects = keys.map((key) => objectOf(key, byteLength));
    return String((await capacity.store(objects, call, write)).stored);
  };
  const find = async (keys: readonly ObjectKey[]): Promise<string> => {
    const ask = () => Promise.resolve(Bitmap.from(keys, ({ id }) => held.has(id)));
    return String(await capacity.lockFound(keys, false, ask));
  };
  return { capacity, held, evicted, refused, store, find };
}

Deno.test("capacity: the least recently used objects are evicted first, the end of a chain before its front", async () => {
  const { store, capacity, evicted } = openStore();
  assertEquals(await store(testKeys(8)), "11111111");
  capacity.touch(testKeys(3));
  assertEquals(await store(testKeys(3, 8)), "111");
  assertEquals(evicted, [7, 6, 5].map((n) => testKey(n)));
  const usage = { usedBytes: 80, objectCount: 8, capacityBytes: 100 };
  assertEquals(await capacity.usage(call), usage);
});

Deno.test("capacity: what cannot fit beside locked objects evicts nothing", async () => {
  const { store, find, capacity, evicted, refused } = openStore();
  await store(testKeys(8));
  assertEquals(await find(testKeys(5)), "11111");
  assertEquals(await store([testKey(20), testKey(21)], 60), "00");
  assertEquals([evicted.length, refused.length], [0, 0]);
  assertEquals(await store([testKey(20)], 101), "0");
  assertEquals([evicted.length, refused.length], [0, 1]);
  assertEquals(await store([testKey(20)], 50), "1");
  assertEquals(evicted.length, 3);
  assertEquals(String((await capacity.delete(testKeys(5), call)).deleted), "00000");
});

Deno.test("capacity: reservations count until they are settled, also by a write that fails", async () => {
  const { capacity, store } = openStore({ bounds: { capacityBytes: 100, watermark: undefined } });
  const objects = testKeys(6).map((key) => objectOf(key));
  assertEquals(await capacity.reserve(objects, call.signal), Array(6).fill(true));
  assertEquals(await store(testKeys(6, 6)), "111100");
  for (const object of objects) capacity.settle(object, false);
  const fail = () => Promise.reject(new Error("the disk is gone"));
  await assertRejects(() => capacity.store(objects, call, fail), Error, "the disk is gone");
  assertEquals(await store(testKeys(6, 20)), "111111");
});

Deno.test("capacity: an eviction tries an object once that cannot be removed, and goes on", async () => {
  const asked: string[] = [];
  const { capacity, store, evicted } = openStore({
    removalBatch: 2,
    remove: (keys) => {
      asked.push(...keys.map(({ id }) => id));
      return Promise.resolve(keys.map(({ id }) => id === testKey(7).id ? "failed" : 10));
    },
  });
  await store(testKeys(8));
  assertEquals(await store(testKeys(3, 8)), "111");
  assertEquals(evicted, [6, 5, 4].map((n) => testKey(n)));
  assertEquals(asked, [7, 6, 5, 4].map((n) => testKey(n).id));
  assertEquals((await capacity.usage(call)).usedBytes, 80);
});

Deno.test("capacity: an aborted delete settles at once, and its objects are missing until it ends", async () => {
  const removed = Promise.withResolvers<readonly number[]>();
  const { capacity, store, find } = openStore({ remove: () => removed.promise });
  await store(testKeys(2));
  const abort = new AbortController();
  const deleting = capacity.delete([testKey(0)], abort);
  abort.abort();
  assertEquals((await deleting).bytes, 0);
  assertEquals(await find(testKeys(2)), "01");
  removed.resolve([10]);
  await removed.promise;
  await Promise.resolve();
  assertEquals((await capacity.usage(call)).objectCount, 1);
  assertEquals(await store([testKey(0)]), "1");
  assertEquals(await find(testKeys(2)), "11");
});

Deno.test("capacity: a scan counts what others stored, and reports what they removed", async () => {
  const others = testKeys(9);
  const { capacity, evicted, store, refused } = openStore({
    async *scan() {
      for (const key of others) yield { key, byteLength: 10, usedAt: 1 };
    },
    remove: (keys) => Promise.resolve(keys.map(() => 10)),
  });
  assertEquals((await capacity.usage(call)).usedBytes, 90);
  others.length = 3;
  assertEquals(await store(testKeys(2, 20)), "11");
  assertEquals(evicted, testKeys(6, 3));
  assertEquals([(await capacity.usage(call)).usedBytes, refused], [50, []]);
});

Deno.test("capacity: without bounds nothing is scanned or refused, and lookups still lock", async () => {
  const { capacity, store, find, refused } = openStore({
    bounds: undefined,
    scan: () => {
      throw new Error("a scan");
    },
  });
  assertEquals(await store(testKeys(50), 1e9), "1".repeat(50));
  assertEquals(await find([testKey(0)]), "1");
  assertEquals(String((await capacity.delete(testKeys(2), call)).deleted), "01");
  assertEquals([capacity.reportStatus(), refused], [{ lockedObjects: 1 }, []]);
});
