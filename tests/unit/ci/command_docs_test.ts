import { assertEquals } from "@std/assert";
import { commandPage, withCommands } from "../../../.ci/command_docs.ts";

Deno.test("docs/command-line.md says what the commands declare: deno task docs writes it", async () => {
  const text = await Deno.readTextFile(commandPage);
  assertEquals(text, await withCommands(text));
});
