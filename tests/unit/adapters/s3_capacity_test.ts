import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { delay } from "@std/async";
import { encodeFileName } from "../../../src/keys/key_codec.ts";
import { AdapterError } from "../../../src/adapter/errors.ts";
import { testKeys } from "../../support/objects.ts";
import {
  call,
  loadBits,
  lookupBits,
  type OpenS3,
  openS3,
  openS3Lab,
  type S3Lab,
  s3Object,
  storeBits,
} from "../../support/s3_adapter.ts";
import { error, ScriptedS3 } from "../../support/scripted_s3.ts";
import { waitUntil } from "../../support/wait_until.ts";

const SIZE = 10_000;
/** Space for 20 objects; above 16, an eviction leaves 10. */
const bounded = {
  "max_capacity_gb": 20 * SIZE / 2 ** 30 + 1e-9,
  eviction: { "trigger_watermark": 0.8, "eviction_ratio": 0.3 },
};

async function objectCount({ adapter }: OpenS3): Promise<number> {
  const usage = await adapter.usage?.(call());
  assert(usage !== undefined);
  assert(usage.usedBytes <= (usage.capacityBytes ?? 0), "more bytes than the capacity");
  assertEquals(usage.usedBytes, usage.objectCount * SIZE);
  return usage.objectCount;
}

Deno.test("the least recently used objects are evicted first, but no locked ones", async () => {
  await using lab = await openS3Lab(bounded);
  const { server, adapter } = lab;
  const keys = testKeys(16);
  assertEquals(await storeBits(lab, keys.slice(0, 1), SIZE), "1");
  // Only its lock protects it: all others are used later.
  await adapter.lookupAndLock(keys.slice(0, 1), { ...call(), prefix: false });
  await delay(2);
  for (const key of keys.slice(1)) assertEquals(await storeBits(lab, [key], SIZE), "1");
  await delay(2);
  assertEquals(await loadBits(lab, keys.slice(2, 4), SIZE), "11");
  server.takeLog();
  assertEquals(await storeBits(lab, testKeys(1, 100), SIZE), "1");
  await waitUntil(async () => await objectCount(lab) === 10);
  assertEquals(server.takeLog().map((line) => line.replace(/ \S*data/, "")), [
    "PUT",
    "GET ?list-type&max-keys&prefix&delimiter",
    "POST ?delete",
  ], "seven leave with one request");
  assertEquals(server.objects.size, 10);
  assertEquals(await lookupBits(lab, keys), "1011" + "0".repeat(6) + "1".repeat(6));
  assertEquals(adapter.reportStatus?.().evictedObjects, 7);
});

Deno.test("the capacity is never exceeded by concurrent stores", async () => {
  await using lab = await openS3Lab(bounded);
  const { server } = lab;
  let most = 0;
  server.script = async (_, proceed) => {
    const response = await proceed();
    most = Math.max(most, server.objects.size);
    return response;
  };
  let stored = 0;
  await Promise.all(Array.from({ length: 12 }, async (_, n) => {
    const bits = await storeBits(lab, testKeys(10, n * 10), SIZE);
    stored += bits.replaceAll("0", "").length;
    await objectCount(lab);
  }));
  assert(stored >= 20, `only ${stored} objects were stored`);
  assert(most <= 20, `${most} objects were there`);
  const count = await objectCount(lab);
  assertEquals(await storeBits(lab, testKeys(1, 500), 21 * SIZE), "0", "it never fits");
  assertEquals(await objectCount(lab), count, "nothing leaves for it");
  assertEquals(lab.errors.map(({ operation }) => operation), ["store"]);
  assertStringIncludes(lab.errors[0]?.message ?? "", "larger than the capacity");
});

Deno.test("with noop nothing is evicted, and stores stop at the capacity", async () => {
  await using lab = await openS3Lab({ ...bounded, eviction: { "eviction_policy": "noop" } });
  assertEquals(await storeBits(lab, testKeys(25), SIZE), "1".repeat(20) + "0".repeat(5));
  assertEquals(await loadBits(lab, testKeys(20), SIZE), "1".repeat(20));
  assertEquals((await lab.adapter.delete?.(testKeys(2), call()))?.bytes, 2 * SIZE);
  assertEquals(await storeBits(lab, testKeys(3, 100), SIZE), "110");
});

Deno.test("existing objects are counted in the background", async () => {
  await using server = new ScriptedS3();
  {
    await using before = await openS3(server.config);
    await storeBits(before, testKeys(12), SIZE);
    assertEquals(before.adapter.usage, undefined, "that would cost a listing");
  }
  server.pageSize = 5;
  await using open = await openS3({ ...server.config, ...bounded });
  assertEquals(await objectCount(open), 12);
  assertEquals(await storeBits(open, testKeys(12, 12), SIZE), "1".repeat(12));
  assert(server.objects.size <= 20);
});

Deno.test("objects removed by others are noticed", async () => {
  await using lab = await openS3Lab(bounded);
  const { server } = lab;
  assertEquals(await storeBits(lab, testKeys(15), SIZE), "1".repeat(15));
  for (const key of testKeys(15)) server.objects.delete(`kvtier/${encodeFileName(key)}`);
  assertEquals(await storeBits(lab, testKeys(15, 50), SIZE), "1".repeat(15), "there is room");
  assertEquals(await objectCount(lab), 15);
  assertEquals(lab.adapter.reportStatus?.().evictedObjects, 0);
});

