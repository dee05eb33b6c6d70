import { assert, assertEquals, assertRejects } from "@std/assert";
import { deadline, delay } from "@std/async";
import * as fc from "../support/fast_check.ts";
import { AdapterError } from "../../src/adapter/contract.ts";
import { ManualClock } from "../../src/testing/manual_clock.ts";
import { testBytes, testKeys } from "../support/objects.ts";
import {
  call,
  loadBits,
  lookupBits,
  openResp,
  respObject,
  respRoom,
  storeBits,
} from "../support/resp_adapter.ts";
import { waitUntil } from "../support/wait_until.ts";
import { bulk, greeting, type ScriptedReply, startScripted } from "../support/scripted_resp.ts";

const HANG_MS = 20_000;
const SIZE = 5_000;
const CHUNK = 1_000;
const [key] = testKeys(1) as [ReturnType<typeof testKeys>[number]];

/** The value under an object's name, as the adapter writes it; so many chunks are elsewhere. */
function valueOf(bytes: Uint8Array, chunks = 0): Uint8Array {
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0");
  const head = `KVR1${hex(chunks, 8)}${hex(CHUNK, 8)}${hex(bytes.byteLength, 16)}${hex(0, 4)}`;
  return new Uint8Array([
    ...new TextEncoder().encode(head + "0f".repeat(16)),
    ...bytes.subarray(chunks * CHUNK),
  ]);
}

const whole = bulk(valueOf(testBytes(key, SIZE)));

/** Answers what is asked of data with `reply`, and the rest as a server does. */
function always(reply: ScriptedReply): (command: readonly string[]) => ScriptedReply {
  return (command) => greeting(command) ?? reply;
}

Deno.test("errors that pass are errors of the calls, and the connection stays", async (t) => {
  await using server = startScripted(always(whole));
  await using adapter = await openResp(server.port, {}, { onError: () => {} });
  assertEquals(await loadBits(adapter, [key], SIZE), "1");
  const errors = [
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "NOPERM this user has no permissions to run this command",
    "ERR something else",
  ];
  for (const message of errors) {
    await t.step(message, async () => {
      server.answer = always(`-${message}\r\n`);
      const [code = ""] = message.split(" ");
      await assertRejects(() => loadBits(adapter, [key], SIZE), AdapterError, code);
      await assertRejects(() => lookupBits(adapter, [key]), AdapterError, code);
      assertEquals(await storeBits(adapter, [key], SIZE), "0");
      server.answer = always(whole);
      assertEquals(await loadBits(adapter, [key], SIZE), "1");
      assertEquals(adapter.reportStatus?.().openedConnections, 2);
    });
  }
});

Deno.test("answers of a wrong server replace the connections, at most once a second", async (t) => {
  const errors = [
    "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "CLUSTERDOWN Hash slot not served",
    "READONLY You can't write against a read only replica.",
    "NOREPLICAS Not enough good replicas to write.",
    "ERR Error running script (call to f_0): @user_script:9: -READONLY You can't write",
  ];
  for (const message of errors) {
    await t.step(message, async () => {
      const clock = new ManualClock();
      await using server = startScripted(always(whole));
      await using adapter = await openResp(server.port, {}, { onError: () => {}, clock });
      const opened = () => adapter.reportStatus?.().openedConnections;
      assertEquals(await storeBits(adapter, [key], SIZE), "1");
      assertEquals(await loadBits(adapter, [key], SIZE), "1");
      assertEquals(opened(), 2);
      server.answer = always(`-${message}\r\n`);
      const [code = ""] = message.split(" ");
      for (let n = 0; n < 5; n++) {
        await assertRejects(() => loadBits(adapter, [key], SIZE), AdapterError, code);
        await assertRejects(() => lookupBits(adapter, [key]), AdapterError, code);
        assertEquals(await storeBits(adapter, [key], SIZE), "0");
      }
      assertEquals(opened(), 4, "both are replaced, and stay then");
      await clock.advance(1_000);
      await assertRejects(() => loadBits(adapter, [key], SIZE), AdapterError, code);
      server.answer = always(whole);
      assertEquals(await loadBits(adapter, [key], SIZE), "1");
      assertEquals(await storeBits(adapter, [key], SIZE), "1");
      assertEquals(opened(), 6);
    });
  }
});

Deno.test("an error costs the object that it is about", async () => {
  const keys = testKeys(3);
  const codes: unknown[] = [];
  await using server = startScripted((command) => {
    if (command[1]?.includes(keys[1]?.chunkHashHex ?? "")) return "-LOADING wait\r\n";
    const wanted = keys.find(({ chunkHashHex }) => command[1]?.includes(chunkHashHex));
    return greeting(command) ??
      (wanted === undefined ? "+OK\r\n" : bulk(valueOf(testBytes(wanted, SIZE))));
  });
  await using adapter = await openResp(server.port, {}, {
    onError: ({ cause }) => codes.push(Reflect.get(Object(cause), "code")),
  });
  assertEquals(await loadBits(adapter, keys, SIZE), "101");
  assertEquals(codes, ["LOADING"]);
});

