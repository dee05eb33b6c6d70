import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { deadline } from "@std/async";
import { encodeFileName } from "../../src/keys/key_codec.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import { AdapterError } from "../../src/adapter/errors.ts";
import { systemClock } from "../../src/base/clock.ts";
import { testKeys } from "../support/objects.ts";
import {
  ATTEMPTS,
  call,
  loadBits,
  lookupBits,
  openS3,
  openS3Lab,
  type S3Lab,
  s3Object,
  storeBits,
} from "../support/s3_adapter.ts";
import { error, type Script, ScriptedS3, SECRETS, xml } from "../support/scripted_s3.ts";

const SIZE = 20_000;
const pieces = { "part_bytes": 6_000, "multipart_above_bytes": 0, "ranges_above_bytes": 0 };
const allKeys = testKeys(3);
const [key, other, third] = allKeys as [ObjectKey, ObjectKey, ObjectKey];

/** Answers `count` requests of a kind with an error. */
function failing(count: number, status: number, code: string, only = /./): Script {
  return ({ method, name }, proceed) =>
    only.test(`${method} ${name}`) && count-- > 0 ? error(status, code) : proceed();
}

Deno.test("temporary errors are retried, others are not", async (t) => {
  const answers: readonly (readonly [number, string, boolean])[] = [
    [503, "SlowDown", true],
    [500, "InternalError", true],
    [502, "BadGateway", true],
    [429, "TooManyRequests", true],
    [400, "RequestTimeout", true],
    [403, "AccessDenied", false],
    [400, "InvalidRequest", false],
    [301, "PermanentRedirect", false],
    [404, "NoSuchBucket", false],
  ];
  await using lab = await openS3Lab();
  const { server } = lab;
  for (const [status, code, isTransient] of answers) {
    await t.step(`${status} ${code}`, async () => {
      server.script = failing(ATTEMPTS - 1, status, code);
      if (isTransient) assertEquals(await storeBits(lab, [key], SIZE), "1");
      else await assertRejects(() => storeBits(lab, [key], SIZE), AdapterError, code);
      assertEquals(server.takeLog().length, isTransient ? ATTEMPTS : 1);
      server.script = failing(Infinity, status, code);
      await assertRejects(() => loadBits(lab, [key], SIZE), AdapterError);
      assertEquals(server.takeLog().length, isTransient ? ATTEMPTS : 1);
      server.script = undefined;
    });
  }
  assertEquals(await storeBits(lab, [key], SIZE), "1");
  assertEquals(await loadBits(lab, [key], SIZE), "1", "service resumes");
  assertEquals(lab.errors, []);
});

Deno.test("a failure affects only its objects and is counted", async () => {
  await using lab = await openS3Lab();
  const { server, errors } = lab;
  const name = encodeFileName(other);
  server.script = failing(Infinity, 503, "SlowDown", new RegExp(name.slice(20)));
  assertEquals(await storeBits(lab, allKeys, SIZE), "101");
  assertEquals(errors.splice(0).map(({ operation, code }) => [operation, code]), [
    ["store", "SlowDown"],
  ]);
  assertEquals(await lookupBits(lab, allKeys), "101");
  assertEquals(await loadBits(lab, allKeys, SIZE), "101");
  assertEquals((await lab.adapter.delete?.(allKeys, call()))?.deleted.toString(), "101");
  assertEquals(errors.map(({ operation }) => operation), ["lookup", "load", "delete"]);
  assertEquals(server.objects.size, 0);
});

Deno.test("a missing object is one request, and no failure", async () => {
  await using lab = await openS3Lab();
  assertEquals(await lookupBits(lab, [key]), "0");
  assertEquals(await loadBits(lab, [key], SIZE), "0");
  assertEquals(lab.server.takeLog().map((line) => line.split(" ")[0]), ["HEAD", "GET"]);
  assertEquals(lab.errors, []);
});

