import { assert, assertEquals, assertMatch } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { tempDirectory } from "../support/temp_directory.ts";
import { writeTinyTokenizer } from "./support/tiny_tokenizer.ts";
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

for (const name of ["onnx", "transformers", "llama"]) {
  Deno.test(`docs/engines.md: the chat with ${name} has fewer than 40 lines`, () => {
    const lines = programNamed(name).trimEnd().split("\n");
    assert(lines.length < 40, `${lines.length}`);
  });
}

for (const name of ["onnx", "transformers"]) {
  Deno.test(`docs/engines.md: the chat with ${name} goes on in another process`, async () => {
    await using directory = await tempDirectory();
    await writeTinyModel(join(directory.path, "model"));
    await writeTinyTokenizer(join(directory.path, "model"));
    await Deno.writeTextFile(join(directory.path, "main.ts"), programNamed(name));
    const ask = (question: string): Promise<string> =>
      deno(directory.path, "run", "-A", config, "main.ts", question);
    const document = "The sea is deep, and the keeper of the light knows it. ".repeat(10);
    assertMatch(await ask(document), /^0 of 5\d\d tokens came from the cache$/m);
    assertMatch(await ask("Who knows it?"), /^512 of [67]\d\d tokens came from the cache$/m);
    const chat = JSON.parse(await Deno.readTextFile(join(directory.path, "chat.json")));
    assertEquals(
      chat.map(({ role }: { role: string }) => role),
      ["user", "assistant", "user", "assistant"],
    );
  });
}

Deno.test("docs/engines.md: its program for llama.cpp fits the engine's types", async () => {
  await using directory = await tempDirectory();
  const declaration = fromFileUrl(new URL("./support/node_llama_cpp.ts", import.meta.url));
  const program = programNamed("llama").replace(/npm:node-llama-cpp@[\d.]+/, declaration);
  await Deno.writeTextFile(join(directory.path, "main.ts"), program);
  await deno(directory.path, "check", config, "main.ts");
});
