import {
  assert,
  assertEquals,
  assertGreater,
  assertLess,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { tempDirectory } from "../support/temp_directory.ts";

const DEMO = fromFileUrl(new URL("../../docs/examples/demo.ts", import.meta.url));
const CHUNK_TOKENS = 64;

interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function runDemo(
  args: string[],
  options: { env?: Record<string, string>; flags?: string[] } = {},
): Promise<Outcome> {
  const { env = {}, flags = [] } = options;
  const command = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-RW",
      "--allow-run",
      "--allow-env",
      "--allow-sys=uid",
      "--no-prompt",
      ...flags,
      DEMO,
      ...args,
    ],
    env: { NO_COLOR: "1", ...env },
  });
  const { code, stdout, stderr } = await command.output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** A file of varying words. */
async function writeText(directory: string, bytes: number): Promise<string> {
  const words = Array.from({ length: bytes }, (_, i) => (i * i % 9973).toString(36)).join(" ");
  const path = join(directory, "prompt.txt");
  await Deno.writeTextFile(path, words.slice(0, bytes));
  return path;
}

function assertReuse(outcome: Outcome, promptTokens: number): void {
  assertEquals(outcome.code, 0, outcome.stderr);
  const result = JSON.parse(outcome.stdout);
  const complete = Math.floor(promptTokens / CHUNK_TOKENS) * CHUNK_TOKENS;
  const { cold, l1, l2, changed } = result.runs;
  assertEquals(result.promptTokens, promptTokens);
  assertEquals(cold.hitTokens, 0);
  assertEquals(l1.hitTokens, complete);
  assertEquals(l2.hitTokens, complete);
  const middle = promptTokens >> 1;
  assertEquals(changed.hitTokens, Math.floor(middle / CHUNK_TOKENS) * CHUNK_TOKENS);
  assert(result.identical);
  assertEquals(l1.logitsSha256, cold.logitsSha256);
  assertEquals(l2.logitsSha256, cold.logitsSha256);
  assert(changed.logitsSha256 !== cold.logitsSha256, "another prompt gives other logits");
  assertGreater(result.bytesOnDisk, complete * 2048);
}

Deno.test("demo: a prompt of 4,096 tokens survives a restart bit for bit", async (t) => {
  const isGpu = await navigator.gpu.requestAdapter() !== null;
  if (!isGpu && Deno.env.get("KVTIER_REQUIRE_GPU") === "1") throw new Error("No WebGPU adapter");
  if (!isGpu) await t.step("no WebGPU adapter: run on the CPU", () => {});
  const directory = await Deno.makeTempDir();
  try {
    const outcome = await runDemo([await writeText(directory, 4096), "--json"]);
    assertReuse(outcome, 4096);
    if (isGpu) assert(JSON.parse(outcome.stdout).device !== "host memory");
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("demo: without a WebGPU adapter it says so and runs on the host device", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const file = await writeText(directory, 500);
    const outcome = await runDemo([file, "--json"], { env: { DENO_WEBGPU_BACKEND: "none" } });
    assertReuse(outcome, 500);
    assertEquals(JSON.parse(outcome.stdout).device, "host memory");
    assertStringIncludes(outcome.stderr, "No WebGPU adapter found");
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("demo: prints a table, and how to do the same with a real model", async () => {
  await using directory = await tempDirectory();
  const file = await writeText(directory.path, 200);
  const { code, stdout, stderr } = await runDemo([file], { env: { DENO_WEBGPU_BACKEND: "none" } });
  assertEquals(code, 0, stderr);
  assertMatch(stdout, /^warm: the same in a new process, from disk +192 of 200 /m);
  const lastLine = stdout.trimEnd().split("\n").at(-1);
  assertEquals(lastLine, "With a real model: deno task chat --model owner/name");
});

Deno.test("demo: answers when the cache directory cannot be written", async () => {
  const directory = await Deno.makeTempDir();
  const cacheDir = await Deno.makeTempDir();
  try {
    const file = await writeText(directory, 500);
    const flags = [`--deny-write=${cacheDir}`];
    const outcome = await runDemo([file, "--json", `--cache-dir=${cacheDir}`], { flags });
    assertEquals(outcome.code, 0, outcome.stderr);
    const { identical, runs, bytesOnDisk } = JSON.parse(outcome.stdout);
    assert(identical);
    assertEquals(runs.l2.hitTokens, 0);
    // The new process has write permission and created its ledger, which is small.
    assertLess(bytesOnDisk, 1000);
    assertStringIncludes(outcome.stderr, "7 chunks could not be stored");
  } finally {
    await Deno.remove(directory, { recursive: true });
    await Deno.remove(cacheDir, { recursive: true });
  }
});

Deno.test("demo: wrong usage is reported in a sentence, not a stack trace", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const binary = join(directory, "binary");
    await Deno.writeFile(binary, new Uint8Array(1000).fill(0xff));
    const short = join(directory, "short");
    await Deno.writeTextFile(short, "short");
    const full = join(directory, "full");
    await Deno.mkdir(full);
    await Deno.writeTextFile(join(full, "something"), "x");
    const text = await writeText(directory, 500);
    const cases: [args: string[], message: string][] = [
      [[join(directory, "absent")], "FILE must be a readable text file"],
      [[binary], "FILE must be UTF-8 text"],
      [[short], "FILE must have at least 128 bytes"],
      [[text, "--generate=0"], "--generate must be an integer from 1 to 256: received 0"],
      [[text, `--cache-dir=${full}`], "--cache-dir must be empty"],
      [[text, "--resume"], "--resume needs --cache-dir"],
    ];
    for (const [args, message] of cases) {
      const { code, stderr } = await runDemo(args);
      assertEquals(code, 2, message);
      assertStringIncludes(stderr, message);
      assertEquals(stderr.split("\n").filter((line) => line.startsWith("    at ")), []);
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
