import { assertEquals, assertRejects } from "@std/assert";
import { encodeFileName } from "../../../src/keys/key_codec.ts";
import { AdapterError, ObjectKey } from "../../../src/adapter/contract.ts";
import { testKeys } from "../../support/objects.ts";
import {
  call,
  loadBits,
  type OpenS3,
  openS3,
  openS3Lab,
  storeBits,
} from "../../support/s3_adapter.ts";
import { startS3 } from "../../support/s3_server.ts";
import { waitUntil } from "../../support/wait_until.ts";

const SIZE = 1_000;

async function listed({ adapter }: OpenS3): Promise<string[]> {
  const found = await Array.fromAsync(adapter.list?.(call()) ?? []);
  return found.map(({ key }) => key.id).sort();
}

Deno.test("objects of another prefix are neither listed, counted, evicted nor forgotten", async () => {
  await using server = await startS3();
  const open = (prefix: string, config = {}) =>
    openS3({ ...server.config, "key_prefix": prefix, ...config });
  // Names of one prefix could be read as names of the other: `team1` + `0/…`, `a` + `/b…`, `` +
  // `a/…`.
  for (const [prefix, longer] of [["team1", "team10"], ["a", "a/b"], ["", "a"], ["c/", "c/-"]]) {
    await using other = await open(longer ?? "");
    const theirs = testKeys(6, 100);
    assertEquals(await storeBits(other, theirs, SIZE), "1".repeat(6));
    await using own = await open(prefix ?? "", {
      "max_capacity_gb": 5 * SIZE / 2 ** 30 + 1e-9,
      eviction: { "trigger_watermark": 0.8, "eviction_ratio": 0.3 },
    });
    assertEquals((await own.adapter.usage?.(call()))?.objectCount, 0, `${prefix}, ${longer}`);
    for (const key of testKeys(5)) assertEquals(await storeBits(own, [key], SIZE), "1");
    await waitUntil(async () => ((await own.adapter.usage?.(call()))?.objectCount ?? 9) < 5);
    const ownKeys = (await Array.fromAsync(own.adapter.list?.(call()) ?? [])).map(({ key }) => key);
    assertEquals((await own.adapter.delete?.(ownKeys, call()))?.deleted.popcount(), ownKeys.length);
    assertEquals(await listed(own), []);
    assertEquals(await listed(other), theirs.map(({ id }) => id).sort());
    assertEquals(await loadBits(other, theirs, SIZE), "1".repeat(6));
    await other.adapter.delete?.(theirs, call());
  }
});

Deno.test("names below a prefix with a slash are unchanged", async () => {
  await using lab = await openS3Lab({ "key_prefix": "a/b/" });
  const [key] = testKeys(1) as [ObjectKey];
  assertEquals(await storeBits(lab, [key], SIZE), "1");
  assertEquals([...lab.server.objects.keys()], [`a/b/${encodeFileName(key)}`]);
  await using without = await openS3({ ...lab.server.config, "key_prefix": "a/b" });
  assertEquals(await loadBits(without, [key], SIZE), "1");
  assertEquals(without.adapter.reportStatus?.().prefix, "a/b/");
});

Deno.test("a listing reports that it left out hashed names without a key", async () => {
  await using lab = await openS3Lab();
  const long = new ObjectKey({ chunkHash: new Uint8Array(32), model: "m".repeat(250) });
  assertEquals(await storeBits(lab, [long, ...testKeys(1)], SIZE), "11");
  const name = `kvtier/${encodeFileName(long)}`;
  const { bytes } = lab.server.objects.get(name) ?? { bytes: new Uint8Array() };
  lab.server.objects.set(name, { bytes, headers: {} });
  assertEquals(await loadBits(lab, [long], SIZE), "1", "it is found by its key");
  await assertRejects(() => listed(lab), AdapterError, "1 objects were left out");
});

Deno.test("a truncated or ambiguous answer to a removal counts as a failure", async () => {
  const answers = [
    "<DeleteResult>",
    "<DeleteResult><Error><Code>AccessDenied</Code></Error></DeleteResult>",
    "<DeleteResult><Error><Key>another</Key><Code>InternalError</Code></Error></DeleteResult>",
  ];
  for (const answer of answers) {
    await using lab = await openS3Lab();
    const keys = testKeys(3);
    assertEquals(await storeBits(lab, keys, SIZE), "111");
    lab.server.script = ({ method }, proceed) =>
      method === "POST" ? new Response(answer) : proceed();
    await assertRejects(async () => await lab.adapter.delete?.(keys, call()), AdapterError);
    assertEquals(lab.server.objects.size, 3);
  }
});
