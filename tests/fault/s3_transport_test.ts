import { assert, assertEquals, assertRejects } from "@std/assert";
import { delay } from "@std/async";
import { encodeFileName } from "../../src/keys/key_codec.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import { AdapterError } from "../../src/adapter/errors.ts";
import { type Clock, systemClock } from "../../src/base/clock.ts";
import { ManualClock } from "../../src/testing/manual_clock.ts";
import { testKey, testKeys } from "../support/objects.ts";
import {
  ATTEMPTS,
  call,
  loadBits,
  lookupBits,
  openS3,
  openS3Lab,
  s3Object,
  storeBits,
} from "../support/s3_adapter.ts";
import { startS3 } from "../support/s3_server.ts";
import { error, ScriptedS3 } from "../support/scripted_s3.ts";
import { UnsteadyProxy } from "../support/unsteady_proxy.ts";

const SIZE = 20_000;
const pieces = { "part_bytes": 6_000, "multipart_above_bytes": 0, "ranges_above_bytes": 0 };
const keys = testKeys(3);
const [key] = keys as [ObjectKey];
const name = `kvtier/${encodeFileName(key)}`;

Deno.test("an aborted call stops waiting for a silent server", async (t) => {
  for (const options of [{}, pieces]) {
    await using lab = await openS3Lab(options);
    const { server, adapter } = lab;
    await storeBits(lab, keys, SIZE);
    const calls: Record<string, (signal: AbortSignal) => Promise<unknown>> = {
      store: (signal) => adapter.store(keys.map((each) => s3Object(each, SIZE)), { signal }),
      load: (signal) => loadBits(lab, keys, SIZE, { signal }),
      lookup: (signal) => adapter.lookupAndLock(keys, { signal, prefix: false }),
      chain: (signal) => adapter.lookupAndLock(keys, { signal, prefix: true }),
      delete: async (signal) => await adapter.delete?.(keys, { signal }),
      list: (signal) => Array.fromAsync(adapter.list?.({ signal }) ?? []),
    };
    for (const [what, start] of Object.entries(calls)) {
      await t.step(what, async () => {
        const controller = new AbortController();
        const hasCome = Promise.withResolvers<void>();
        server.script = () => {
          hasCome.resolve();
          return server.hang();
        };
        const pending = start(controller.signal);
        await hasCome.promise;
        controller.abort();
        await pending;
        server.script = undefined;
        assertEquals(await loadBits(lab, keys, SIZE), "111", "service resumes");
      });
    }
    assertEquals(lab.errors, [], "an aborted call reports no failures");
    await adapter[Symbol.asyncDispose]();
    assertEquals(server.uploads.size, 0);
  }
});

Deno.test("an attempt that times out is retried", async () => {
  const clock = new ManualClock();
  await using lab = await openS3Lab({ "request_timeout_ms": 7_000 }, { clock });
  const { server } = lab;
  let requests = 0;
  let hasCome = Promise.withResolvers<void>();
  server.script = () => {
    requests++;
    hasCome.resolve();
    return server.hang();
  };
  const failure = assertRejects(() => lookupBits(lab, [key]), AdapterError, "ETIMEDOUT");
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    await hasCome.promise;
    assertEquals(requests, attempt);
    hasCome = Promise.withResolvers<void>();
    await clock.advance(7_000);
    // What the wait before the next attempt takes at most.
    while (attempt < ATTEMPTS && requests === attempt) {
      await clock.advance(10);
      await delay(1);
    }
  }
  await failure;
});

Deno.test("an aborted call is not retried", async () => {
  const isWaiting = Promise.withResolvers<void>();
  // The wait before the second attempt is never over by itself.
  const clock: Clock = {
    now: () => systemClock.now(),
    schedule(callback, delayMs) {
      if (delayMs >= 5_000) return systemClock.schedule(callback, delayMs);
      isWaiting.resolve();
      return () => {};
    },
  };
  await using lab = await openS3Lab({}, { clock });
  const { server } = lab;
  const controller = new AbortController();
  server.script = () => error(503, "SlowDown");
  const pending = storeBits(lab, [key], SIZE, { signal: controller.signal });
  await isWaiting.promise;
  controller.abort();
  assertEquals(await pending, "0");
  assertEquals(server.takeLog().length, 1);
});

