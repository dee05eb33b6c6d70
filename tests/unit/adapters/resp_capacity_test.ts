import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { L2Adapter } from "../../../src/adapter/contract.ts";
import { testKeys } from "../../support/objects.ts";
import { redisTest, startRedis, waitUntil } from "../../support/redis_server.ts";
import {
  call,
  loadBits,
  lookupBits,
  openResp,
  respObject,
  storeBits,
} from "../../support/resp_adapter.ts";

const SIZE = 100_000;
const GIB = 2 ** 30;
/** Space for 20 objects; above 16, an eviction leaves 10. */
const bounded = {
  "max_capacity_gb": 20 * SIZE / GIB + 1e-9,
  "chunk_bytes": 30_000,
  eviction: { "trigger_watermark": 0.8, "eviction_ratio": 0.3 },
};

async function usage(adapter: L2Adapter): Promise<{ bytes: number; objects: number }> {
  const usage = await adapter.usage?.(call());
  assert(usage !== undefined);
  assert(usage.usedBytes <= (usage.capacityBytes ?? 0), "more bytes than the capacity");
  return { bytes: usage.usedBytes, objects: usage.objectCount };
}

redisTest("the least recently used objects are evicted first, but no locked ones", async () => {
  await using server = await startRedis();
  await using adapter = await openResp(server.port, bounded);
  const keys = testKeys(16);
  for (const key of keys) {
    assertEquals(await storeBits(adapter, [key], SIZE), "1");
    // All other objects are used later than this one.
    if (key === keys[0]) await adapter.lookupAndLock([key], { ...call(), prefix: false });
  }
  assertEquals(await loadBits(adapter, keys.slice(2, 4), SIZE), "11");
  assertEquals(await storeBits(adapter, testKeys(1, 100), SIZE), "1");
  await waitUntil(async () => (await usage(adapter)).objects === 10);
  assertEquals(await lookupBits(adapter, keys), "1011" + "0".repeat(6) + "1".repeat(6));
  assertEquals(await loadBits(adapter, keys.slice(10), SIZE), "111111");
  // Only the values of the remaining objects.
  assertEquals(await server.command("DBSIZE"), String(10 * 5));
  assertEquals(adapter.reportStatus?.().evictedObjects, 7);
});

redisTest("the end of a chain is evicted first", async () => {
  await using server = await startRedis();
  await using adapter = await openResp(server.port, bounded);
  const chain = testKeys(17);
  assertEquals(await storeBits(adapter, chain.slice(0, 15), SIZE), "1".repeat(15));
  assertEquals(await storeBits(adapter, chain.slice(15), SIZE), "11");
  await adapter.lookupAndLock(chain, { ...call(), prefix: true });
  adapter.unlock?.(chain);
  await waitUntil(async () => (await usage(adapter)).objects === 10);
  const found = await adapter.lookupAndLock(chain, { ...call(), prefix: true });
  assert(found.countLeadingOnes() >= 8, `the front stays: ${found}`);
});

redisTest("the capacity is never exceeded by concurrent stores", async () => {
  await using server = await startRedis();
  const errors: string[] = [];
  await using adapter = await openResp(server.port, bounded, {
    onError: ({ message }) => errors.push(message),
  });
  let stored = 0;
  const stores = Array.from({ length: 12 }, async (_, n) => {
    const bits = await storeBits(adapter, testKeys(10, n * 10), SIZE);
    stored += bits.replaceAll("0", "").length;
    await usage(adapter);
  });
  await Promise.all(stores);
  assert(stored >= 20, `only ${stored} objects were stored`);
  const names = (await server.command("KEYS", "*}")).split("\n").length;
  assert(names <= 20, `${names} objects are there`);
  const { objects } = await usage(adapter);
  assertEquals(await storeBits(adapter, testKeys(1, 500), 21 * SIZE), "0", "it never fits");
  assertEquals((await usage(adapter)).objects, objects, "nothing leaves for it");
  assertEquals(errors.length, 1);
  assertStringIncludes(errors[0] ?? "", "larger than the capacity");
});

redisTest("with noop nothing is evicted, and stores stop at the capacity", async () => {
  await using server = await startRedis();
  const eviction = { "eviction_policy": "noop" };
  await using adapter = await openResp(server.port, { ...bounded, eviction });
  assertEquals(await storeBits(adapter, testKeys(25), SIZE), "1".repeat(20) + "0".repeat(5));
  assertEquals(await storeBits(adapter, testKeys(1, 100), SIZE), "0");
  assertEquals(await loadBits(adapter, testKeys(20), SIZE), "1".repeat(20));
  assertEquals((await adapter.delete?.(testKeys(2), call()))?.bytes, 2 * SIZE);
  assertEquals(await storeBits(adapter, testKeys(3, 100), SIZE), "110");
});

redisTest("existing objects are counted, with their times of use", async () => {
  await using server = await startRedis();
  {
    await using before = await openResp(server.port, { "chunk_bytes": 30_000 });
    assertEquals(await storeBits(before, testKeys(12), SIZE), "1".repeat(12));
  }
  await using adapter = await openResp(server.port, bounded);
  assertEquals(await usage(adapter), { bytes: 12 * SIZE, objects: 12 });
  const listed = await Array.fromAsync(adapter.list?.(call()) ?? []);
  assertEquals(listed.length, 12);
  for (const { usedAt = 0 } of listed) assert(Math.abs(Date.now() - usedAt) < 60_000);
});

