import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import dram from "../../../adapters/dram.ts";
import type { AdapterError, L2Adapter } from "../../../src/adapter/contract.ts";
import { parseAdapterConfig } from "../../../src/adapter/config.ts";
import { assertSameBytes } from "../../support/bytes.ts";
import { testEnvironment } from "../../support/adapters.ts";
import { testObject } from "../../support/fs_adapter.ts";
import { testBytes, testKey, testKeys } from "../../support/objects.ts";

const call = { signal: new AbortController().signal };
const lookupCall = { ...call, prefix: false };

/** Opens an adapter for `objects` objects of 1000 bytes; collects its reports. */
function openDram(
  objects: number,
  config: Record<string, unknown> = {},
): { adapter: L2Adapter; errors: AdapterError[] } {
  const errors: AdapterError[] = [];
  const given = { "max_capacity_gb": (objects * 1000 + 0.5) / 2 ** 30, ...config };
  const environment = testEnvironment({ onError: (error) => errors.push(error) });
  const adapter = dram.create(parseAdapterConfig(dram, given), environment) as L2Adapter;
  return { adapter, errors };
}

/** Evicts only what a store needs. */
const ON_DEMAND = { "trigger_watermark": 1, "eviction_ratio": 1e-9 };

async function store(
  adapter: L2Adapter,
  numbers: readonly number[],
  byteLength = 1000,
): Promise<string> {
  const objects = numbers.map((n) => testObject(testKey(n), byteLength));
  return String((await adapter.store(objects, call)).stored);
}

async function held(adapter: L2Adapter, count: number): Promise<string> {
  const listed = await Array.fromAsync(adapter.list?.(call) ?? [], ({ key }) => key.id);
  return testKeys(count).map(({ id }) => listed.includes(id) ? "1" : "0").join("");
}

Deno.test("dram: the least recently used object is evicted first with LRU; lookups and loads renew", async () => {
  const { adapter } = openDram(3, { eviction: { "eviction_policy": "LRU", ...ON_DEMAND } });
  for (const n of [0, 1, 2]) await store(adapter, [n]);
  adapter.unlock?.((await adapter.lookupAndLock([testKey(0)], lookupCall)).gather([testKey(0)]));
  await store(adapter, [3]);
  assertEquals(await held(adapter, 4), "1011");
  await adapter.load([testObject(testKey(2))], call);
  await store(adapter, [4]);
  assertEquals(await held(adapter, 5), "00111");
});

Deno.test("dram: by default what is used most often stays longest; a lookup is a use", async () => {
  const { adapter } = openDram(3);
  for (const n of [0, 1, 2]) await store(adapter, [n]);
  adapter.unlock?.((await adapter.lookupAndLock([testKey(0)], lookupCall)).gather([testKey(0)]));
  for (const n of [3, 4, 5]) await store(adapter, [n]);
  assertEquals(await held(adapter, 6), "100011");
});

Deno.test("dram: the end of a chain is evicted first", async () => {
  const { adapter } = openDram(4);
  await store(adapter, [0, 1, 2, 3]);
  await store(adapter, [4]);
  assertEquals(await held(adapter, 5), "11101");
});

Deno.test("dram: a batch that is too large keeps its front, and reports the other keys", async () => {
  const { adapter, errors } = openDram(3);
  await store(adapter, [9]);
  assertEquals(await store(adapter, [0, 1, 2, 3, 4]), "11100");
  assertEquals(await held(adapter, 10), "1110000000");
  assertEquals(errors.map(({ key }) => key?.id), [testKey(3).id, testKey(4).id]);
  assertEquals(adapter.reportStatus?.().refusedStores, 2);
});

Deno.test("dram: locked objects are neither evicted nor removed, however often they are locked", async () => {
  const { adapter, errors } = openDram(2);
  await store(adapter, [0, 1]);
  for (let i = 0; i < 2; i++) await adapter.lookupAndLock(testKeys(2), lookupCall);
  assertEquals(await store(adapter, [2]), "0");
  assertStringIncludes(errors[0]?.message ?? "", "No room for 1000 bytes: 2000 of 2000 are used");
  assertEquals(String((await adapter.delete?.(testKeys(2), call))?.deleted), "00");
  adapter.unlock?.(testKeys(2));
  assertEquals(await store(adapter, [2]), "0");
  adapter.unlock?.([testKey(1)]);
  assertEquals(await store(adapter, [2]), "1");
  assertEquals(await held(adapter, 3), "101");
});

Deno.test("dram: an object that cannot fit evicts nothing and leaves an older object of its key", async () => {
  const { adapter, errors } = openDram(3);
  await store(adapter, [0, 1]);
  assertEquals(await store(adapter, [0], 3001), "0");
  assertEquals(await held(adapter, 2), "11");
  await adapter.lookupAndLock([testKey(1)], lookupCall);
  assertEquals(await store(adapter, [0], 2001), "0");
  assertEquals(errors.length, 2);
  const room = testObject(testKey(0));
  for (const part of room.parts) part.fill(0);
  assertEquals(String(await adapter.load([room], call)), "1");
});

