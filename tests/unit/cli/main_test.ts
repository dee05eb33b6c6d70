import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import packageConfig from "../../../deno.json" with { type: "json" };
import {
  type CliCommand,
  type CommandGroup,
  parse as parseCommandArgs,
} from "../../../src/cli/command.ts";
import { kvtier as allCommands } from "../../../src/cli/commands.ts";
import { childCommand } from "../../support/child.ts";
import { runForJson, runKvtier } from "../../support/cli.ts";
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

/** All commands with their names. */
function commandsIn(
  group: CommandGroup,
  names: readonly string[] = [],
): [names: string[], command: CliCommand][] {
  return Object.entries(group.commands).flatMap(([name, command]) => {
    const path = [...names, name];
    return "commands" in command ? commandsIn(command, path) : [[path, command]];
  });
}

Deno.test("kvtier --help needs no permission", async () => {
  const [code, out, err] = await kvtier(["models", "-h"], []);
  assertEquals([code, err], [0, ""]);
  assertStringIncludes(out, "Usage: kvtier models");
  assertEquals(await kvtier(["--version"], []), [0, `${packageConfig.version}\n`, ""]);
});

Deno.test("kvtier: every command has help with permissions and examples that its parser takes", async () => {
  const { out } = await runKvtier(["--help"]);
  for (const [names, command] of commandsIn(allCommands)) {
    assertStringIncludes(out, `  ${names[0]} `);
    for (const flag of ["--help", "-h"]) {
      const help = await runKvtier([...names, flag]);
      assertEquals([help.code, help.err], [0, ""]);
      assertStringIncludes(help.out, `Usage: kvtier ${names.join(" ")}`);
    }
    assert(command.examples.length > 0 && command.permissions.length > 0, names.join(" "));
    for (const example of command.examples) {
      const words = example.replace(/ [>|].*$/, "").match(/'[^']*'|\S+/g)?.map((word) =>
        word.replaceAll("'", "")
      ) ?? [];
      assertEquals(words.slice(0, names.length), names);
      parseCommandArgs(names.join(" "), command, words.slice(names.length));
    }
  }
});

const wrongUsage: readonly [args: string[], message: string][] = [
  [[], "Usage: kvtier COMMAND"],
  [["modls"], "kvtier: expected a command: did you mean models?"],
  [["new"], "Usage: kvtier new COMMAND"],
  [["adapters", "fs", "mock"], "kvtier adapters: arguments: expected one TYPE"],
  [["adapters", "fss"], "perhaps fs"],
  [["check", "fs"], "kvtier check: arguments: expected no arguments"],
  [["check"], "--l2-adapter: expected an adapter in JSON"],
  [["models", "--adapter-dir", "x"], "did you mean --adapters-dir?"],
  [["models", "--remove", "--unused-days=3"], "--remove: expected a value: MODEL"],
  [["models", "--remove=a", "--remove=b"], "--remove: expected it once"],
  [["models", "--remove-unused=yes"], "--remove-unused: expected no value"],
  [["new", "adapter", "a", "b"], "kvtier new adapter: arguments: expected one NAME"],
];
Deno.test("kvtier reports wrong usage in a sentence on stderr, and exit code 2", async () => {
  for (const [args, message] of wrongUsage) {
    const { code, out, err } = await runKvtier(args);
    assertEquals([code, out], [2, ""], args.join(" "));
    assertStringIncludes(err, message);
    assert(!err.includes("    at "), err);
    if (args.length === 0) continue;
    const asJson = await runForJson(args);
    assertEquals([asJson.code, asJson.err], [2, err]);
    assertEquals(`${asJson.json.error}\n`, err);
  }
});

Deno.test("kvtier models does not create a mistyped directory", async () => {
  await using directory = await tempDirectory();
  const missing = join(directory.path, "mistyped");
  const pool = { "pool_size": 4, "backend_params": { file_path: missing } };
  for (const config of [{ type: "fs", base_path: missing }, { type: "file_pool", ...pool }]) {
    const args = ["models", "--l2-adapter", JSON.stringify(config)];
    const { code, err } = await runKvtier(args);
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
  assertEquals(await runKvtier(args), { code: 0, out: "No models\n", err: "" });
  const { code, out } = await runKvtier([...args, "--remove", "llama"]);
  assertEquals([code, out], [1, "No models\nllama: there are no objects of this model\n"]);
});