Deno.test("a reply of which a part comes before the server hangs up is a failure", async (t) => {
  await using server = startScripted(always(whole));
  await using adapter = await openResp(server.port, {}, { onError: () => {} });
  for (const cut of [0, 1, 5, 60, 100, whole.length - 3]) {
    await t.step(`${cut} bytes`, async () => {
      server.answer = always({ lastWords: whole.slice(0, cut) });
      const room = respRoom(key, SIZE);
      await assertRejects(() => deadline(adapter.load([room], call()), HANG_MS), AdapterError);
      assertEquals(room.parts[0], new Uint8Array(SIZE), "nothing of it is used");
      server.answer = always(whole);
      assertEquals(await loadBits(adapter, [key], SIZE), "1");
    });
  }
});

Deno.test("an answer of another kind or length is a miss", async (t) => {
  await using server = startScripted(always(whole));
  await using adapter = await openResp(server.port, {}, { onError: () => {} });
  const value = valueOf(testBytes(key, SIZE));
  const answers: Readonly<Record<string, string>> = {
    "nothing": "$-1\r\n",
    "a number": ":1\r\n",
    "a string": "+OK\r\n",
    "a list": "*2\r\n$1\r\na\r\n$1\r\nb\r\n",
    "an empty value": "$0\r\n\r\n",
    "less than a head": bulk(value.subarray(0, 40)),
    "a head alone": bulk(value.subarray(0, 72)),
    "a byte less": bulk(value.subarray(0, -1)),
    "a byte more": bulk(new Uint8Array([...value, 0])),
    "another object's length": bulk(valueOf(testBytes(key, SIZE - 1))),
  };
  for (const [name, answer] of Object.entries(answers)) {
    await t.step(name, async () => {
      server.answer = always(answer);
      assertEquals(await loadBits(adapter, [key], SIZE), "0");
    });
  }
});

Deno.test("whatever a server says, a call ends, and another connection is tried", async () => {
  await using server = startScripted(always(whole));
  await using adapter = await openResp(server.port, { "connect_timeout_ms": 500 }, {
    onError: () => {},
  });
  const anyLine = fc.constantFrom("$", "*", ":", "-", "+", "_", "%", ">", "!", "=", "~", ",", "(");
  const anySize = fc.constantFrom(
    "",
    "-1",
    "-2",
    "0",
    "3",
    "1e9",
    "99999999999",
    "x",
    "\r",
    "5\r\nab",
  );
  const anyText = fc.oneof(
    fc.tuple(anyLine, anySize).map((pieces) => pieces.join("") + "\r\n"),
    fc.uint8Array({ maxLength: 50 }).map((bytes) => String.fromCharCode(...bytes)),
    fc.constantFrom(whole.slice(0, 50), whole, "HTTP/1.1 400 Bad Request\r\n\r\n"),
  );
  const anyWords = fc.array(anyText, { maxLength: 4 }).map((words) => words.join(""));
  await fc.assert(
    fc.asyncProperty(anyWords, async (lastWords) => {
      server.answer = always({ lastWords });
      for (const ask of [() => loadBits(adapter, [key], SIZE), () => lookupBits(adapter, [key])]) {
        try {
          // A hit has the right bytes, or `loadBits` throws something else.
          await deadline(ask(), HANG_MS);
        } catch (error) {
          assert(error instanceof AdapterError, `${error}`);
        }
      }
      server.answer = always(whole);
      assertEquals(await deadline(loadBits(adapter, [key], SIZE), HANG_MS), "1");
    }),
    { seed: 4, numRuns: 100 },
  );
});

Deno.test("a server that accepts connections and sends nothing costs the connect timeout", async () => {
  await using server = startScripted(() => "hang");
  await using adapter = await openResp(server.port, { "connect_timeout_ms": 50 });
  const error = await assertRejects(() => lookupBits(adapter, [key]), AdapterError);
  assertEquals(Reflect.get(Object(error.cause), "code"), "ETIMEDOUT");
});

for (const chunks of [0, 1]) {
  Deno.test(`what comes after an abort is not used, nor taken for another answer: ${chunks} chunks`, async () => {
    const [first, second] = testKeys(2) as [typeof key, typeof key];
    const held = Promise.withResolvers<void>();
    const bytes = testBytes(first, SIZE);
    await using server = startScripted((command) => {
      const known = greeting(command);
      if (known !== undefined) return known;
      if (chunks > 0 && command[1]?.endsWith("}")) return bulk(valueOf(bytes, chunks));
      held.resolve();
      return "hang";
    });
    await using adapter = await openResp(server.port);
    const controller = new AbortController();
    const room = respRoom(first, SIZE);
    const aborted = adapter.load([room], { signal: controller.signal });
    await held.promise;
    controller.abort();
    assertEquals((await aborted).toString(), "0");
    const late = chunks === 0 ? valueOf(bytes) : bytes.subarray(0, CHUNK);
    server.answer = () => bulk(late) + bulk(valueOf(testBytes(second, SIZE)));
    assertEquals(await loadBits(adapter, [second], SIZE), "1");
    assertEquals(room.parts[0], new Uint8Array(SIZE));
  });
}

