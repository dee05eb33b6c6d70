import { assert, assertEquals, assertLessOrEqual } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import { concatParts, type ObjectKey } from "../../../src/adapter/contract.ts";
import { testObject } from "../../support/fs_adapter.ts";
import { testBytes, testKey, testKeys } from "../../support/objects.ts";
import {
  call,
  held,
  load,
  lock,
  OBJECT_BYTES,
  remove,
  statusOf,
  store,
  tempPool,
} from "./file_pool_tools.ts";

const keys = testKeys(12);
const a = testKey(0);
const b = testKey(1);
const c = testKey(2);
const d = testKey(3);
const e = testKey(4);

Deno.test("file_pool: a full pool evicts the least recently used objects", async () => {
  await using pool = await tempPool({ slots: 3 });
  for (const key of [a, b, c]) await store(pool.adapter, [key]);
  await load(pool.adapter, [a]);
  assertEquals(await store(pool.adapter, [d]), "1");
  assertEquals(await held(pool.adapter, keys.slice(0, 4)), "1011");
  await lock(pool.adapter, [c]);
  pool.adapter.unlock?.([c]);
  assertEquals(await store(pool.adapter, [e]), "1");
  assertEquals(await held(pool.adapter, keys.slice(0, 5)), "00111");
  assertEquals(await load(pool.adapter, keys.slice(0, 5)), "00111");
  assertEquals(statusOf(pool.adapter).evictedObjects, 2);
  assertEquals(pool.errors, []);
});

Deno.test("file_pool: an object of an aborted load can be evicted", async () => {
  await using pool = await tempPool({ slots: 20 });
  const [old, young] = [testKeys(20), testKeys(20, 100)];
  await store(pool.adapter, old);
  const giveUp = new AbortController();
  // Each key twice, so that one of the two loads may have started.
  const rooms = [...old, ...old].map((key) => {
    return { key, parts: [new Uint8Array(OBJECT_BYTES)], byteLength: OBJECT_BYTES };
  });
  const loading = pool.adapter.load(rooms, giveUp);
  giveUp.abort();
  assertLessOrEqual((await loading).popcount(), 8);
  assertEquals(await store(pool.adapter, young), "1".repeat(20));
  assertEquals(pool.errors, []);
});

Deno.test("file_pool: objects used in device memory stay", async () => {
  await using pool = await tempPool({ slots: 3 });
  for (const key of [a, b, c]) await store(pool.adapter, [key]);
  pool.adapter.touch?.([a, testKey(99), b]);
  assertEquals(await store(pool.adapter, [d]), "1");
  assertEquals(await held(pool.adapter, [a, b, c, d]), "1101");
  // The end of a chain is evicted first.
  assertEquals(await store(pool.adapter, [e]), "1");
  assertEquals(await held(pool.adapter, [a, b, d, e]), "1011");
});

Deno.test("file_pool: the cache is told which objects were evicted", async () => {
  const evicted: string[][] = [];
  const onEvicted = (keys: readonly ObjectKey[]) => void evicted.push(keys.map(({ id }) => id));
  await using pool = await tempPool({ slots: 3 }, { onEvicted });
  await store(pool.adapter, [a, b, c]);
  assertEquals(evicted, []);
  await pool.adapter.delete?.([c], call);
  await store(pool.adapter, [c]);
  assertEquals(evicted, [], "neither a removal nor a free slot evicts");
  await store(pool.adapter, [d, e]);
  assertEquals(evicted, [[b.id, a.id]]);
  // An object that is evicted and stored by the same call exists.
  const [last, ...others] = (await Array.fromAsync(pool.adapter.list?.(call) ?? []))
    .map(({ key }) => key);
  assert(last !== undefined);
  evicted.length = 0;
  await store(pool.adapter, [a, last]);
  for (const [key] of evicted) assert(key !== last.id && others.some(({ id }) => id === key));
});

for (
  const [what, use] of [
    ["stored", async () => {}],
    ["looked up", async (adapter, chain) => {
      await lock(adapter, chain);
      adapter.unlock?.(chain);
    }],
    ["loaded", async (adapter, chain) => void await load(adapter, chain)],
  ] satisfies [string, (adapter: Parameters<typeof lock>[0], chain: typeof keys) => Promise<void>][]
) {
  Deno.test(`file_pool: the end of a chain that was ${what} is evicted first`, async () => {
    await using pool = await tempPool({ slots: 4 });
    const chain = keys.slice(0, 4);
    await store(pool.adapter, what === "stored" ? chain : chain.toReversed());
    await use(pool.adapter, chain);
    for (const [n, left] of ["1110", "1100", "1000"].entries()) {
      assertEquals(await store(pool.adapter, [testKey(5 + n)]), "1");
      assertEquals(await held(pool.adapter, chain), left);
    }
  });
}