Deno.test("a body that breaks off is a failure, never an object", async () => {
  await using lab = await openS3Lab(pieces);
  const { server } = lab;
  assertEquals(await storeBits(lab, [key, other], SIZE), "11");
  for (const size of [SIZE, 5_000]) {
    await storeBits(lab, [key], size);
    server.takeLog();
    let broken = 1;
    server.script = async ({ method }, proceed) => {
      const response = await proceed();
      if (method !== "GET" || broken-- <= 0) return response;
      const bytes = await response.bytes();
      const body = new ReadableStream({
        start: (controller) => controller.enqueue(bytes.slice(0, bytes.byteLength / 2)),
        pull: (controller) => controller.error(new Error("broken off")),
      });
      const headers = new Headers(response.headers);
      headers.set("content-length", String(bytes.byteLength));
      return new Response(body, { status: response.status, headers });
    };
    assertEquals(await loadBits(lab, [key], size), "1", "a second attempt");
    assertEquals(server.takeLog().length, Math.ceil(size / 6_000) + 1);
    broken = Infinity;
    await assertRejects(() => loadBits(lab, [key], size), AdapterError);
    server.script = undefined;
    assertEquals(await loadBits(lab, [key], size), "1", "service resumes");
  }
});

Deno.test("an object of another length is a miss at once, whatever it is read with", async () => {
  for (const options of [{}, pieces]) {
    await using lab = await openS3Lab(options);
    const { server } = lab;
    await storeBits(lab, [key], SIZE);
    server.takeLog();
    for (const size of [SIZE - 1, SIZE + 1, 6_001, 100_000]) {
      assertEquals(await loadBits(lab, [key], size), "0");
      const most = Math.ceil(size / 6_000);
      assert(server.takeLog().length <= most, "nothing is tried again");
    }
    assertEquals(lab.errors, []);
    // Without a length in the headers, the body tells.
    for (const [start, more] of [[0, 1], [1, 0]] as const) {
      server.script = async (_, proceed) => {
        const bytes = await (await proceed()).bytes();
        return new Response(ReadableStream.from([bytes.subarray(start), new Uint8Array(more)]));
      };
      assertEquals(await loadBits(lab, [key], SIZE), "0");
    }
  }
});

Deno.test("an error in the body of a success is an error", async (t) => {
  const failure = () => xml("<Error><Code>InternalError</Code></Error>");
  await t.step("of a store", async () => {
    await using lab = await openS3Lab();
    lab.server.script = () => failure();
    await assertRejects(() => storeBits(lab, [key], SIZE), AdapterError, "InternalError");
    assertEquals(lab.server.takeLog().length, ATTEMPTS);
  });
  await t.step("of the end of an upload", async () => {
    await using lab = await openS3Lab(pieces);
    const { server } = lab;
    server.script = ({ method, query }, proceed) =>
      method === "POST" && query.has("uploadId") ? failure() : proceed();
    await assertRejects(() => storeBits(lab, [key], SIZE), AdapterError, "InternalError");
    await lab.adapter[Symbol.asyncDispose]();
    assertEquals(server.uploads.size, 0, "uploads are aborted");
  });
  await t.step("of a load", async () => {
    await using lab = await openS3Lab();
    await storeBits(lab, [key], SIZE);
    lab.server.script = () => failure();
    assertEquals(await loadBits(lab, [key], SIZE), "0");
  });
  await t.step("of a listing that says it goes on, and not where", async () => {
    await using lab = await openS3Lab();
    const { server, adapter } = lab;
    assertEquals(await storeBits(lab, allKeys, SIZE), "111");
    server.pageSize = 1;
    server.script = async ({ query }, proceed) => {
      const answer = await proceed();
      if (!query.has("list-type")) return answer;
      const text = await answer.text();
      return new Response(text.replace(/<NextContinuationToken>.*<\/NextContinuationToken>/, ""));
    };
    const list = () => Array.fromAsync(adapter.list?.(call()) ?? []);
    await assertRejects(list, AdapterError, "IncompleteListing");
  });

  await t.step("of a listing", async () => {
    await using lab = await openS3Lab();
    lab.server.script = () => failure();
    const list = () => Array.fromAsync(lab.adapter.list?.(call()) ?? []);
    await assertRejects(list, AdapterError, "InternalError");
    lab.server.script = () => xml("<ListBucketResult><IsTruncated>false</IsTr");
    await assertRejects(list, AdapterError, "IncompleteBody");
  });
  await t.step("of a removal of many", async () => {
    await using lab = await openS3Lab();
    const { server } = lab;
    await storeBits(lab, allKeys, SIZE);
    const name = `kvtier/${encodeFileName(other)}`;
    server.script = async ({ query }, proceed) => {
      const held = server.objects.get(name);
      const response = await proceed();
      if (!query.has("delete")) return response;
      if (held !== undefined) server.objects.set(name, held);
      return xml(
        `<DeleteResult><Error><Key>${name}</Key><Code>AccessDenied</Code></Error></DeleteResult>`,
      );
    };
    const result = await lab.adapter.delete?.(allKeys, call());
    assertEquals([result?.deleted.toString(), result?.bytes], ["101", 2 * SIZE]);
    assertEquals(lab.errors.map(({ code }) => code), ["AccessDenied"]);
  });
});