Deno.test("an aborted load does not wait for slow bytes, which fill no buffer afterwards", async () => {
  for (const options of [{}, pieces]) {
    await using lab = await openS3Lab(options);
    const { server, adapter } = lab;
    await storeBits(lab, [key], SIZE);
    const isReading = Promise.withResolvers<void>();
    let proceedSlowly: (() => void) | undefined;
    server.script = async (_, proceed) => {
      const response = await proceed();
      const bytes = await response.bytes();
      const body = new ReadableStream({
        start: (controller) => controller.enqueue(bytes.slice(0, 100)),
        async pull(controller) {
          isReading.resolve();
          await new Promise<void>((resolve) => proceedSlowly = resolve);
          controller.enqueue(bytes.slice(100));
          controller.close();
        },
      });
      const headers = new Headers(response.headers);
      headers.set("content-length", String(bytes.byteLength));
      return new Response(body, { status: response.status, headers });
    };
    const controller = new AbortController();
    const room = { key, parts: [new Uint8Array(SIZE)], byteLength: SIZE };
    const pending = adapter.load([room], { signal: controller.signal });
    await isReading.promise;
    controller.abort();
    assertEquals((await pending).toString(), "0");
    room.parts[0]?.fill(7);
    proceedSlowly?.();
    server.script = undefined;
    assertEquals(await loadBits(lab, [key], SIZE), "1", "service resumes");
    assert(room.parts[0]?.every((byte) => byte === 7), "the parts are the caller's again");
  }
});

Deno.test("connections that break are made again, a bounded number of times", async () => {
  await using server = new ScriptedS3();
  await using proxy = new UnsteadyProxy(server.port);
  const config = { ...server.configAt(proxy.port), "max_attempts": ATTEMPTS };
  await using open = await openS3(config);
  for (
    const [work, expected] of [
      [() => storeBits(open, [key], SIZE), "1"],
      [() => lookupBits(open, [key]), "1"],
      [() => loadBits(open, [key], SIZE), "1"],
    ] as const
  ) {
    proxy.breakAll();
    proxy.resets = ATTEMPTS - 1;
    proxy.resetCount = 0;
    assertEquals(await work(), expected);
    assertEquals(proxy.resets, 0);
    proxy.breakAll();
    proxy.resets = Infinity;
    await assertRejects(work, AdapterError);
    // The first attempt may find a connection that it takes to be open.
    assert(proxy.resetCount <= 2 * ATTEMPTS, `${proxy.resetCount} connections`);
    proxy.resets = 0;
    assertEquals(await work(), expected, "service resumes");
  }
});

Deno.test("an upload that fails is aborted, whatever fails", async (t) => {
  const cases: Record<string, (method: string, query: URLSearchParams) => boolean> = {
    "one part": (method, query) => method === "PUT" && query.get("partNumber") === "3",
    "all parts": (method) => method === "PUT",
    "its end": (method, query) => method === "POST" && query.has("uploadId"),
  };
  for (const [what, isHit] of Object.entries(cases)) {
    await t.step(what, async () => {
      await using lab = await openS3Lab(pieces);
      const { server } = lab;
      server.script = ({ method, query }, proceed) =>
        isHit(method, query) ? error(403, "AccessDenied") : proceed();
      await assertRejects(() => storeBits(lab, [key], SIZE), AdapterError, "AccessDenied");
      await lab.adapter[Symbol.asyncDispose]();
      assertEquals(server.uploads.size, 0);
      assertEquals(server.objects.size, 0, "nothing partial is visible");
      const aborts = server.log.filter((line) => line === `DELETE ${name}?uploadId`);
      assertEquals(aborts.length, 1);
    });
  }
});

Deno.test("an upload whose last response is lost is complete", async () => {
  await using lab = await openS3Lab(pieces);
  const { server } = lab;
  let isLost = false;
  server.script = async ({ method, query }, proceed) => {
    const response = await proceed();
    if (method !== "POST" || !query.has("uploadId") || isLost) return response;
    isLost = true;
    return error(503, "ServiceUnavailable");
  };
  assertEquals(await storeBits(lab, [key], SIZE), "1");
  assert(isLost);
  assertEquals(await loadBits(lab, [key], SIZE), "1");
});

