import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { join, toFileUrl } from "@std/path";
import { adaptersDirectory, builtInAdapters } from "../../../adapters/mod.ts";
import { builtInAdapterSources, discoverAdapters } from "../../../src/l2/adapter_discovery.ts";
import { directoryOf, moduleSource } from "../../support/module_files.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

const adapters = new URL("../../../adapters/", import.meta.url);

async function namesIn(directory: string | URL): Promise<string[]> {
  return (await discoverAdapters(directory)).map(({ name }) => name);
}

Deno.test("modules are found by their extension, sorted by name", async () => {
  await using directory = await directoryOf({ "c.ts": "", "a.js": "", "d.mjs": "", "b.mts": "" });
  assertEquals(await namesIn(directory.path), ["a", "b", "c", "d"]);
});

Deno.test("what is no adapter module is skipped", async () => {
  await using directory = await directoryOf({
    "kept.ts": "",
    "my_test_adapter.ts": "",
    "_private.ts": "",
    ".hidden.ts": "",
    ".ts": "",
    "mod.ts": "",
    "mod.js": "",
    "kept_test.ts": "",
    "kept.test.ts": "",
    "types.d.ts": "",
    "README.md": "",
    "data.json": "{}",
    "view.tsx": "",
    "kept.ts~": "",
    "kept.ts.bak": "",
    "noextension": "",
  });
  await Deno.mkdir(join(directory.path, "directory.ts"));
  assertEquals(await namesIn(directory.path), ["kept", "my_test_adapter"]);
});

Deno.test("an empty directory has no modules", async () => {
  await using directory = await tempDirectory();
  assertEquals(await namesIn(directory.path), []);
});

Deno.test("modules and directories may have any name", async () => {
  const names = ["a b", "c#d", "e%f", "g%20h", "i?j", "k+l", "m&n", "ö", "🤖", "x.y"];
  const files = Object.fromEntries(names.map((name) => [`${name}.ts`, moduleSource("found")]));
  await using outer = await directoryOf({});
  const inner = join(outer.path, "with space, # and %41 ?");
  await Deno.mkdir(inner);
  for (const [name, text] of Object.entries(files)) {
    await Deno.writeTextFile(join(inner, name), text);
  }
  for (const directory of [inner, toFileUrl(inner), new URL(`${toFileUrl(inner)}/`)]) {
    const sources = await discoverAdapters(directory);
    assertEquals(sources.map(({ name }) => name).sort(), names.toSorted());
    for (const { load, origin } of sources) {
      const namespace = await load();
      assert(typeof namespace === "object" && namespace !== null && "default" in namespace);
      assertMatch(origin, /^file:\/\//);
    }
  }
});

Deno.test("a relative path starts at the working directory", async () => {
  assertEquals(await namesIn("adapters"), await namesIn(adapters));
});

Deno.test("listing imports nothing", async () => {
  await using directory = await directoryOf({ "broken.ts": "throw new Error('imported');" });
  const [source] = await discoverAdapters(directory.path);
  assertEquals(source?.name, "broken");
  await assertRejects(async () => await source?.load(), Error, "imported");
});

Deno.test("a directory that does not exist, or is a file, or is far away, is an error", async () => {
  await using directory = await directoryOf({ "file.ts": "" });
  const file = join(directory.path, "file.ts");
  await assertRejects(() => discoverAdapters(join(directory.path, "none")), Deno.errors.NotFound);
  await assertRejects(() => discoverAdapters(file), Deno.errors.NotADirectory);
  await assertRejects(() => discoverAdapters(new URL("https://host.invalid/")), TypeError);
});

Deno.test("the table of this package's adapters says what the directory says", async () => {
  assertEquals(Object.keys(builtInAdapters), await namesIn(adapters));
  for (const source of await builtInAdapterSources(adapters, {})) {
    const namespace = await source.load();
    assertEquals(namespace, await builtInAdapters[source.name]?.());
    const { default: { type } } = namespace as { default: { type: string } };
    assertEquals(type, source.name, "a file is named after its type");
  }
});

Deno.test("where there is no directory, the table names this package's adapters", async () => {
  const remote = new URL("https://host.invalid/adapters/");
  const sources = await builtInAdapterSources(remote, builtInAdapters);
  assertEquals(sources.map(({ name }) => name), Object.keys(builtInAdapters));
  const fs = sources.find(({ name }) => name === "fs");
  assertEquals(fs?.origin, "https://host.invalid/adapters/fs.ts");
});

Deno.test("in a bundle, there is no directory: the table alone names the adapters", async () => {
  const sources = await builtInAdapterSources(undefined, builtInAdapters);
  assertEquals(sources.map(({ name }) => name), Object.keys(builtInAdapters));
  assertEquals(sources[0]?.origin, "built in: connector");
  assertEquals(adaptersDirectory, adapters);
});