Deno.test("a server without batch deletion gets one request per object", async () => {
  await using lab = await openS3Lab();
  const { server } = lab;
  await storeBits(lab, allKeys, SIZE);
  server.script = ({ query }, proceed) =>
    query.has("delete") ? error(501, "NotImplemented") : proceed();
  assertEquals((await lab.adapter.delete?.(allKeys, call()))?.deleted.toString(), "111");
  assertEquals(server.objects.size, 0);
  assertEquals(lab.adapter.reportStatus?.().removesTogether, false);
});

Deno.test("put_if_absent keeps an existing object of the right size", async () => {
  for (const options of [{}, pieces]) {
    await using lab = await openS3Lab({ ...options, "put_if_absent": true });
    const { server } = lab;
    assertEquals(await storeBits(lab, [key], SIZE), "1");
    const name = `kvtier/${encodeFileName(key)}`;
    const held = server.objects.get(name);
    const again = await lab.adapter.store([s3Object(key, SIZE)], call());
    assertEquals([again.stored.toString(), again.bytes], ["1", 0]);
    assertEquals(server.objects.get(name), held);
    server.objects.set(name, { bytes: new Uint8Array(10), headers: {} });
    assertEquals(await storeBits(lab, [key], SIZE), "1");
    assertEquals(await loadBits(lab, [key], SIZE), "1", "a stump is replaced");
    // Another client is storing it at the same time.
    let conflicts = 1;
    server.script = ({ headers }, proceed) =>
      headers.has("if-none-match") && conflicts-- > 0
        ? error(409, "ConditionalRequestConflict")
        : proceed();
    assertEquals(await storeBits(lab, [third], SIZE), "1");
    assertEquals(server.uploads.size, 0);
  }
});

Deno.test("credentials are sent to the configured server only", async () => {
  await using lab = await openS3Lab();
  await using elsewhere = new ScriptedS3();
  const location = `http://127.0.0.1:${elsewhere.port}/kv-bucket/a`;
  lab.server.script = () => new Response(null, { status: 307, headers: { location } });
  await assertRejects(() => storeBits(lab, [key], SIZE), AdapterError, "307");
  await assertRejects(() => lookupBits(lab, [key]), AdapterError, "307");
  assertEquals(elsewhere.log, []);
});

Deno.test("errors and status contain no secrets", async () => {
  await using lab = await openS3Lab(pieces);
  const outputs: string[] = [JSON.stringify(lab.adapter.reportStatus?.())];
  for (const [status, code] of [[403, "SignatureDoesNotMatch"], [500, "<b>"], [503, ""]] as const) {
    lab.server.script = () => error(status, code);
    const failure = await assertRejects(() => storeBits(lab, [key], SIZE), AdapterError);
    outputs.push(Deno.inspect(failure, { depth: 10 }), failure.message, String(failure.cause));
  }
  for (const text of outputs) {
    for (const secret of [...SECRETS, "SCRIPTED-ACCESS-KEY"]) assert(!text.includes(secret), text);
  }
});

for (const held of ["the first request", "a part", "the last request"] as const) {
  Deno.test(`an adapter that is closed leaves no upload behind: ${held} is under way`, async () => {
    await using lab = await openS3Lab(pieces, { clock: systemClock });
    const { server, adapter } = lab;
    const reached = Promise.withResolvers<void>();
    const goOn = Promise.withResolvers<void>();
    server.script = async ({ method, query }, proceed) => {
      const isHeld = held === "a part"
        ? query.has("partNumber")
        : method === "POST" && query.has("uploads") === (held === "the first request");
      if (!isHeld) return await proceed();
      const answer = held === "the first request" ? await proceed() : undefined;
      reached.resolve();
      if (answer === undefined) return await server.hang();
      await goOn.promise;
      return answer;
    };
    const storing = adapter.store([s3Object(key, SIZE)], call()).catch((error) => error);
    await reached.promise;
    assertEquals(server.uploads.size, 1);
    const closing = adapter[Symbol.asyncDispose]();
    goOn.resolve();
    await deadline(closing, 4_000);
    assertEquals(server.uploads.size, 0);
    assertEquals(server.objects.size, 0);
    await storing;
  });
}

