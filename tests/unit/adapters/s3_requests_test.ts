import { assert, assertEquals, assertRejects } from "@std/assert";
import { delay } from "@std/async";
import { AwsV4Signer } from "aws4fetch";
import { Bucket } from "../../../adapters/_s3/bucket_url.ts";
import { S3Client } from "../../../adapters/_s3/s3_client.ts";
import { S3Error } from "../../../adapters/_s3/s3_error.ts";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import { systemClock } from "../../../src/base/clock.ts";
import { testKeys } from "../../support/objects.ts";
import { seededRandom } from "../../support/random.ts";
import { call, loadBits, lookupBits, openS3Lab, storeBits } from "../../support/s3_adapter.ts";
import { error, ScriptedS3 } from "../../support/scripted_s3.ts";

const SIZE = 1_000;

Deno.test("waits between attempts are random, below a limit that doubles", async () => {
  await using server = new ScriptedS3();
  server.script = () => error(503, "SlowDown");
  const waits: number[] = [];
  using client = new S3Client({
    bucket: new Bucket(`http://127.0.0.1:${server.port}`, "/kv-bucket"),
    credentials: { accessKeyId: "a", secretAccessKey: "b" },
    region: "us-east-1",
    signer: AwsV4Signer,
    signsPayload: false,
    maxRequests: 4,
    maxAttempts: 10,
    timeoutMs: 60_000,
    prefersHttp2: false,
    caCertificates: [],
    clock: {
      now: () => systemClock.now(),
      schedule(callback, delayMs) {
        if (delayMs < 60_000) waits.push(delayMs);
        return systemClock.schedule(callback, delayMs < 60_000 ? 0 : delayMs);
      },
    },
    random: seededRandom(7),
  });
  const ask = () => client.request({ method: "GET", name: "a" }, call().signal, () => {});
  for (let i = 0; i < 20; i++) await assertRejects(ask, S3Error, "SlowDown");
  assertEquals(waits.length, 20 * 9);
  for (let attempt = 0; attempt < 9; attempt++) {
    const limit = Math.min(5_000, 100 * 2 ** attempt);
    const own = waits.filter((_, i) => i % 9 === attempt);
    assert(own.every((wait) => wait > 0 && wait <= limit), `${Math.max(...own)} of ${limit}`);
    assert(Math.max(...own) > limit / 2 && Math.min(...own) < limit / 2, "over the whole range");
  }
  assertEquals([client.requests, client.retries], [200, 180]);
  client[Symbol.dispose]();
  await assertRejects(ask);
  assertEquals(client.retries, 180, "once it is closed nothing is tried again");
});

Deno.test("the number of concurrent requests is limited", async () => {
  await using lab = await openS3Lab({
    "s3_num_io_threads": 3,
    "part_bytes": 100,
    "multipart_above_bytes": 0,
    "ranges_above_bytes": 0,
  });
  const { server } = lab;
  server.script = async (_, proceed) => {
    await delay(1);
    return await proceed();
  };
  const keys = testKeys(8);
  assertEquals(await storeBits(lab, keys, SIZE), "1".repeat(8));
  assertEquals(await loadBits(lab, keys, SIZE), "1".repeat(8));
  assertEquals(await lookupBits(lab, keys), "1".repeat(8));
  assertEquals(server.concurrent.most, 3);
});

Deno.test("the bytes in flight are limited, but one object of any size may run", async () => {
  await using lab = await openS3Lab({ "max_bytes_in_flight": 2 * SIZE });
  const { server } = lab;
  const keys = testKeys(6);
  server.script = async (_, proceed) => {
    await delay(1);
    return await proceed();
  };
  assertEquals(await storeBits(lab, keys, SIZE), "111111");
  assertEquals(await loadBits(lab, keys, SIZE), "111111");
  assertEquals(server.concurrent.most, 2);
  assertEquals(await storeBits(lab, keys.slice(0, 1), 5 * SIZE), "1");
});

Deno.test("the end of a chain of 1,000 is found with a tenth of the requests", async () => {
  await using lab = await openS3Lab();
  const { server } = lab;
  const chain = testKeys(1_000);
  await storeBits(lab, chain.slice(0, 700), 16);
  for (const present of [0, 1, 333, 700]) {
    const asked = [...chain.slice(0, present), ...testKeys(1_000 - present, 5_000)];
    server.takeLog();
    const found = await lookupBits(lab, asked, true);
    assertEquals(found, "1".repeat(present) + "0".repeat(1_000 - present));
    const { length } = server.takeLog();
    assert(length <= 100, `${length} requests`);
  }
});

Deno.test("a key found missing is not claimed again by a chain search", async () => {
  await using lab = await openS3Lab();
  const chain = testKeys(500);
  await storeBits(lab, chain, 16);
  const [missing] = chain.slice(217) as [ObjectKey];
  await lab.adapter.delete?.([missing], call());
  const first = await lookupBits(lab, chain, true);
  assertEquals(first.slice(0, 217), "1".repeat(217));
  assertEquals(await loadBits(lab, [missing], 16), "0");
  assertEquals(await lookupBits(lab, chain, true), "1".repeat(217) + "0".repeat(283));
  await storeBits(lab, [missing], 16);
  assertEquals(await lookupBits(lab, chain, true), "1".repeat(500));
});

Deno.test("a chain ends where a lookup fails, and the failure is counted", async () => {
  await using lab = await openS3Lab();
  const chain = testKeys(10);
  await storeBits(lab, chain, 16);
  let isHit = false;
  lab.server.script = (_, proceed) => {
    if (isHit) return proceed();
    isHit = true;
    return error(403, "AccessDenied");
  };
  const found = await lookupBits(lab, chain, true);
  assert(found.includes("0") && !found.includes("01"), found);
  assertEquals(lab.errors.map(({ code }) => code), ["AccessDenied"]);
});
