/**
 * A chat server with a part of OpenAI's API and a chat page. Conversations survive a restart.
 *
 * `deno task chat [--model DIR|ID] [--weights NAME] [--port N] [--cache DIR] [--models DIR]`
 */
import * as ort from "npm:onnxruntime-web@1.30.0/webgpu";
import { parseArgs } from "node:util";
import { join } from "@std/path";
import { TieredCache } from "@kvtier/kvtier";
import { OnnxDecoder, requestEngineDevice } from "@kvtier/kvtier/onnx";
import { ChatEngine } from "./chat_engine.ts";
import { ChatServer } from "./chat_server.ts";
import { downloadModel } from "./model_download.ts";
import { type ChatModel, openModelDirectory, tinyModel } from "./model_files.ts";

const { values } = parseArgs({
  options: {
    model: { type: "string" },
    weights: { type: "string" },
    port: { type: "string", default: "8000" },
    cache: { type: "string", default: "./kv-cache" },
    models: { type: "string", default: "./models" },
  },
});

/** Prints a line to stderr. */
function say(line: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(`${line}\n`));
}

async function openModel(): Promise<ChatModel> {
  const { model, weights, models } = values;
  if (model === undefined) {
    say("No --model given: using a tiny model with random weights, which generates nonsense.");
    return tinyModel();
  }
  if (await Deno.stat(model).then(({ isDirectory }) => isDirectory, () => false)) {
    return await openModelDirectory(model, weights);
  }
  if (!/^[\w.-]+\/[\w.-]+$/.test(model)) {
    throw new Error(`--model must be a directory or the id of a model, such as owner/name`);
  }
  const directory = await downloadModel(model, {
    endpoint: Deno.env.get("HF_ENDPOINT") ?? "https://huggingface.co",
    directory: models,
    ...(weights === undefined ? {} : { weights }),
    onProgress: showProgress,
  });
  return await openModelDirectory(directory, weights);
}

let shownPercent = "";
function showProgress(path: string, done: number, size: number): void {
  if (!Deno.stderr.isTerminal()) return;
  const percent = `${path} ${Math.floor(100 * done / Math.max(1, size))} %`;
  if (percent === shownPercent) return;
  shownPercent = percent;
  const end = done >= size ? "\n" : "";
  Deno.stderr.writeSync(new TextEncoder().encode(`\r${percent}${end}`));
}

/** Time that connections have to end. */
const STOP_MS = 1000;

ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";
const { id, format, decoder: options } = await openModel();
let isStuck = false;
// A client that neither reads nor sends must not keep the process.
using _end = { [Symbol.dispose]: () => isStuck && Deno.exit() };
using device = await requestEngineDevice();
await using cache = await TieredCache.open({
  device,
  l2: [{ type: "fs", base_path: values.cache }],
});
await using decoder = await OnnxDecoder.open(cache, { ort, ...options });
// The first runs compile shaders, for which no request should wait.
await decoder.prefill(Array(Math.min(64, decoder.contextTokens)).fill(0));
const engine = new ChatEngine(decoder, format, say);
const known = join(values.cache, "conversations.json");
engine.conversations.restore(
  await Deno.readTextFile(known).then(JSON.parse).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return;
    say(`${known} cannot be read, its conversations are tokenized again: ${error.message}`);
  }),
);

const port = Number(values.port);
const server = new ChatServer({
  engine,
  model: id,
  page: await Deno.readTextFile(new URL("./page.html", import.meta.url)),
  apiKeys: (Deno.env.get("KVTIER_CHAT_API_KEYS") ?? "").split(",").filter((key) => key !== ""),
});
const http = Deno.serve({
  hostname: "127.0.0.1",
  port,
  onListen: ({ port }) => {
    server.serves(port);
    say(`${id} on ${decoder.provider} answers at http://localhost:${port}`);
  },
}, server.handle);

const { promise: stopped, resolve: stop } = Promise.withResolvers<void>();
for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, () => stop());
await stopped;
const misses = Object.entries(cache.reportStatus().prefetch.misses)
  .filter(([, count]) => count > 0).map(([reason, count]) => `${reason} ${count}`);
if (misses.length > 0) say(`Prompts that were not cached to their end: ${misses.join(", ")}`);
say("Saving …");
server.stop();
await engine.idle();
const { promise: late, resolve: giveUp } = Promise.withResolvers<boolean>();
const timer = setTimeout(() => giveUp(true), STOP_MS);
isStuck = await Promise.race([http.shutdown().then(() => false), late]);
clearTimeout(timer);
const json = JSON.stringify(engine.conversations);
// What people have written is for the eyes of this user alone.
await Deno.writeTextFile(`${known}.tmp`, json, { mode: 0o600 });
await Deno.rename(`${known}.tmp`, known);
