import { assert, assertEquals, assertLess, assertRejects } from "@std/assert";
import { ConfigError } from "../../src/base/config_error.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import type { L2Config } from "../../src/l2/adapter_config.ts";
import { assertIdle } from "../support/caches.ts";
import { countHits, putObjects } from "../support/fs_cache.ts";
import { testKeys, testLayout } from "../support/objects.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { stagedOf } from "../support/l1.ts";

Deno.env.set("KVTIER_TEST_MASTER_KEY", "c3".repeat(32));
const aesgcm = { type: "aesgcm", "master_key_env": "KVTIER_TEST_MASTER_KEY" };
const zstd = { type: "zstd", threads: 1 };
const layout = testLayout(4096);
const keys = testKeys(8);

function open(l2: readonly L2Config[]): Promise<TieredCache> {
  return TieredCache.open({ device: new HostDevice(), l1: { capacityBytes: 2 ** 20 }, l2 });
}

for (const [name, serde] of Object.entries({ aesgcm, zstd, both: [zstd, aesgcm] })) {
  Deno.test(`TieredCache finds what it stored with ${name} after a restart; others do not`, async () => {
    await using directory = await tempDirectory();
    const config = { type: "fs", "base_path": directory.path };
    {
      await using cache = await open([{ ...config, serde }]);
      await putObjects(cache, keys, layout);
      cache.clearL1();
      assertEquals(await countHits(cache, keys, layout), 8);
      assertIdle(cache);
    }
    {
      await using cache = await open([config]);
      assertEquals(await countHits(cache, keys, layout), 0);
      const { damagedObjects } = cache.reportStatus().adapters[0] ?? {};
      assertEquals(damagedObjects, { layout: 8 }, "it is counted, with the reason");
    }
    await using cache = await open([{ ...config, serde }]);
    assertEquals(await countHits(cache, keys, layout), 8);
    assertEquals(cache.reportStatus().adapters[0]?.damagedObjects, {});
    assertIdle(cache);
  });
}

Deno.test("TieredCache migrates what is encrypted, and says that it cannot what is compressed", async () => {
  await using directory = await tempDirectory();
  const mock = { type: "mock", "max_size_gb": 1, "mock_bandwidth_gb": 1000 };
  await using cache = await open([
    { type: "fs", "base_path": directory.path, serde: aesgcm },
  ]);
  await putObjects(cache, keys, layout);
  await cache.addAdapter({ ...mock, serde: zstd });
  const report = await cache.removeAdapter(0, { mode: "migrate" });
  assertEquals([report.copiedObjects, report.failedObjects], [8, 0]);
  cache.clearL1();
  assertEquals(await countHits(cache, keys, layout), 8);
  await cache.addAdapter(mock);
  const error = await assertRejects(() => cache.removeAdapter(1, { mode: "migrate" }), ConfigError);
  assert(error.expected.includes("compressed"), error.expected);
  assertEquals(cache.listAdapters().map(({ state }) => state), ["active", "active"]);
});

Deno.test("TieredCache refuses transforms that cannot work when it opens", async () => {
  const given = { type: "fs", "base_path": "/nowhere", serde: { type: "cachegen" } };
  const error = await assertRejects(() => open([given]), ConfigError);
  assertEquals([error.adapter, error.key, error.received], ["fs adapter", "serde", "cachegen"]);
});

Deno.test("an adapter that the cache bounds is bounded by what compressed objects take", async () => {
  await using directory = await tempDirectory();
  await Deno.writeTextFile(`${directory.path}/memory.ts`, MEMORY_ADAPTER);
  // Room for two untransformed objects, and for all transformed ones.
  const eviction = { "max_capacity_gb": 9000 / 2 ** 30, "trigger_watermark": 1 };
  await using cache = await TieredCache.open({
    device: new HostDevice(),
    l1: { capacityBytes: 2 ** 20 },
    adaptersDir: directory.path,
    l2: [{ type: "memory", serde: zstd, eviction }],
  });
  const zeros = testKeys(8, 100);
  const staged = stagedOf(cache.reserveWrite(zeros, layout));
  for (const { range } of staged) cache.device.upload(range, [new Uint8Array(4096)]);
  cache.finishWrite(staged);
  await cache.flush();
  const { storedBytes } = cache.reportStatus().adapters[0] ?? {};
  assertLess(storedBytes ?? Infinity, 9000);
  const { adapters: [evictor] } = cache.reportStatus().eviction;
  assertEquals([evictor?.trackedObjects, evictor?.trackedBytes], [8, storedBytes]);
  assertEquals(evictor?.evictedObjects, 0);
});

const MEMORY_ADAPTER = `
import {
  Bitmap, concatParts, defineL2Adapter, fillParts, frontOfParts,
} from "${new URL("../../src/adapter/contract.ts", import.meta.url)}";

export default defineL2Adapter({
  type: "memory",
  summary: "Objects in a Map.",
  config: {},
  create() {
    const held = new Map();
    return {
      capabilities: { acceptsShortObjects: true },
      async store(objects) {
        for (const { key, parts } of objects) held.set(key.id, { key, bytes: concatParts(parts) });
        const bytes = objects.reduce((sum, { byteLength }) => sum + byteLength, 0);
        return { stored: new Bitmap(objects.length, objects.length), bytes };
      },
      async lookupAndLock(keys) {
        return Bitmap.from(keys, ({ id }) => held.has(id));
      },
      async load(objects, { allowShorter = false }) {
        return Bitmap.from(objects, ({ key, parts }) => {
          const bytes = held.get(key.id)?.bytes;
          if (bytes === undefined) return false;
          return fillParts(allowShorter ? frontOfParts(parts, bytes.byteLength) : parts, bytes);
        });
      },
      async delete(keys) {
        let bytes = 0;
        const deleted = Bitmap.from(keys, ({ id }) => {
          bytes += held.get(id)?.bytes.byteLength ?? 0;
          return held.delete(id);
        });
        return { deleted, bytes };
      },
      async *list() {
        for (const { key, bytes } of held.values()) yield { key, byteLength: bytes.byteLength };
      },
      async [Symbol.asyncDispose]() {},
    };
  },
});
`;

Deno.test("an object of another length is counted, and stays for its own readers", async () => {
  for (const type of ["fs", "dram", "mock", "file_pool"] as const) {
    await using directory = await tempDirectory();
    const configs = {
      fs: { "base_path": directory.path },
      dram: { "max_capacity_gb": 0.01 },
      mock: { "max_size_gb": 0.01, "mock_bandwidth_gb": 100 },
      "file_pool": {
        "pool_size": 16,
        "backend_params": { "file_path": directory.path, "slot_bytes": 8192 },
      },
    };
    await using cache = await open([{ type, ...configs[type] }]);
    await putObjects(cache, keys.slice(0, 3), layout);
    cache.clearL1();
    assertEquals(await countHits(cache, keys.slice(0, 3), testLayout(2048)), 0, type);
    const [adapter] = cache.reportStatus().adapters;
    assertEquals(adapter?.damagedObjects, { layout: 3 }, type);
    assertEquals(await countHits(cache, keys.slice(0, 3), layout), 3, type);
  }
});
