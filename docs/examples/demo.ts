// deno-lint-ignore-file no-console -- a program prints
/**
 * Shows that the KV of a prompt survives a restart: a small transformer reads a UTF-8 file, the cache
 * writes its K and V to disk, and a new process loads them from there instead of computing them
 * again.
 *
 * `deno task demo [FILE] [--json]`
 *
 * @module
 */
import { walk } from "@std/fs";
import { basename, fromFileUrl } from "@std/path";
import { defineCommand, runMain } from "citty";
import { CHUNK_TOKENS, Engine, type Served } from "./demo/engine.ts";
import { type DemoResult, formatCount, formatReport, progressBar } from "./demo/report.ts";
import { DEMO_CONFIG, kvBytesPerToken } from "./transformer/model_config.ts";

const QUESTION = "\n\nQ: What is it?\nA:";
const README = fromFileUrl(new URL("../../README.md", import.meta.url));

/** Command-line options of the demo. */
interface DemoOptions {
  readonly file: string;
  readonly newTokens: number;
  readonly cacheDir: string | undefined;
  readonly json: boolean;
}

/** Wrong usage, reported in a sentence without a stack trace. */
class UsageError extends Error {}

const command = defineCommand({
  meta: { name: "demo", description: "A prompt's KV survives a restart" },
  args: {
    file: {
      type: "positional",
      required: false,
      description: "UTF-8 text to use as prompt (default: the README)",
    },
    json: { type: "boolean", description: "Print one JSON object instead of a table" },
    generate: { type: "string", default: "8", description: "Tokens to generate in each run" },
    "cache-dir": {
      type: "string",
      description: "Empty directory for the cache, which is kept (default: a temporary one)",
    },
    resume: {
      type: "boolean",
      description: "Only run from disk, with the --cache-dir of an earlier call",
    },
  },
  async run({ args }) {
    try {
      const options: DemoOptions = {
        file: args.file ?? README,
        newTokens: parseCount(args.generate),
        cacheDir: args["cache-dir"],
        json: args.json ?? false,
      };
      if (args.resume) await resume(options);
      else await demo(options);
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      say(error.message);
      Deno.exitCode = 2;
    }
  },
});

if (import.meta.main) await runMain(command, { rawArgs: Deno.args });

/** Runs the four requests and prints the result. */
async function demo(options: DemoOptions): Promise<void> {
  await using directory = await openCacheDir(options.cacheDir);
  const { prompt, isCut } = await readPrompt(options);
  const question = toTokens(QUESTION);
  const request = concat(prompt, question);
  await using engine = await Engine.open(directory.path);
  const { description, isFallback } = engine.cache.reportStatus().device;
  if (engine.cache.device.type === "host") {
    say("No WebGPU adapter found: the same model runs on the CPU, with host memory as L1.");
  }
  if (!options.json) {
    const cut = isCut ? `, cut to the context of ${formatCount(DEMO_CONFIG.contextTokens)}` : "";
    console.log(
      `${basename(options.file)}: ${formatCount(prompt.length)} tokens${cut}, on ${description}\n`,
    );
  }

  const { newTokens } = options;
  const cold = await engine.serve(prompt, newTokens, progressBar("Computing the prompt"));
  await engine.save(prompt);
  // The reference: the question after K and V that never left the model.
  const { logitsSha256 } = await engine.generate(request, prompt.length, newTokens);

  engine.forget();
  const l1 = await engine.serve(request, newTokens);
  const l2 = await runInNewProcess(options, directory.path);

  engine.forget();
  const changedRequest = request.slice();
  const middle = prompt.length >> 1;
  changedRequest[middle] = (changedRequest[middle] ?? 0) ^ 1;
  const bar = progressBar("Computing after the changed token");
  const changed = await engine.serve(changedRequest, newTokens, bar);

  const result: DemoResult = {
    device: description,
    fallback: isFallback,
    promptTokens: prompt.length,
    chunkTokens: CHUNK_TOKENS,
    runs: { cold: { ...cold, logitsSha256 }, l1, l2, changed },
    misses: engine.cache.reportStatus().prefetch.misses,
    identical: l1.logitsSha256 === logitsSha256 && l2.logitsSha256 === logitsSha256,
    bytesOnDisk: await bytesIn(directory.path),
  };
  console.log(
    options.json ? JSON.stringify(result) : formatReport(result, kvBytesPerToken(DEMO_CONFIG)),
  );
  const { store: { failedObjects }, adapters } = engine.cache.reportStatus();
  for (const { lastError } of adapters) {
    if (failedObjects > 0) say(`${failedObjects} chunks could not be stored: ${lastError}`);
  }
  if (!result.identical) Deno.exitCode = 1;
}

