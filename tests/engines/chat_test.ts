import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { ChatProcess } from "../../docs/examples/chat/chat_process.ts";
import { tempDirectory } from "../support/temp_directory.ts";

const RESTART = fromFileUrl(new URL("../../docs/examples/chat/restart.ts", import.meta.url));

/** What of a completion is looked at. */
interface Completion {
  readonly answer: Message;
  readonly reason: string;
  readonly promptTokens: number;
  readonly cachedTokens: number;
}

// deno-lint-ignore no-explicit-any
function completionOf({ choices, usage }: any): Completion {
  const [{ message, "finish_reason": reason }] = choices;
  return {
    answer: message,
    reason,
    promptTokens: usage["prompt_tokens"],
    cachedTokens: usage["prompt_tokens_details"]["cached_tokens"],
  };
}

interface Message {
  readonly role: string;
  readonly content: string;
}

/** Starts a server whose cache is in a directory. */
function startChat(directory: string, env: Record<string, string> = {}): Promise<ChatProcess> {
  return ChatProcess.start([`--cache=${directory}`], env);
}

async function ask(
  chat: ChatProcess,
  messages: readonly Message[],
  options: object = {},
): Promise<Completion> {
  const response = await chat.post({ messages, "max_tokens": 20, ...options });
  const text = await response.text();
  assertEquals(response.status, 200, text);
  return completionOf(JSON.parse(text));
}

/** A message of so many bytes, which are as many tokens of the tiny model. */
function message(length: number): Message {
  return { role: "user", content: "All work and no play. ".repeat(60).slice(0, length) };
}

Deno.test("chat: a conversation goes on after a restart, and so does its cache", async () => {
  await using directory = await tempDirectory();
  const question = message(1000);
  let conversation: Message[] = [question];
  {
    await using chat = await startChat(directory.path);
    const first = await ask(chat, conversation);
    assertEquals(first.cachedTokens, 0);
    assertEquals(first.reason, "length");
    conversation = [question, first.answer, { role: "user", content: "And then?" }];
  }
  await using chat = await startChat(directory.path);
  const { cachedTokens } = await ask(chat, conversation);
  // All complete chunks of what was read and written before: the answer ends behind the fourth.
  assertEquals(cachedTokens, 1024);
  const [again, other] = await Promise.all([
    ask(chat, conversation),
    ask(chat, [message(900)]),
  ]);
  assertEquals(again.cachedTokens, 1024);
  assertEquals(other.cachedTokens, 768);
});

Deno.test("chat: a stream has the words of the whole answer, and its usage", async () => {
  await using directory = await tempDirectory();
  await using chat = await startChat(directory.path);
  const messages = [message(300)];
  const whole = await ask(chat, messages);
  const response = await chat.post({
    messages,
    "max_tokens": 20,
    stream: true,
    "stream_options": { "include_usage": true },
  });
  assertEquals(response.headers.get("content-type"), "text/event-stream");
  const events = (await response.text()).trimEnd().split("\n\n");
  assertEquals(events.at(-1), "data: [DONE]");
  const chunks = events.slice(0, -1).map((event) => JSON.parse(event.replace(/^data: /, "")));
  const words = chunks.map(({ choices }) => choices[0]?.delta.content ?? "").join("");
  assertEquals(words, whole.answer.content);
  assertEquals(chunks.at(-2)?.choices[0]["finish_reason"], "length");
  assertEquals(chunks.at(-1)?.usage["prompt_tokens_details"], { "cached_tokens": 256 });
});

Deno.test("chat: a client that disconnects does not affect others", async () => {
  await using directory = await tempDirectory();
  await using chat = await startChat(directory.path);
  const response = await chat.post({ messages: [message(600)], stream: true, "max_tokens": 3000 });
  const reader = response.body?.getReader();
  await reader?.read();
  await reader?.cancel();
  const { cachedTokens } = await ask(chat, [message(600)]);
  assertEquals(cachedTokens, 512);
});

Deno.test("chat: keys are tenants, and are asked for if there are any", async () => {
  await using directory = await tempDirectory();
  await using chat = await startChat(directory.path, { KVTIER_CHAT_API_KEYS: "alice,bob" });
  const body = { messages: [message(600)], "max_tokens": 2 };
  const cachedBy = async (key: string): Promise<number> => {
    const response = await chat.post(body, { headers: { authorization: `Bearer ${key}` } });
    return completionOf(await response.json()).cachedTokens;
  };
  assertEquals(await cachedBy("alice"), 0);
  assertEquals(await cachedBy("alice"), 512);
  assertEquals(await cachedBy("bob"), 0);
  for (const headers of [{}, { authorization: "Bearer eve" }]) {
    const response = await chat.post(body, { headers });
    assertEquals(response.status, 401);
    await response.body?.cancel();
  }
});

