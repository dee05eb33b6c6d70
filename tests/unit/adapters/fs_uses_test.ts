import { assertEquals, assertGreater } from "@std/assert";
import { type KvGroup, PrefixCache } from "../../../src/engine/mod.ts";
import { kvLayout } from "../../../src/keys/kv_layout.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { TieredCache } from "../../../src/tiered_cache.ts";
import { openFs, testObject } from "../../support/fs_adapter.ts";
import { countHits, putObjects } from "../../support/fs_cache.ts";
import { EngineTensors } from "../../support/kv_tensors.ts";
import { testKeys, testLayout } from "../../support/objects.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

const CAPACITY_GB = 2 ** 20 / 2 ** 30;
/** Refuses every object, but answers lookups. */
const NO_ROOM = { type: "dram", "max_capacity_gb": 1e-9 };
const { signal } = new AbortController();

async function openCache(
  stack: AsyncDisposableStack,
  others: readonly { readonly type: string }[] = [],
): Promise<TieredCache> {
  const directory = stack.use(await tempDirectory());
  const fs = { type: "fs", "base_path": directory.path, "max_capacity_gb": CAPACITY_GB };
  return stack.use(
    await TieredCache.open({
      device: new HostDevice(),
      l1: { capacityBytes: 2 ** 22 },
      l2: [fs, ...others],
      store: { attempts: 1 },
    }),
  );
}

function evictedIn(cache: TieredCache): number {
  const [{ details } = { details: {} }] = cache.reportStatus().adapters;
  return (details as { space: { evictedObjects: number } }).space.evictedObjects;
}

for (const [name, others] of [["alone", []], ["beside another adapter", [NO_ROOM]]] as const) {
  Deno.test(`fs ${name} keeps a prompt that is matched before each of many puts`, async () => {
    await using stack = new AsyncDisposableStack();
    const cache = await openCache(stack, others);
    const layout = testLayout(2 ** 14);
    const prompt = testKeys(4);
    await putObjects(cache, prompt, layout);
    for (let round = 0; round < 40; round++) {
      cache.clearL1();
      assertEquals(await countHits(cache, prompt, layout), 4, `round ${round}`);
      await putObjects(cache, testKeys(4, 100 + 4 * round), layout);
    }
    assertGreater(evictedIn(cache), 64, "the directory turned over");
  });
}

Deno.test("fs keeps the objects that a window group uses", async () => {
  await using stack = new AsyncDisposableStack();
  const cache = await openCache(stack);
  const shape = { kvHeads: 2, headDim: 32, dtype: "f16", chunkTokens: 16 } as const;
  const full = kvLayout({ ...shape, layers: 2 });
  const windowed = kvLayout({ ...shape, layers: 3 });
  const layout: KvGroup[] = [{ layout: full }, { layout: windowed, windowTokens: 32 }];
  const prefixes = new PrefixCache(cache, { model: { name: "test/uses" }, layout });
  // The last token is never restored.
  const tokensOf = (prompt: number) => Array.from({ length: 65 }, (_, i) => 1000 * prompt + i);
  using a = new EngineTensors(cache.device, full, 65).fill(1);
  using b = new EngineTensors(cache.device, windowed, 65).fill(2);
  const put = async (prompt: number): Promise<void> => {
    prefixes.put(tokensOf(prompt), [a.kv, b.kv]);
    await cache.flush();
  };
  await put(0);
  for (let round = 1; round <= 40; round++) {
    cache.clearL1();
    {
      using hit = await prefixes.match(tokensOf(0));
      assertEquals(hit.tokens, 64, `round ${round}`);
    }
    await put(round);
  }
  assertGreater(evictedIn(cache), 100, "the directory turned over");
});

Deno.test("fs keeps objects that are read from device memory", async () => {
  await using directory = await tempDirectory();
  await using adapter = await openFs({
    base_path: directory.path,
    max_capacity_gb: CAPACITY_GB,
  });
  const store = (first: number) =>
    adapter.store(testKeys(4, first).map((key) => testObject(key, 2 ** 14)), { signal });
  const hot = testKeys(4);
  await store(0);
  for (let round = 0; round < 40; round++) {
    adapter.touch?.(hot);
    await store(100 + 4 * round);
  }
  const found = await adapter.lookupAndLock(hot, { prefix: false, signal });
  assertEquals(found.toString(), "1111");
  adapter.unlock?.(hot);
});