Deno.test("a store that is aborted publishes nothing any more, however fast the answers come", async () => {
  const size = 100 * SIZE;
  const held = Promise.withResolvers<void>();
  await using server = startScripted(always("+OK\r\n"));
  let sets = 0;
  server.answer = (command) => {
    const known = greeting(command);
    if (known !== undefined) return known;
    if (command[0] !== "SET" || ++sets < 5) return "hang";
    held.resolve();
    return "hang";
  };
  await using adapter = await openResp(server.port, { "chunk_bytes": size / 5 });
  const controller = new AbortController();
  const aborted = adapter.store([respObject(key, size)], { signal: controller.signal });
  await held.promise;
  controller.abort();
  server.say("+OK\r\n".repeat(5));
  assertEquals((await aborted).stored.toString(), "0");
  assertEquals(server.commands.filter(([name]) => name === "EVAL"), []);
});

Deno.test("a connection that owes an answer for long is not used again", async () => {
  const held = Promise.withResolvers<void>();
  await using server = startScripted((command) => {
    if (command[0] === "GET") held.resolve();
    return greeting(command) ?? "hang";
  });
  const clock = new ManualClock();
  await using adapter = await openResp(server.port, {}, { clock });
  const controller = new AbortController();
  const aborted = adapter.load([respRoom(key, SIZE)], { signal: controller.signal });
  await held.promise;
  await clock.advance(1_000);
  controller.abort();
  assertEquals((await aborted).toString(), "0");
  server.answer = always(whole);
  assertEquals(await deadline(loadBits(adapter, [key], SIZE), HANG_MS), "1");
});

Deno.test("a load whose object fails lets go of its parts when nothing writes to them any more", async () => {
  const SIZE = 2 * CHUNK;
  const chunk = bulk(new Uint8Array(CHUNK).fill(99));
  await using server = startScripted((command) => {
    const [verb, name = ""] = command;
    if (verb !== "GET") return greeting(command) ?? "+OK\r\n";
    if (name.endsWith("}")) return bulk(valueOf(testBytes(key, SIZE), 2));
    return name.endsWith(":0") ? "-BUSY Redis is busy running a script\r\n" : "hang";
  });
  await using adapter = await openResp(server.port, { "chunk_bytes": CHUNK });
  const room = respRoom(key, SIZE);
  const [bytes] = room.parts as [Uint8Array];
  let isOver = false;
  const loading = adapter.load([room], call()).catch((error) => error)
    .finally(() => isOver = true);
  await waitUntil(() => server.commands.filter(([name]) => name === "GET").length === 3);
  await delay(20);
  assert(!isOver, "the other chunk is still on its way into the parts");
  server.say(chunk);
  assert(await loading instanceof AdapterError);
  bytes.fill(7);
  await delay(20);
  assert(bytes.every((byte) => byte === 7), "bytes of another object were changed");
});

Deno.test("what a server repeats of a command is not shown", async () => {
  let isUp = false;
  await using server = startScripted(([name]) => {
    if (!isUp) return { lastWords: "" };
    return name === "AUTH"
      ? "-ERR unknown command 'AUTH', with args beginning with: 'alice' 'sekret' \r\n"
      : "+OK\r\n";
  });
  const config = { username: "alice", password: "sekret" };
  await using adapter = await openResp(server.port, config, { onError: () => {} });
  isUp = true;
  const error = await assertRejects(() => lookupBits(adapter, [key]), AdapterError, "AUTH");
  assert(!Deno.inspect(error, { depth: 10 }).includes("sekret"), Deno.inspect(error));
});

Deno.test("an answer that was on its way while an object was stored does not forget it", async () => {
  let asked = 0;
  await using server = startScripted((command) => {
    const [name] = command;
    if (name === "SCAN") return "*2\r\n$1\r\n0\r\n*0\r\n";
    if (name === "EVAL") return ":0\r\n";
    if (name !== "EXISTS") return greeting(command) ?? "+OK\r\n";
    asked++;
    return "hang";
  });
  await using adapter = await openResp(server.port, { "max_capacity_gb": 1 });
  const used = async () => (await adapter.usage?.(call()))?.usedBytes;
  assertEquals(await used(), 0);
  const looking = lookupBits(adapter, [key]);
  await waitUntil(() => asked === 1);
  assertEquals(await storeBits(adapter, [key], SIZE), "1");
  server.say(":0\r\n");
  assertEquals(await looking, "0");
  assertEquals(await used(), SIZE);
});
