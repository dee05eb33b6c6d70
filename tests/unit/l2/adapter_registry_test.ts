import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join, toFileUrl } from "@std/path";
import { type AdapterSource, discoverAdapters } from "../../../src/l2/adapter_discovery.ts";
import { ConfigError } from "../../../src/base/config_error.ts";
import { AdapterRegistry } from "../../../src/l2/adapter_registry.ts";
import { directoryOf, moduleSource } from "../../support/module_files.ts";

const BROKEN: Readonly<Record<string, string>> = {
  "throws.ts": "throw new Error('no such library');",
  "nothing.ts": "",
  "named.ts": "export const type = 'named';",
  "text.ts": "export default 'text';",
  "bare.ts": "export default {};",
  "null.ts": "export default null;",
  "shouting.ts": "export default { type: 'X', summary: '', config: {}, create() {} };",
  "syntax.ts": "export default {",
};

/** A registry of the modules in these files; `builtIn` lists built-in ones. */
async function openRegistry(
  files: Readonly<Record<string, string>>,
  builtIn: Readonly<Record<string, string>> = {},
): Promise<{ registry: AdapterRegistry; urlOf: (name: string) => string } & AsyncDisposable> {
  await using cleanup = new AsyncDisposableStack();
  const [custom, own] = [await directoryOf(files), await directoryOf(builtIn)];
  cleanup.use(custom);
  cleanup.use(own);
  const registry = new AdapterRegistry({
    custom: await discoverAdapters(custom.path),
    builtIn: await discoverAdapters(own.path),
  });
  const owned = cleanup.move();
  const urlOf = (name: string): string =>
    toFileUrl(join(name in files ? custom.path : own.path, name)).href;
  return { registry, urlOf, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

Deno.test("a type is resolved to its module, built in or not, whatever its file's name", async () => {
  await using opened = await openRegistry({ "any-name.ts": moduleSource("custom") }, {
    "own.ts": moduleSource("own"),
  });
  assertEquals((await opened.registry.resolve("custom")).type, "custom");
  assertEquals((await opened.registry.resolve("own")).type, "own");
  assertEquals(await opened.registry.resolve("own"), await opened.registry.resolve("own"));
});

Deno.test("broken modules affect only themselves", async () => {
  await using opened = await openRegistry({ ...BROKEN, "good.ts": moduleSource("good") });
  assertEquals((await opened.registry.resolve("good")).type, "good");
  const { loaded, failed } = await opened.registry.list();
  assertEquals(loaded.map(({ module }) => module.type), ["good"]);
  assertEquals(failed.map(({ name }) => `${name}.ts`).sort(), Object.keys(BROKEN).sort());
});

Deno.test("an unknown type lists those known, and modules that failed with their reasons", async () => {
  await using opened = await openRegistry({ ...BROKEN, "good.ts": moduleSource("good") }, {
    "own.ts": moduleSource("own"),
  });
  const error = await assertRejects(() => opened.registry.resolve("gud"), ConfigError);
  assertEquals(error.expected, "one of good, own, perhaps good");
  assertEquals(error.received, "gud");
  for (const name of Object.keys(BROKEN)) {
    const line = error.message.split("\n").find((line) => line.includes(opened.urlOf(name)));
    assert(line !== undefined, `${name} is missing`);
    const reason = { "throws.ts": "Error: no such library", "syntax.ts": "SyntaxError" }[name];
    assertStringIncludes(line, reason ?? "Default export must be made by defineL2Adapter()");
  }
});

Deno.test("an unknown type without broken modules says no more than it must", async () => {
  await using opened = await openRegistry({}, { "own.ts": moduleSource("own") });
  const error = await assertRejects(() => opened.registry.resolve("other"), ConfigError);
  assertEquals(error.message, 'Adapter type: expected one of own: received "other"');
});

Deno.test("a type of LMCache that has another name here is refused with what to use instead", async () => {
  await using opened = await openRegistry({}, { "fs.ts": moduleSource("fs") });
  const error = await assertRejects(() => opened.registry.resolve("fs_native"), ConfigError);
  for (const word of ["fs with file_layout", "io_concurrency", "pad_files"]) {
    assertStringIncludes(error.message, word);
  }
});

Deno.test("the type that a broken file is named after is refused with its reason", async () => {
  await using opened = await openRegistry(BROKEN);
  const error = await assertRejects(() => opened.registry.resolve("throws"), ConfigError);
  assertStringIncludes(error.message, opened.urlOf("throws.ts"));
  assertStringIncludes(error.message, "Error: no such library");
  assert(error.cause instanceof Error);
});

Deno.test("two modules of one type are refused, and both are named", async () => {
  await using opened = await openRegistry({
    "one.ts": moduleSource("twin"),
    "two.ts": moduleSource("twin"),
    "other.ts": moduleSource("other"),
  });
  const error = await assertRejects(() => opened.registry.resolve("twin"), ConfigError);
  assertStringIncludes(error.message, opened.urlOf("one.ts"));
  assertStringIncludes(error.message, opened.urlOf("two.ts"));
  assertEquals((await opened.registry.resolve("other")).type, "other");
});

Deno.test("a module that takes the type of a built-in one is refused", async () => {
  await using opened = await openRegistry({ "mine.ts": moduleSource("own") }, {
    "own.ts": moduleSource("own"),
  });
  const error = await assertRejects(() => opened.registry.resolve("own"), ConfigError);
  assertStringIncludes(error.message, opened.urlOf("mine.ts"));
  assertStringIncludes(error.message, opened.urlOf("own.ts"));
});

/** Sources that record which of them are imported. */
function watched(names: readonly string[]): { sources: AdapterSource[]; imported: string[] } {
  const imported: string[] = [];
  const sources = names.map((name): AdapterSource => ({
    name,
    origin: name,
    load: () => {
      imported.push(name);
      const create = () => ({});
      return Promise.resolve({ default: { type: name, summary: "S.", config: {}, create } });
    },
  }));
  return { sources, imported };
}

Deno.test("a built-in module is imported when its type is asked for, and once", async () => {
  const { sources, imported } = watched(["one", "two", "three"]);
  const registry = new AdapterRegistry({ builtIn: sources });
  assertEquals(imported, []);
  await Promise.all([registry.resolve("two"), registry.resolve("two")]);
  await registry.resolve("two");
  assertEquals(imported, ["two"]);
  await assertRejects(() => registry.resolve("four"), ConfigError, "one of one, three, two");
  assertEquals(imported, ["two"]);
  await registry.list();
  assertEquals(imported, ["two", "one", "three"]);
});

Deno.test("a module that was rejected with no error is reported", async () => {
  const source = { name: "odd", origin: "odd.ts", load: () => Promise.reject("no reason") };
  const registry = new AdapterRegistry({ builtIn: [source] });
  await assertRejects(() => registry.resolve("odd"), ConfigError, "no reason");
});
