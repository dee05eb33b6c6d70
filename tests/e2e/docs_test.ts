import { assert, assertEquals } from "@std/assert";
import { walk } from "@std/fs";
import { basename, dirname, fromFileUrl, join, relative } from "@std/path";
import { openFs } from "../support/fs_adapter.ts";
import { testKey, testLayout } from "../support/objects.ts";
import { sealedObject } from "../support/sealed_objects.ts";

const ROOT = fromFileUrl(new URL("../../", import.meta.url));

/** Commands of the documentation that are tested elsewhere, and where. */
const RUN_ELSEWHERE: ReadonlyMap<string, string> = new Map([
  ["npx -y deno@2.9.6 task demo", "tests/e2e/demo_test.ts runs the demo"],
  ["npx -y deno@2.9.6 task test", ".ci/run runs this very command"],
  ["deno task ok", ".ci/run runs its parts"],
  ["bash .ci/run", "it is what runs this test"],
  ["deno add jsr:@kvtier/kvtier", "needs the published package"],
  ["deno task test:long", ".ci/run runs this very command"],
  [
    `deno task kvtier serve --l2-adapter '{"type":"fs","base_path":"./kv-cache"}'`,
    "runs until it is stopped: tests/unit/cli/serve_test.ts",
  ],
  [
    "deno task kvtier serve --l2-config l2.jsonc --hostname 0.0.0.0 --token-file token",
    "runs until it is stopped: tests/unit/cli/serve_test.ts",
  ],
  [
    "deno run -A tests/bench/gate_traces.ts conversation_trace.jsonl synthetic_trace.jsonl",
    "needs the traces: tests/sim/gate_test.ts runs the same on requests of their kind",
  ],
  [
    "deno task kvtier simulate conversation_trace.jsonl synthetic_trace.jsonl",
    "needs the traces: tests/unit/cli/simulate_test.ts runs it on a small one",
  ],
  ["deno task bench:lmcache", "needs LMCache, which is installed separately"],
  ["deno task bench --only event-loop", "tests/unit/bench/program_test.ts moves less"],
  ["deno task bench", "tests/unit/bench/program_test.ts runs it with one round"],
  ["deno task bench:l2", "tests/unit/bench/l2_program_test.ts runs it with few rounds"],
]);

/** Commands of the fault lab, whose tests `deno task test:long` runs in their short form. */
const FAULT_TEST = /^deno task test:fault (tests\/fault\/\w+_test\.ts)( -- --runs \d+)?$/;

/** Parts that the README leaves to the reader: an engine's device, prompt and KV. */
const README_PRELUDE = `
import { HostDevice } from "@kvtier/kvtier";
const gpu = await (await navigator.gpu.requestAdapter())?.requestDevice();
const device = gpu ?? new HostDevice();
const user = "a-tenant";
const tokens = Uint32Array.from({ length: 600 }, (_, i) => i % 97);
const tensor = () => gpu?.createBuffer({ size: 600 * 8 * 128 * 2, usage: 4 | 8 | 128 }) ??
  new Uint8Array(600 * 8 * 128 * 2);
const kv = Array.from({ length: 28 }, () => ({ key: tensor(), value: tensor() }));
`;
const README_CHECK = `
using again = await prefixes.match(tokens, { salt: user });
using other = await prefixes.match(tokens, { salt: "another-tenant" });
if (again.tokens !== 512 || other.tokens !== 0) throw new Error(again.tokens + " " + other.tokens);
for (const { key, value } of kv) for (const t of [key, value]) if (!(t instanceof Uint8Array)) t.destroy();
`;

interface Block {
  readonly file: string;
  readonly info: string;
  readonly text: string;
}

/** All fenced blocks of all Markdown files. */
async function readBlocks(): Promise<Block[]> {
  const files = ["README.md", "CONTRIBUTING.md"].map((name) => join(ROOT, name));
  for await (const { path } of walk(join(ROOT, "docs"), { exts: [".md"] })) files.push(path);
  const blocks: Block[] = [];
  for (const path of files.sort()) {
    const text = await Deno.readTextFile(path);
    for (const match of text.matchAll(/^```(?<info>.*)\n(?<text>[^]*?)^```$/gm)) {
      const { info = "", text = "" } = match.groups ?? {};
      blocks.push({ file: relative(ROOT, path), info, text });
    }
  }
  return blocks;
}