Deno.test("objects that may exist after a failure are counted", async () => {
  await using lab = await openS3Lab({ ...bounded, eviction: { "eviction_policy": "noop" } });
  const { server } = lab;
  server.script = async ({ method }, proceed) => {
    const response = await proceed();
    return method === "PUT" ? error(503, "ServiceUnavailable") : response;
  };
  await assertRejects(() => storeBits(lab, testKeys(15), SIZE), AdapterError);
  assertEquals(await storeBits(lab, testKeys(10, 15), SIZE), "0".repeat(10));
  assertEquals([await objectCount(lab), server.objects.size], [20, 20]);
  server.script = undefined;
  assertEquals(await storeBits(lab, testKeys(1, 100), SIZE), "0");
});

Deno.test("without a capacity nothing is listed or evicted", async () => {
  await using lab = await openS3Lab({ eviction: bounded.eviction });
  assertEquals(await storeBits(lab, testKeys(40), SIZE), "1".repeat(40));
  assert(lab.server.takeLog().every((line) => line.startsWith("PUT ")));
  assertEquals(lab.adapter.reportStatus?.().evictedBy, "bucket");
});

Deno.test("of a batch larger than the capacity, the front is stored", async () => {
  await using lab = await openS3Lab(bounded);
  assertEquals(await storeBits(lab, testKeys(8), SIZE), "1".repeat(8));
  const sizes = [...Array(15).fill(SIZE), 21 * SIZE, ...Array(15).fill(SIZE)];
  const keys = testKeys(sizes.length, 100);
  const objects = keys.map((key, i) => s3Object(key, sizes[i] ?? 0));
  const { stored } = await lab.adapter.store(objects, call());
  assertEquals(stored.toString(), "1".repeat(15) + "0" + "1".repeat(5) + "0".repeat(10));
});

Deno.test("an answer older than a store does not remove the object from the index", async (t) => {
  const asks: Record<string, (lab: S3Lab, keys: ReturnType<typeof testKeys>) => Promise<unknown>> =
    {
      lookup: (lab, keys) => lookupBits(lab, keys),
      load: (lab, keys) => loadBits(lab, keys, SIZE),
      delete: (lab, keys) => lab.adapter.delete?.(keys, call()) ?? Promise.resolve(),
    };
  for (const [name, ask] of Object.entries(asks)) {
    await t.step(name, async () => {
      await using lab = await openS3Lab(bounded);
      assertEquals(await objectCount(lab), 0);
      const answered = Promise.withResolvers<void>();
      const stored = Promise.withResolvers<void>();
      lab.server.script = async ({ method }, proceed) => {
        const answer = await proceed();
        if (method === "PUT") return answer;
        answered.resolve();
        await stored.promise;
        return answer;
      };
      const asking = ask(lab, testKeys(1));
      await answered.promise;
      assertEquals(await storeBits(lab, testKeys(1), SIZE), "1");
      stored.resolve();
      await asking;
      assertEquals(await objectCount(lab), 1);
    });
  }
});

Deno.test("uses in device memory count, and evictions are reported", async () => {
  const evicted: string[] = [];
  await using lab = await openS3Lab(bounded, {
    onEvicted: (gone) => void evicted.push(...gone.map(({ id }) => id)),
  });
  const keys = testKeys(16);
  for (const key of keys) assertEquals(await storeBits(lab, [key], SIZE), "1");
  await delay(2);
  lab.adapter.touch?.([...keys.slice(0, 3), ...testKeys(1, 500)]);
  await delay(2);
  assertEquals(await storeBits(lab, testKeys(1, 100), SIZE), "1");
  await waitUntil(async () => await objectCount(lab) === 10);
  assertEquals(await lookupBits(lab, keys), "111" + "0".repeat(7) + "1".repeat(6));
  assertEquals(evicted.sort(), keys.slice(3, 10).map(({ id }) => id).sort());
});

Deno.test("times and sizes in a listing are validated", async () => {
  await using server = new ScriptedS3();
  {
    await using before = await openS3(server.config);
    await storeBits(before, testKeys(2), SIZE);
  }
  const odd: readonly (readonly [RegExp, string])[] = [
    [/<LastModified>[^<]*/, "<LastModified>9999-12-31T23:59:59Z"],
    [/<LastModified>[^<]*/, "<LastModified>yesterday"],
    [/<Size>[^<]*/, "<Size>-5"],
    [/<Size>[^<]*/, "<Size>1e300"],
    [/<Size>[^<]*/, "<Size>"],
    [/<Size>[^<]*<\/Size>/, ""],
  ];
  for (const [pattern, replacement] of odd) {
    server.script = async ({ method, name }, proceed) => {
      const response = await proceed();
      if (method !== "GET" || name !== "") return response;
      return new Response((await response.text()).replace(pattern, replacement));
    };
    await using open = await openS3({ ...server.config, ...bounded });
    const { usedBytes = -1, objectCount } = await open.adapter.usage?.(call()) ?? {};
    assertEquals(objectCount, 2, replacement);
    assertEquals(usedBytes, pattern.source.includes("Size") ? SIZE : 2 * SIZE, replacement);
    const listed = await Array.fromAsync(open.adapter.list?.(call()) ?? []);
    assertEquals(listed.length, 2, `${replacement}: what is not listed cannot be forgotten`);
    assertEquals(await storeBits(open, testKeys(3, 10), SIZE), "111");
    await open.adapter.delete?.(testKeys(3, 10), call());
  }
});
