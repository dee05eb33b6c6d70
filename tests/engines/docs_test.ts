import { assertEquals, assertMatch } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { tempDirectory } from "../support/temp_directory.ts";
import { writeTinyModel } from "../../docs/examples/chat/tiny_model/model_directory.ts";

const ROOT = fromFileUrl(new URL("../../", import.meta.url));
const text = await Deno.readTextFile(join(ROOT, "docs/engines.md"));

/** The program on the page that has a name. */
function programNamed(name: string): string {
  const programs = [...text.matchAll(/^```ts ignore (?<name>\w+)\n(?<code>[^]*?)^```$/gm)];
  const found = programs.find(({ groups }) => groups?.["name"] === name);
  assertEquals(found === undefined, false, name);
  return found?.groups?.["code"] ?? "";
}

async function deno(cwd: string, ...args: string[]): Promise<string> {
  const command = new Deno.Command(Deno.execPath(), {
    args: [...args],
    cwd,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
  const { success, stdout, stderr } = await command.output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  if (!success) throw new Error(`deno ${args.join(" ")} failed: ${out}${err}`);
  return out ?? "";
}

const config = `--config=${join(ROOT, "deno.json")}`;

Deno.test("docs/engines.md: its decoder finds its prompt again in another process", async () => {
  await using directory = await tempDirectory();
  await writeTinyModel(join(directory.path, "model"));
  await Deno.writeTextFile(join(directory.path, "main.ts"), programNamed("onnx"));
  assertMatch(await deno(directory.path, "run", "-A", config, "main.ts"), /^0 of 600 tokens/m);
  assertMatch(await deno(directory.path, "run", "-A", config, "main.ts"), /^512 of 600 tokens/m);
});

Deno.test("docs/engines.md: its program for transformers.js runs", async () => {
  await using directory = await tempDirectory();
  await writeTinyModel(join(directory.path, "model"));
  const program = programNamed("transformers")
    .replace(/^const past = .*$/m, "$&\nconsole.log(past.get_seq_length());");
  await Deno.writeTextFile(join(directory.path, "main.ts"), program);
  assertMatch(await deno(directory.path, "run", "-A", config, "main.ts"), /^0$/m);
  assertMatch(await deno(directory.path, "run", "-A", config, "main.ts"), /^512$/m);
});

Deno.test("docs/engines.md: its program for llama.cpp fits the engine's types", async () => {
  await using directory = await tempDirectory();
  const declaration = fromFileUrl(new URL("./support/node_llama_cpp.ts", import.meta.url));
  const program = programNamed("llama").replace(/npm:node-llama-cpp@[\d.]+/, declaration);
  await Deno.writeTextFile(join(directory.path, "main.ts"), program);
  await deno(directory.path, "check", config, "main.ts");
});