Deno.test("chat: other sites and wrong requests are told so", async () => {
  await using directory = await tempDirectory();
  await using chat = await startChat(directory.path);
  const expectError = async (response: Promise<Response>, status: number, text: RegExp) => {
    const answer = await response;
    assertEquals(answer.status, status);
    assertMatch((await answer.json()).error.message, text);
  };
  const messages = [message(10)];
  await expectError(
    chat.post({ messages }, { headers: { origin: "https://evil.example" } }),
    403,
    /Origin/,
  );
  await expectError(rawRequest(chat.port, "evil.example"), 403, /Host/);
  await expectError(chat.post("hello"), 400, /JSON object/);
  await expectError(chat.post({}), 400, /messages/);
  await expectError(chat.post({ messages: [{ role: "robot" }] }), 400, /role/);
  await expectError(chat.post({ messages: [{ role: "user", content: 1 }] }), 400, /content/);
  await expectError(chat.post({ messages, temperature: -1 }), 400, /temperature/);
  await expectError(chat.post({ messages: Array(5).fill(message(1000)) }), 400, /4096 tokens/);
  await expectError(chat.fetch("/nothing"), 404, /GET \/nothing/);
  const models = await (await chat.fetch("/v1/models")).json();
  assertEquals(models.data[0].id, "tiny-nonsense");
  const page = await (await chat.fetch("/")).text();
  assertMatch(page, /<title>kvtier chat<\/title>/);
  const parts = [{ type: "text", text: "a" }, { type: "text", text: "b" }];
  const joined = await ask(chat, [{ role: "user", content: "ab" }]);
  const response = await chat.post({
    messages: [{ role: "user", content: parts }],
    "max_tokens": 20,
  });
  assertEquals(completionOf(await response.json()).answer, joined.answer);
  assertNotEquals(joined.answer.content, "");
});

Deno.test("chat: a body that names no length is limited too", async () => {
  await using directory = await tempDirectory();
  await using chat = await startChat(directory.path);
  const part = new TextEncoder().encode(" ".repeat(2 ** 20));
  let sent = 0;
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull(controller) {
      if (sent++ < 32) controller.enqueue(part);
      else controller.close();
    },
  });
  // The server answers before it has all, or cuts the connection.
  const status = await chat.fetch("/v1/chat/completions", { method: "POST", body })
    .then(async (response) => {
      await response.body?.cancel();
      return response.status;
    }, () => 413);
  assertEquals(status, 413);
  assertEquals((await ask(chat, [message(10)])).reason, "length");
});

Deno.test("chat: SIGINT ends long answers, and does not wait for clients that stall", async () => {
  await using directory = await tempDirectory();
  let answer = Promise.resolve("");
  {
    await using chat = await startChat(directory.path);
    using stalled = await Deno.connect({ hostname: "127.0.0.1", port: chat.port });
    const head = `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:${chat.port}\r\n`;
    await stalled.write(new TextEncoder().encode(`${head}Content-Length: 10\r\n\r\n{`));
    const response = await chat.post({
      messages: [message(600)],
      stream: true,
      "max_tokens": 3000,
    });
    answer = response.text();
  }
  assertMatch(await answer, /"finish_reason":"length"[^]*data: \[DONE\]/);
  const path = `${directory.path}/conversations.json`;
  const { tokenizer, conversations } = JSON.parse(await Deno.readTextFile(path));
  assertEquals([tokenizer, conversations.length], ["bytes", 1]);
  assertEquals(((await Deno.stat(path)).mode ?? 0) & 0o777, 0o600);
});

/** A request under another name than the one it is sent to. */
async function rawRequest(port: number, host: string): Promise<Response> {
  using connection = await Deno.connect({ hostname: "127.0.0.1", port });
  const request = `GET /v1/models HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`;
  await connection.write(new TextEncoder().encode(request));
  const bytes: number[] = [];
  const buffer = new Uint8Array(4096);
  for (let count = await connection.read(buffer); count; count = await connection.read(buffer)) {
    bytes.push(...buffer.subarray(0, count));
  }
  const text = new TextDecoder().decode(Uint8Array.from(bytes));
  const status = Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1]);
  return new Response(text.slice(text.indexOf("{"), text.lastIndexOf("}") + 1), { status });
}

Deno.test("chat: two questions about one document, with a restart between them", async () => {
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "-RWN", "--allow-run", "--allow-env", RESTART],
    env: { NO_COLOR: "1" },
    stdin: "null",
    stderr: "piped",
  });
  const { success, stdout, stderr } = await command.output();
  const [said, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assert(success, `${said}${errors}`);
  const counts = [...said?.matchAll(/^\[(\d+) of (\d+) tokens from the cache/gm) ?? []]
    .map(([, cached, tokens]) => [Number(cached), Number(tokens)] as const);
  assertEquals(counts.map(([cached]) => cached > 0), [false, true, false], said);
  const [cached = 0, tokens = 0] = counts[1] ?? [];
  const complete = Math.floor((tokens - 1) / 256) * 256;
  assert(cached >= 0.95 * complete, said);
  assertMatch(said ?? "", /^The same answer, cached or not\.$/m);
});