redisTest("the count follows removals by others and evictions by the server", async () => {
  await using server = await startRedis();
  await using adapter = await openResp(server.port, bounded);
  await using other = await openResp(server.port, { "chunk_bytes": 30_000 });
  const keys = testKeys(12);
  assertEquals(await storeBits(adapter, keys, SIZE), "1".repeat(12));
  await other.delete?.(keys.slice(0, 2), call());
  assertEquals(await lookupBits(adapter, keys.slice(0, 2)), "00");
  assertEquals(await usage(adapter), { bytes: 10 * SIZE, objects: 10 });
  await other.delete?.(keys.slice(2, 4), call());
  assertEquals(await loadBits(adapter, keys.slice(2, 4), SIZE), "00");
  assertEquals(await usage(adapter), { bytes: 8 * SIZE, objects: 8 });
  await other.delete?.(keys.slice(4, 6), call());
  assertEquals((await adapter.delete?.(keys.slice(4, 6), call()))?.bytes, 0);
  assertEquals(await usage(adapter), { bytes: 6 * SIZE, objects: 6 });
  // These are not looked up; they are found missing by the count before an eviction.
  await server.command("FLUSHALL");
  assertEquals(await storeBits(adapter, testKeys(15, 100), SIZE), "1".repeat(15));
  await waitUntil(async () => (await usage(adapter)).objects === 15);
  assertEquals(await loadBits(adapter, testKeys(15, 100), SIZE), "1".repeat(15));
  assertEquals(adapter.reportStatus?.().evictedObjects, 0);
});

redisTest("the count follows stores by others", async () => {
  await using server = await startRedis();
  await using adapter = await openResp(server.port, bounded);
  await using other = await openResp(server.port, { "chunk_bytes": 30_000 });
  assertEquals(await usage(adapter), { bytes: 0, objects: 0 });
  assertEquals(await storeBits(other, testKeys(15), SIZE), "1".repeat(15));
  assertEquals(await storeBits(adapter, testKeys(17, 100), SIZE), "1".repeat(17));
  // Together they have stored more than the capacity, until it is counted.
  await waitUntil(async () => (await adapter.usage?.(call()))?.objectCount === 10);
  const names = (await server.command("KEYS", "*}")).split("\n").length;
  assertEquals(names, 10);
});

redisTest("room of abandoned stores is available to others", async () => {
  await using server = await startRedis();
  const count = 5000;
  await using adapter = await openResp(server.port, {
    "max_capacity_gb": count * 100 / GIB + 1e-9,
    eviction: { "eviction_policy": "noop" },
  });
  assertEquals(await usage(adapter), { bytes: 0, objects: 0 });
  server.signal("SIGSTOP");
  const controller = new AbortController();
  const objects = testKeys(count).map((key) => respObject(key, 100));
  // More than are sent at a time.
  const given = adapter.store(objects, { signal: controller.signal });
  controller.abort();
  assertEquals((await given).stored.popcount(), 0);
  server.signal("SIGCONT");
  await waitUntil(async () => (await server.command("PING")) === "PONG");
  assertEquals(await storeBits(adapter, testKeys(count), 100), "1".repeat(count));
  assertEquals(await storeBits(adapter, testKeys(1, count), 100), "0");
});

redisTest("uses in device memory count, in the index and on the server", async () => {
  await using server = await startRedis([
    "maxmemory 100mb",
    "maxmemory-policy allkeys-lfu",
    "lfu-log-factor 0",
  ]);
  await using adapter = await openResp(server.port, bounded);
  const keys = testKeys(16);
  for (const key of keys) assertEquals(await storeBits(adapter, [key], SIZE), "1");
  const names = (await server.command("KEYS", `*${keys[0]?.chunkHashHex}*`)).split("\n");
  assertEquals(names.length, 5);
  const uses = (): Promise<number[]> =>
    Promise.all(names.map(async (name) => Number(await server.command("OBJECT", "FREQ", name))));
  const before = await uses();
  adapter.touch?.(keys.slice(0, 3));
  await waitUntil(async () => (await uses()).every((count, i) => count > (before[i] ?? 0)));
  assertEquals(await storeBits(adapter, testKeys(1, 100), SIZE), "1");
  await waitUntil(async () => (await usage(adapter)).objects === 10);
  assertEquals(await lookupBits(adapter, keys), "111" + "0".repeat(7) + "1".repeat(6));
});

redisTest("removed objects are reported, whichever process removed them", async () => {
  await using server = await startRedis();
  const evicted: string[] = [];
  await using adapter = await openResp(server.port, bounded, {
    onEvicted: (gone) => void evicted.push(...gone.map(({ id }) => id)),
  });
  const ids = (count: number, first: number) => testKeys(count, first).map(({ id }) => id);
  for (const key of testKeys(17)) assertEquals(await storeBits(adapter, [key], SIZE), "1");
  await waitUntil(async () => (await usage(adapter)).objects === 10);
  assertEquals(evicted.splice(0).sort(), ids(7, 0).sort());
  await server.command("FLUSHALL");
  assertEquals(await storeBits(adapter, testKeys(11, 100), SIZE), "1".repeat(11));
  assertEquals(evicted.splice(0).sort(), ids(10, 7).sort());
});