Deno.test("dram: without eviction a full adapter refuses stores until a removal", async () => {
  const { adapter } = openDram(2, { eviction: { "eviction_policy": "noop" } });
  assertEquals(await store(adapter, [0, 1, 2]), "110");
  assertEquals(await store(adapter, [0]), "1");
  await adapter.delete?.([testKey(0)], call);
  assertEquals(await store(adapter, [2]), "1");
  assertEquals(await held(adapter, 3), "011");
});

Deno.test("dram: above the high watermark, objects are evicted down to the low one", async () => {
  const { adapter } = openDram(10, { eviction: {} });
  for (let n = 0; n < 8; n++) await store(adapter, [n]);
  assertEquals(await held(adapter, 8), "11111111");
  assertEquals(await store(adapter, [8]), "1");
  assertEquals(await held(adapter, 9), "000111111");
});

Deno.test("dram: reused memory never shows in another object", async () => {
  const { adapter } = openDram(1);
  await store(adapter, [0]);
  const kept = testObject(testKey(0));
  await adapter.load([kept], call);
  await store(adapter, [1]);
  assertEquals(String(await adapter.load([kept], call)), "0");
  assertSameBytes(kept.parts[1] ?? new Uint8Array(), testBytes(testKey(0), 1000).slice(7));
});

Deno.test("dram: closing releases all objects", async () => {
  const { adapter } = openDram(3);
  await store(adapter, [0]);
  await adapter[Symbol.asyncDispose]();
  assertEquals(await store(adapter, [1]), "0");
  assertEquals((await adapter.usage?.(call))?.usedBytes, 0);
});

Deno.test("dram: any sequence returns the last stored bytes or a miss, within the capacity", async () => {
  const capacity = 5000;
  const step = fc.record({
    action: fc.constantFrom("store", "lock", "unlock", "delete", "load"),
    n: fc.nat(5),
    byteLength: fc.integer({ min: 8, max: 3000 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const { adapter } = openDram(5);
      const last = new Map<number, number>();
      const locks = new Map<number, number>();
      for (const { action, n, byteLength } of steps) {
        const keys = [testKey(n)];
        if (action === "store") {
          if (await store(adapter, [n], byteLength) === "1") last.set(n, byteLength);
        } else if (action === "lock") {
          if ((await adapter.lookupAndLock(keys, lookupCall)).test(0)) {
            locks.set(n, (locks.get(n) ?? 0) + 1);
          }
        } else if (action === "unlock") {
          adapter.unlock?.(keys);
          locks.set(n, Math.max(0, (locks.get(n) ?? 0) - 1));
        } else if (action === "delete") {
          const deletion = await adapter.delete?.(keys, call);
          if (deletion?.deleted.test(0)) {
            assertEquals([deletion.bytes, locks.get(n) ?? 0], [last.get(n), 0]);
            last.delete(n);
          }
        }
        const sizes = new Map(
          await Array.fromAsync(
            adapter.list?.(call) ?? [],
            ({ key, byteLength }) => [key.id, byteLength] as const,
          ),
        );
        const used = [...sizes.values()].reduce((sum, size) => sum + size, 0);
        const usage = { usedBytes: used, capacityBytes: capacity, objectCount: sizes.size };
        assertEquals(await adapter.usage?.(call), usage);
        assert(used <= capacity);
        for (const [known, size] of last) {
          const key = testKey(known);
          const isThere = sizes.get(key.id) !== undefined;
          if ((locks.get(known) ?? 0) > 0) assert(isThere, "a locked object left");
          const part = new Uint8Array(size);
          const loaded = await adapter.load([{ key, parts: [part], byteLength: size }], call);
          assertEquals(loaded.test(0), isThere);
          if (isThere) assertSameBytes(part, testBytes(key, size));
          else last.delete(known);
        }
        assertEquals(
          adapter.reportStatus?.().lockedObjects,
          [...locks.values()].filter(Boolean).length,
        );
      }
    }),
    { numRuns: 60 },
  );
});

Deno.test("dram: invalid capacities are refused, and there is a default", async () => {
  const adapter = dram.create(parseAdapterConfig(dram, {}), testEnvironment()) as L2Adapter;
  assertEquals((await adapter.usage?.(call))?.capacityBytes, 2 ** 30);
  assertEquals(adapter.capabilities.evicts, true);
  for (const value of [0, -1, NaN, "1", 2 ** 23]) {
    let key: unknown;
    try {
      parseAdapterConfig(dram, { "max_capacity_gb": value });
    } catch (error) {
      key = Reflect.get(error as Error, "key");
    }
    assertEquals(key, "max_capacity_gb", String(value));
  }
});