/** A copy of the published files, with the files that the documentation tells the reader to create. */
async function makeWorkplace(blocks: readonly Block[]): Promise<string> {
  const copy = await Deno.makeTempDir({ prefix: "kvtier-docs-" });
  for (const name of ["deno.json", "mod.ts"]) {
    await Deno.copyFile(join(ROOT, name), join(copy, name));
  }
  for (const name of ["src", "adapters", ".ci", "tests/bench"]) {
    for await (const { path } of walk(join(ROOT, name), { includeDirs: false })) {
      const target = join(copy, relative(ROOT, path));
      await Deno.mkdir(dirname(target), { recursive: true });
      await Deno.copyFile(path, target);
    }
  }
  const adapter = blocks.filter(({ file, info }) =>
    basename(file) === "write-an-adapter.md" && info === "ts"
  );
  assertEquals(adapter.length, 1);
  await Deno.mkdir(join(copy, "my-adapters"));
  await Deno.writeTextFile(join(copy, "my-adapters/sqlite.ts"), adapter[0]?.text ?? "");
  await Deno.mkdir(join(copy, "kv-cache/tmp"), { recursive: true });
  // The model that the documentation removes must exist.
  await using cache = await openFs({ base_path: join(copy, "kv-cache") });
  const { signal } = new AbortController();
  const key = testKey(1, { model: "llama-2" });
  await cache.store([sealedObject(key, testLayout(1024))], { signal });
  return copy;
}

async function run(cwd: string, command: string[]): Promise<void> {
  const [program = "", ...args] = command;
  const env = { NO_COLOR: "1" };
  const { success, stdout, stderr } = await new Deno.Command(program, { args, cwd, env }).output();
  const decoder = new TextDecoder();
  assert(success, `${command.join(" ")}\n${decoder.decode(stdout)}${decoder.decode(stderr)}`);
}

Deno.test("documentation: every command and snippet runs as written", async (t) => {
  const blocks = await readBlocks();
  const copy = await makeWorkplace(blocks);
  const unused = new Set(RUN_ELSEWHERE.keys());
  try {
    const readme = blocks.find(({ file, info }) => file === "README.md" && info === "ts ignore");
    await Deno.writeTextFile(
      join(copy, "main.ts"),
      README_PRELUDE + readme?.text + README_CHECK,
    );
    for (const { file, text } of blocks.filter(({ info }) => info === "sh")) {
      for (const line of text.trim().split("\n")) {
        if (RUN_ELSEWHERE.has(line)) {
          unused.delete(line);
          continue;
        }
        const [, faultTest] = FAULT_TEST.exec(line) ?? [];
        if (faultTest !== undefined) {
          assert((await Deno.stat(join(ROOT, faultTest))).isFile);
          continue;
        }
        await t.step(`${file}: ${line}`, async () => {
          const command = line.replace(/^(npx -y )?deno(@[\d.]+)? /, `'${Deno.execPath()}' `);
          await run(copy, ["sh", "-c", command]);
        });
      }
    }
    const snippets = blocks.filter(({ info }) => info === "ts ignore")
      .filter(({ file }) => file !== "README.md") // main.ts, which docs/safety.md runs
      .map(({ file, text }, i) => {
        const isTest = text.includes("/testing");
        const path = isTest ? `my-adapters/snippet_${i}_test.ts` : `snippet_${i}.ts`;
        return { file, text, path, command: isTest ? "test" : "run" };
      });
    for (const { path, text } of snippets) await Deno.writeTextFile(join(copy, path), text);
    await t.step("types of all snippets", async () => {
      await run(copy, [Deno.execPath(), "check", "main.ts", ...snippets.map(({ path }) => path)]);
    });
    for (const { file, path, command } of snippets) {
      await t.step(`${file}: ${path}`, async () => {
        await run(copy, [Deno.execPath(), command, "-A", "--no-check", path]);
      });
    }
    assertEquals([...unused], [], "commands that are on no page");
  } finally {
    await Deno.remove(copy, { recursive: true });
  }
});

Deno.test("documentation: every relative link has a target", async () => {
  for await (const { path } of walk(ROOT, { exts: [".md"], skip: [/\/\./, /node_modules/] })) {
    const text = await Deno.readTextFile(path);
    for (const [, target = ""] of text.matchAll(/\]\((?!https?:|#)([^)#]+)[^)]*\)/g)) {
      await Deno.stat(join(dirname(path), target)).catch(() => {
        throw new Error(`${relative(ROOT, path)} links to ${target}, which does not exist`);
      });
    }
  }
});
