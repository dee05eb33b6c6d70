import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import packageConfig from "../../../deno.json" with { type: "json" };
import { childCommand } from "../../support/child.ts";
import { directoryOf } from "../../support/module_files.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

const program = new URL("../../../src/cli/main.ts", import.meta.url);

/** Runs `kvtier`; its exit code, and what it printed where answers and where errors go. */
async function kvtier(
  args: readonly string[],
  permissions: readonly string[] = ["-A"],
): Promise<[code: number, out: string, err: string]> {
  const command = childCommand(program, { args, permissions: ["--no-prompt", ...permissions] });
  const { code, stdout, stderr } = await command.output();
  const [out = "", err = ""] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assert(!`${out}${err}`.includes("\u001b"), "no colours without a terminal");
  return [code, out, err];
}

Deno.test("kvtier --help needs no permission, for no command", async () => {
  const commands = [[], ["adapters"], ["check"], ["models"], ["new"], ["new", "adapter"]];
  await Promise.all(commands.flatMap((command) =>
    ["--help", "-h"].map(async (flag) => {
      const [code, out, err] = await kvtier([...command, flag], []);
      assertEquals([code, err], [0, ""]);
      assertStringIncludes(out, `Usage: ${["kvtier", ...command].join(" ")}`);
    })
  ));
  assertEquals(await kvtier(["--version"], []), [0, `${packageConfig.version}\n`, ""]);
});

const wrongUsage: readonly [args: string[], message: string][] = [
  [[], "Usage: kvtier COMMAND"],
  [["modls"], "kvtier: expected a command: did you mean models?"],
  [["new"], "Usage: kvtier new COMMAND"],
  [["adapters", "fs", "mock"], "kvtier adapters: arguments: expected one TYPE"],
  [["adapters", "fss"], "perhaps fs"],
  [["check", "fs"], "kvtier check: arguments: expected no arguments"],
  [["check"], "--l2-adapter: expected an adapter in JSON"],
  [["models", "--adapter-dir", "x"], "kvtier models: expected --adapters-dir"],
  [["models", "--remove", "--unused-days=3"], "--remove: expected a value: MODEL"],
  [["models", "--remove=a", "--remove=b"], "--remove: expected it once"],
  [["models", "--remove-unused=yes"], "--remove-unused: expected no value"],
  [["new", "adapter", "a", "b"], "kvtier new adapter: arguments: expected one NAME"],
];
Deno.test("kvtier reports wrong usage in a sentence on stderr, and exit code 2", async () => {
  await Promise.all(wrongUsage.map(async ([args, message]) => {
    const [code, out, err] = await kvtier(args);
    assertEquals([code, out], [2, ""], args.join(" "));
    assertStringIncludes(err, message);
    assert(err.split("\n").length <= 12, err);
    assert(!err.includes("    at "), err);
  }));
});

Deno.test("kvtier models does not create a mistyped directory", async () => {
  await using directory = await tempDirectory();
  const missing = join(directory.path, "mistyped");
  const pool = { "pool_size": 4, "backend_params": { file_path: missing } };
  for (const config of [{ type: "fs", base_path: missing }, { type: "file_pool", ...pool }]) {
    const args = ["models", "--l2-adapter", JSON.stringify(config)];
    const [code, , err] = await kvtier(args);
    assertEquals(code, 2, err);
    assertStringIncludes(err, "expected a directory that exists");
  }
  assertEquals(await Array.fromAsync(Deno.readDir(directory.path)), []);
});

Deno.test("kvtier models finds adapters in a directory; a negative result has exit code 1", async () => {
  await using directory = await directoryOf({
    "shelf.ts": `export default {
      type: "shelf", summary: "Written by a test.", config: {},
      create: () => ({
        capabilities: {},
        store() {}, lookupAndLock() {}, load() {},
        async *list() {},
        [Symbol.asyncDispose]: () => Promise.resolve(),
      }),
    };`,
  });
  const args = ["models", "--l2-adapter", '{"type":"shelf"}', "--adapters-dir", directory.path];
  assertEquals(await kvtier(args), [0, "No models\n", ""]);
  const [code, out] = await kvtier([...args, "--remove", "llama"]);
  assertEquals([code, out], [1, "No models\nllama: there are no objects of this model\n"]);
});