Deno.test("file_pool: a batch larger than the pool keeps its front, and reports the rest", async () => {
  await using pool = await tempPool({ slots: 10 });
  await store(pool.adapter, testKeys(10, 100));
  const batch = testKeys(30);
  const front = "1".repeat(10) + "0".repeat(20);
  assertEquals(await store(pool.adapter, batch), front);
  assertEquals(await held(pool.adapter, batch), front);
  assertEquals(pool.errors.map(({ key }) => key?.id), batch.slice(10).map(({ id }) => id));
  assertEquals(await store(pool.adapter, batch.slice(20, 21)), "1");
});

Deno.test("file_pool: a lookup prevents eviction and deletion until it is unlocked as often", async () => {
  await using pool = await tempPool({ slots: 2 });
  await store(pool.adapter, [a, b]);
  assertEquals(await lock(pool.adapter, [a, b]), "11");
  assertEquals(await lock(pool.adapter, [a]), "1");
  assertEquals(await store(pool.adapter, [c]), "0");
  assertEquals([pool.errors[0]?.operation, pool.errors[0]?.key?.id], ["store", c.id]);
  pool.adapter.unlock?.([a, b]);
  assertEquals(await remove(pool.adapter, [a]), "0");
  assertEquals(await store(pool.adapter, [c]), "1");
  assertEquals(await held(pool.adapter, [a, b, c]), "101");
  pool.adapter.unlock?.([a]);
  assertEquals(await remove(pool.adapter, [a]), "1");
  assertEquals(statusOf(pool.adapter).lockedObjects, 0);
});

Deno.test("file_pool: a locked object that is stored again stays locked", async () => {
  await using pool = await tempPool({ slots: 2 });
  await store(pool.adapter, [a]);
  await lock(pool.adapter, [a]);
  assertEquals(await store(pool.adapter, [a]), "1");
  assertEquals(await remove(pool.adapter, [a]), "0");
  await store(pool.adapter, [b]);
  assertEquals(await store(pool.adapter, [c]), "1");
  assertEquals(await held(pool.adapter, [a, b, c]), "101");
});

Deno.test("file_pool: an object being loaded keeps its slot, whatever is stored and deleted", async () => {
  const slots = 24;
  const bytes = 2 ** 17;
  await using pool = await tempPool({ slots, params: { "slot_bytes": bytes, files: 2 } });
  const { adapter } = pool;
  const all = "1".repeat(slots);
  for (let round = 0; round < 6; round++) {
    assertEquals(await store(adapter, testKeys(slots), bytes), all);
    const work: Promise<string>[] = [load(adapter, testKeys(slots), bytes)];
    if (round % 2 === 0) work.push(remove(adapter, testKeys(slots)));
    work.push(store(adapter, testKeys(slots, 100), bytes));
    assertEquals((await Promise.all(work))[0], all);
    await remove(adapter, [...testKeys(slots), ...testKeys(slots, 100)]);
    assertEquals(statusOf(adapter).freeSlots, slots);
  }
});

const places = fc.array(fc.nat(keys.length - 1), { minLength: 1, maxLength: 5 });
const command = fc.oneof(
  fc.record({
    what: fc.constantFrom("store", "store", "load", "lock", "unlock", "delete"),
    places,
    version: fc.nat(2),
  }),
  fc.record({
    what: fc.constantFrom("restart", "crash"),
    places: fc.constant([]),
    version: fc.constant(0),
  }),
);