Deno.test("a server whose HEAD responses have no length is queried differently", async (t) => {
  const streamed = async (proceed: () => Promise<Response>, status = 200): Promise<Response> => {
    const { body, headers, status: own } = await proceed();
    headers.delete("content-length");
    headers.delete("content-range");
    // The length of a streamed body is unknown.
    const stream = body ?? new ReadableStream({ start: (controller) => controller.close() });
    return own < 300
      ? new Response(stream, { status, headers })
      : new Response(null, { status: own });
  };
  const servers: Readonly<Record<string, (lab: S3Lab) => Script>> = {
    "with ranges": () => ({ method }, proceed) => method === "HEAD" ? streamed(proceed) : proceed(),
    "without ranges": ({ server }) => ({ method, name }, proceed) => {
      if (method === "HEAD") return streamed(proceed);
      const held = server.objects.get(name);
      return method === "GET" && held !== undefined ? new Response(held.bytes) : proceed();
    },
  };
  for (const [name, scriptFor] of Object.entries(servers)) {
    await t.step(name, async () => {
      await using lab = await openS3Lab();
      const { server, adapter, errors } = lab;
      const keys = testKeys(3);
      assertEquals(await storeBits(lab, keys, SIZE), "111");
      server.script = scriptFor(lab);
      assertEquals(await lookupBits(lab, [...keys, ...testKeys(1, 50)]), "1110");
      assertEquals(await loadBits(lab, keys, SIZE), "111");
      // As transforms ask: they know the most bytes only.
      const rooms = keys.map((key) => {
        return { key, parts: [new Uint8Array(SIZE + 500)], byteLength: SIZE + 500 };
      });
      const loaded = await adapter.load(rooms, { ...call(), allowShorter: true });
      assertEquals(loaded.toString(), "111");
      server.takeLog();
      assertEquals((await adapter.delete?.(keys, call()))?.bytes, 3 * SIZE);
      assertEquals(server.takeLog().filter((line) => line.startsWith("HEAD")), []);
      assertEquals(errors, []);
    });
  }
  await t.step("one that never tells is a failure, not a miss", async () => {
    await using lab = await openS3Lab();
    const keys = testKeys(2);
    assertEquals(await storeBits(lab, keys, SIZE), "11");
    lab.server.script = ({ name }, proceed) => name === "" ? proceed() : streamed(proceed, 206);
    const rooms = keys.map((key) => {
      return { key, parts: [new Uint8Array(2 * SIZE)], byteLength: 2 * SIZE };
    });
    const load = () => lab.adapter.load(rooms, { ...call(), allowShorter: true });
    await assertRejects(load, AdapterError, "NoContentLength");
  });
});

Deno.test("a wrong clock is reported with its offset", async () => {
  const skewed = (minutes: number, code: string): Response => {
    const { body, headers } = error(403, code);
    headers.set("date", new Date(Date.now() + minutes * 60_000).toUTCString());
    return new Response(body, { status: 403, headers });
  };
  await using lab = await openS3Lab();
  const keys = testKeys(1);
  lab.server.script = () => skewed(20, "RequestTimeTooSkewed");
  const behind = /RequestTimeTooSkewed to PUT: the clock of this machine is 20 minutes behind/;
  assertMatch(
    (await assertRejects(() => storeBits(lab, keys, SIZE), AdapterError)).message,
    behind,
  );
  // What answers to HEAD do not say, their date says.
  lab.server.script = () => skewed(-20, "");
  const ahead = /AccessDenied to HEAD: the clock of this machine is 20 minutes ahead of/;
  assertMatch((await assertRejects(() => lookupBits(lab, keys), AdapterError)).message, ahead);
  lab.server.script = () => skewed(1, "AccessDenied");
  const denied = (await assertRejects(() => storeBits(lab, keys, SIZE), AdapterError)).message;
  assert(!denied.includes("clock"), denied);
  // It is known at once, and no reason not to open: clocks are set.
  lab.server.script = () => skewed(20, "RequestTimeTooSkewed");
  await using open = await openS3(lab.server.config);
  assertMatch(open.errors[0]?.message ?? "", /20 minutes behind/);
});