/** Serves the request from disk, in a process that has not computed anything. */
async function resume(options: DemoOptions): Promise<void> {
  if (options.cacheDir === undefined) throw new UsageError("--resume needs --cache-dir");
  const { prompt } = await readPrompt(options);
  await using engine = await Engine.open(options.cacheDir);
  const served = await engine.serve(concat(prompt, toTokens(QUESTION)), options.newTokens);
  console.log(JSON.stringify(served));
}

async function runInNewProcess(options: DemoOptions, cacheDir: string): Promise<Served> {
  const command = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--allow-read",
      "--allow-write",
      "--allow-env",
      "--allow-sys=uid",
      import.meta.url,
      options.file,
      "--resume",
      `--cache-dir=${cacheDir}`,
      `--generate=${options.newTokens}`,
    ],
    stderr: "inherit",
  });
  const { success, stdout } = await command.output();
  if (!success) throw new Error("The new process failed: see its output above");
  return JSON.parse(new TextDecoder().decode(stdout));
}

async function readPrompt(
  { file, newTokens }: DemoOptions,
): Promise<{ prompt: Uint32Array; isCut: boolean }> {
  const bytes = await Deno.readFile(file).catch((error: Error) => {
    throw new UsageError(`FILE must be a readable text file: ${file}: ${error.message}`);
  });
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new UsageError(`FILE must be UTF-8 text: ${file} is not`);
  }
  if (bytes.length < 2 * CHUNK_TOKENS) {
    throw new UsageError(
      `FILE must have at least ${2 * CHUNK_TOKENS} bytes: ${file} has ${bytes.length}`,
    );
  }
  const maxTokens = DEMO_CONFIG.contextTokens - toTokens(QUESTION).length - newTokens;
  const prompt = Uint32Array.from(bytes.subarray(0, maxTokens));
  return { prompt, isCut: bytes.length > maxTokens };
}

async function openCacheDir(
  given: string | undefined,
): Promise<{ path: string } & AsyncDisposable> {
  if (given === undefined) {
    const path = await Deno.makeTempDir({ prefix: "kvtier-demo-" });
    return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
  }
  if (await bytesIn(given) > 0) {
    throw new UsageError(`--cache-dir must be empty for the cold run: ${given} is not`);
  }
  return { path: given, [Symbol.asyncDispose]: () => Promise.resolve() };
}

async function bytesIn(directory: string): Promise<number> {
  let bytes = 0;
  try {
    for await (const { path } of walk(directory, { includeDirs: false })) {
      bytes += (await Deno.stat(path)).size;
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return bytes;
}

function toTokens(text: string): Uint32Array {
  return Uint32Array.from(new TextEncoder().encode(text));
}

function concat(a: Uint32Array, b: Uint32Array): Uint32Array {
  return Uint32Array.of(...a, ...b);
}

function parseCount(text: string): number {
  const count = Number(text);
  if (Number.isInteger(count) && count >= 1 && count <= 256) return count;
  throw new UsageError(`--generate must be an integer from 1 to 256: received ${text}`);
}

function say(text: string): void {
  console.error(text);
}
