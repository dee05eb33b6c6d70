import { assertEquals } from "@std/assert";
import { page, withDeclarations } from "../../../.ci/adapter_docs.ts";
import { builtInAdapters } from "../../../adapters/mod.ts";

Deno.test("docs/adapters.md says what the adapters declare: deno task docs writes it", async () => {
  const text = await Deno.readTextFile(page);
  const declared = await withDeclarations(text);
  assertEquals(text, declared.text);
  assertEquals(declared.types.sort(), Object.keys(builtInAdapters).sort());
});