Deno.test("ranges of two versions are never put together", async () => {
  await using lab = await openS3Lab(pieces);
  const { server, adapter } = lab;
  const [old, fresh] = [1, 2].map((byte) => new Uint8Array(SIZE).fill(byte));
  const put = async (bytes = new Uint8Array()): Promise<void> => {
    await adapter.store([{ key, parts: [bytes], byteLength: SIZE }], call());
  };
  await put(fresh);
  const after = server.objects.get(name);
  await put(old);
  let ranges = 0;
  server.script = ({ method, headers }, proceed) => {
    if (method === "GET" && headers.has("range") && ++ranges === 2 && after !== undefined) {
      server.objects.set(name, after);
    }
    return proceed();
  };
  const room = { key, parts: [new Uint8Array(SIZE)], byteLength: SIZE };
  assertEquals((await adapter.load([room], call())).toString(), "1");
  assertEquals(room.parts, [fresh]);
  assert(ranges > 1);
});

Deno.test("a server without ranges, or without versions, is read as a whole", async () => {
  await using lab = await openS3Lab(pieces);
  const { server } = lab;
  await storeBits(lab, [key], SIZE);
  const held = server.objects.get(name);
  server.script = () => new Response(held?.bytes, held);
  assertEquals(await loadBits(lab, [key], SIZE), "1");
  server.script = async (_, proceed) => {
    const response = await proceed();
    response.headers.delete("etag");
    return response;
  };
  assertEquals(await loadBits(lab, [key], SIZE), "1");
});

Deno.test("a server that is killed in the middle of a batch costs that batch", async () => {
  await using server = await startS3();
  await using open = await openS3({ ...server.config, "max_attempts": 2, "s3_num_io_threads": 2 });
  const batch = testKeys(200);
  const first = batch.slice(0, 5);
  assertEquals(await storeBits(open, first, SIZE), "11111");
  const rooms = batch.map(() => first[0] as ObjectKey).map((each) => ({
    key: each,
    parts: [new Uint8Array(SIZE)],
    byteLength: SIZE,
  }));
  let killed: Promise<void> | undefined;
  const loads = open.adapter.load(rooms, { ...call(), onLoaded: () => killed ??= server.kill() });
  const loaded = await loads;
  await killed;
  assert(loaded.popcount() > 0 && loaded.popcount() < rooms.length, `${loaded.popcount()} loaded`);
  assertEquals(open.errors.map(({ operation }) => operation).slice(0, 1), ["load"]);
  await assertRejects(() => storeBits(open, first, SIZE), AdapterError);
  await assertRejects(() => lookupBits(open, first, true), AdapterError);
  // An outage is no reason not to open.
  await using late = await openS3({ ...server.config, "max_attempts": 1, "max_capacity_gb": 1 });
  await assertRejects(() => loadBits(late, first, SIZE), AdapterError);
  assertEquals(await storeBits(late, first, SIZE), "00000", "the free space is unknown");
});

Deno.test("no salt finds objects of another one", async () => {
  await using lab = await openS3Lab();
  const own = { cacheSalt: "tenant" };
  await storeBits(lab, Array.from({ length: 20 }, (_, n) => testKey(n, own)), 100);
  const probes = Array.from({ length: 10_000 }, (_, i) => {
    const salts = ["", "tenan", "tenant.", "tenant1", "Tenant", "tenant.data", "tenant%40"];
    const cacheSalt = salts[i % salts.length] ?? "";
    return testKey(i % 20, { cacheSalt: i < 5_000 ? cacheSalt : `${cacheSalt}-${i}` });
  });
  for (let i = 0; i < probes.length; i += 1_000) {
    const found = await lookupBits(lab, probes.slice(i, i + 1_000));
    assertEquals(found, "0".repeat(1_000));
  }
  assertEquals(await lookupBits(lab, [testKey(0, own)]), "1");
});