Deno.test("file_pool: random commands never return wrong bytes, lose locked objects or leak a slot", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(command, { minLength: 5, maxLength: 25 }), async (commands) => {
      await using pool = await tempPool({ slots: 4, params: { "slot_bytes": 4096, files: 2 } });
      const sizes = new Map<string, number>();
      let locks = new Map<string, number>();
      for (const { what, places, version } of commands) {
        const { adapter } = pool;
        const chosen = [...new Set(places)].map((place) => testKey(place));
        const size = OBJECT_BYTES + version;
        if (what === "store") {
          const objects = chosen.map((key) => testObject(key, size));
          const { stored } = await adapter.store(objects, call);
          for (const { id } of stored.gather(chosen)) sizes.set(id, size);
        } else if (what === "load") {
          const rooms = chosen.map((key) => {
            const byteLength = sizes.get(key.id) ?? size;
            return { key, parts: [new Uint8Array(byteLength)], byteLength };
          });
          for (const { key, parts } of (await adapter.load(rooms, call)).gather(rooms)) {
            assertEquals(concatParts(parts), testBytes(key, sizes.get(key.id) ?? -1));
          }
        } else if (what === "lock") {
          const found = await adapter.lookupAndLock(chosen, { ...call, prefix: false });
          for (const { id } of found.gather(chosen)) locks.set(id, (locks.get(id) ?? 0) + 1);
        } else if (what === "unlock") {
          const locked = chosen.filter(({ id }) => (locks.get(id) ?? 0) > 0);
          adapter.unlock?.(locked);
          for (const { id } of locked) locks.set(id, (locks.get(id) ?? 0) - 1);
        } else if (what === "delete") {
          const result = await adapter.delete?.(chosen, call);
          for (const { id } of result?.deleted.gather(chosen) ?? []) sizes.delete(id);
        } else {
          const before = (await Array.fromAsync(adapter.list?.(call) ?? []))
            .map(({ key, byteLength }) => [key.id, byteLength]).sort();
          await (what === "crash" ? pool.crash() : pool.restart());
          locks = new Map();
          const after = (await Array.fromAsync(pool.adapter.list?.(call) ?? []))
            .map(({ key, byteLength }) => [key.id, byteLength]).sort();
          assertEquals(after, before, what);
        }
        const present = await Array.fromAsync(pool.adapter.list?.(call) ?? []);
        for (const { key, byteLength } of present) assertEquals(byteLength, sizes.get(key.id));
        const ids = new Set(present.map(({ key }) => key.id));
        for (const [id, count] of locks) assert(count === 0 || ids.has(id), "a locked one left");
        const { usedSlots, freeSlots } = statusOf(pool.adapter);
        assertEquals([usedSlots, freeSlots], [ids.size, 4 - ids.size]);
        assertLessOrEqual(ids.size, 4);
      }
    }),
    { numRuns: 40 },
  );
});

Deno.test("file_pool: concurrent stores of the same keys leave one object per key", async () => {
  await using pool = await tempPool({ slots: 6 });
  const batch = [testKey(0), testKey(1), testKey(0)];
  for (let round = 0; round < 5; round++) {
    const results = await Promise.all([0, 1].map(() => store(pool.adapter, batch)));
    assertEquals(results, ["111", "111"]);
    assertEquals(statusOf(pool.adapter).freeSlots, 4);
  }
  await pool.crash();
  assertEquals(await load(pool.adapter, batch), "111");
  assertEquals(statusOf(pool.adapter).freeSlots, 4);
});

Deno.test("file_pool: of concurrent stores of a key, the one that began last counts", async () => {
  const slotBytes = 2 ** 22;
  await using pool = await tempPool({ slots: 4, params: { "slot_bytes": slotBytes, files: 2 } });
  for (let round = 0; round < 5; round++) {
    await Promise.all([store(pool.adapter, [a], slotBytes), store(pool.adapter, [a], 10)]);
    assertEquals(await load(pool.adapter, [a], 10), "1");
    assertEquals(statusOf(pool.adapter).freeSlots, 3);
  }
  await pool.crash();
  assertEquals(await load(pool.adapter, [a], 10), "1");
});

Deno.test("file_pool: an aborted call does nothing more", async () => {
  await using pool = await tempPool({ slots: 12, params: { "slot_bytes": 2 ** 20, files: 1 } });
  const objects = keys.map((key) => testObject(key, 2 ** 20));
  const controller = new AbortController();
  const storing = pool.adapter.store(objects, controller);
  controller.abort();
  const { stored } = await storing;
  assertLessOrEqual(stored.popcount(), 8, "objects that were under way");
  const bits = await held(pool.adapter, keys);
  assertEquals(bits, String(stored));
  await store(pool.adapter, keys);
  const deletion = await pool.adapter.delete?.(keys, controller);
  assertEquals(deletion?.deleted.popcount(), 0);
  assertEquals((await pool.adapter.load(objects, controller)).popcount(), 0);
  const { signal } = controller;
  const found = await pool.adapter.lookupAndLock(keys, { signal, prefix: false });
  assertEquals(found.popcount(), 0);
  assertEquals(statusOf(pool.adapter).lockedObjects, 0);
  assertEquals(await remove(pool.adapter, keys), "1".repeat(12));
  assertEquals(pool.errors, []);
});
