import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { join, relative, toFileUrl } from "@std/path";
import plugin from "../../../adapters/plugin.ts";
import { HostDevice, TieredCache } from "../../../mod.ts";
import {
  AdapterError,
  ConfigError,
  type L2Adapter,
  type L2AdapterModule,
} from "../../../src/adapter/contract.ts";
import { parseAdapterConfig } from "../../../src/adapter/config.ts";
import { sha256 } from "../../../src/base/digest.ts";
import { checkValues } from "../../../src/l2/adapter_config.ts";
import { AdapterRegistry } from "../../../src/l2/adapter_registry.ts";
import { openAdapter } from "../../../src/l2/open_adapter.ts";
import { testEnvironment } from "../../support/adapters.ts";
import { testObject } from "../../support/fs_adapter.ts";
import { directoryOf } from "../../support/module_files.ts";
import { testKey, testKeys } from "../../support/objects.ts";

const call = { signal: new AbortController().signal };
const contract = new URL("../../../src/adapter/contract.ts", import.meta.url).href;

/** A custom adapter: a Map that reports its arguments; `extra` is inserted into its create(). */
function shelf(extra = "", optional = ""): string {
  return `import { Bitmap, concatParts, ConfigError, defineL2Adapter, fillParts } from "${contract}";
export default defineL2Adapter({
  type: "shelf",
  summary: "Objects on a shelf.",
  config: {
    boards: { type: "number", integer: true, minimum: 1, required: true, help: "Boards." },
    door: { type: "string", default: "none", help: "Its door." },
  },
  create(config, environment) {
    ${extra}
    const held = new Map();
    return {
      capabilities: {},
      store(objects) {
        for (const { key, parts } of objects) held.set(key.id, concatParts(parts));
        const stored = new Bitmap(objects.length, objects.length);
        return Promise.resolve({ stored, bytes: 0 });
      },
      lookupAndLock: (keys) => Promise.resolve(Bitmap.from(keys, ({ id }) => held.has(id))),
      load: (objects) =>
        Promise.resolve(
          Bitmap.from(objects, ({ key, parts }) => fillParts(parts, held.get(key.id))),
        ),
      ${optional}
      reportStatus: () => ({ config }),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
  },
});
`;
}

async function open(config: Record<string, unknown>): Promise<L2Adapter> {
  const registry = new AdapterRegistry({ builtIn: [] });
  const checked = checkValues(plugin as unknown as L2AdapterModule, config);
  return (await openAdapter(checked, { registry, ...testEnvironment() })).adapter;
}

async function hashOf(path: string): Promise<string> {
  return `sha256-${sha256(await Deno.readFile(path)).toBase64()}`;
}

Deno.test("plugin: a module is named by a path, relative or not, or by a file: URL", async () => {
  await using directory = await directoryOf({ "a shelf #1.ts": shelf() });
  const path = join(directory.path, "a shelf #1.ts");
  for (const module of [path, relative(Deno.cwd(), path), toFileUrl(path).href]) {
    await using adapter = await open({ module, params: { boards: 2 } });
    await adapter.store([testObject(testKey(0))], call);
    const found = await adapter.lookupAndLock(testKeys(2), { ...call, prefix: false });
    assertEquals(String(found), "10");
    assertEquals(adapter.reportStatus?.(), {
      config: { boards: 2, door: "none" },
      plugin: { module, type: "shelf" },
    });
  }
});

Deno.test("plugin: exactly the methods of the module's adapter exist", async () => {
  await using directory = await directoryOf({
    "few.ts": shelf(),
    "more.ts": shelf("", "usage: () => Promise.resolve({ usedBytes: 1, objectCount: 2 }),"),
  });
  const params = { boards: 1 };
  await using few = await open({ module: join(directory.path, "few.ts"), params });
  await using more = await open({ module: join(directory.path, "more.ts"), params });
  for (const name of ["unlock", "delete", "list", "usage"] as const) {
    assertEquals([few[name], more[name] === undefined], [undefined, name !== "usage"]);
  }
  assertEquals(await more.usage?.(call), { usedBytes: 1, objectCount: 2 });
});

for (
  const [what, params, key, expected] of [
    ["an unknown key", { boards: 1, colour: "red" }, "params.colour", "type, boards, door"],
    ["a missing key", {}, "params.boards", "integer of at least 1"],
    ["a wrong value", { boards: 0 }, "params.boards", "integer of at least 1"],
  ] as const
) {
  Deno.test(`plugin: params with ${what} are refused, with the module and the key`, async () => {
    await using directory = await directoryOf({ "shelf.ts": shelf() });
    const module = join(directory.path, "shelf.ts");
    const error = await assertRejects(() => open({ module, params }), ConfigError);
    assertEquals(error.key, key);
    assertStringIncludes(error.expected, expected);
    assertStringIncludes(error.message, `plugin adapter (${module}): ${key}: expected`);
  });
}

const broken: Record<string, [text: string, said: string]> = {
  "throws when it is imported": ["throw new Error('no such library');", "Error: no such library"],
  "has no default export": ["export const shelf = 1;", "Default export must be made by"],
  "exports something else": ["export default { type: 'x' };", "Default export must be made by"],
  "is no module": ["export default {", "SyntaxError"],
  "returns no adapter": [shelf("return {};"), "one without capabilities, store, lookupAndLock"],
  "returns nothing": [shelf("return;"), "one without capabilities, store"],
};

for (const [what, [text, said]] of Object.entries(broken)) {
  Deno.test(`plugin: a module that ${what} is refused, with its name and its own error`, async () => {
    await using directory = await directoryOf({ "broken.ts": text });
    const module = join(directory.path, "broken.ts");
    const error = await assertRejects(() => open({ module, params: { boards: 1 } }), ConfigError);
    assertEquals(error.key, "module");
    assertStringIncludes(error.message, module);
    assertStringIncludes(error.message, said);
  });
}

Deno.test("plugin: an error of create() names the module; a ConfigError stays one", async () => {
  await using directory = await directoryOf({
    "plain.ts": shelf("throw new Error('the shelf fell down');"),
    "config.ts": shelf(
      "throw new ConfigError({ subject: 'shelf adapter', key: 'door', expected: 'a door', " +
        "received: config.door });",
    ),
  });
  const params = { boards: 1 };
  const plain = join(directory.path, "plain.ts");
  const error = await assertRejects(() => open({ module: plain, params }), AdapterError);
  assertEquals(error.message, `plugin (${plain}): open failed: the shelf fell down`);
  const module = join(directory.path, "config.ts");
  const wrong = await assertRejects(() => open({ module, params }), ConfigError, module);
  assertEquals([wrong.key, wrong.expected, wrong.received], ["params.door", "a door", "none"]);
});

Deno.test("plugin: a package is imported by its specifier", async () => {
  const said = "Default export must be made by defineL2Adapter()";
  await assertRejects(() => open({ module: "npm:keyv@^5" }), ConfigError, said);
});

for (const module of ["", " ", "https://host.invalid/a.ts", "data:text/javascript,1", "node:fs"]) {
  Deno.test(`plugin: the module ${JSON.stringify(module)} is refused unseen`, () => {
    const error = assertThrows(() => parseAdapterConfig(plugin, { module }), ConfigError);
    assertEquals(error.key, "module");
  });
}

Deno.test("plugin: params other than an object are refused", () => {
  for (const params of [1, "a", null, []]) {
    const error = assertThrows(
      () => parseAdapterConfig(plugin, { module: "a", params }),
      ConfigError,
    );
    assertEquals([error.key, error.expected], ["params", "object"]);
  }
});

Deno.test("plugin: a file with the expected hash is used, another one does not run", async () => {
  await using directory = await directoryOf({
    "shelf.ts": shelf(),
    "evil.ts": "Reflect.set(globalThis, 'evilRan', true);\n" + shelf(),
  });
  const params = { boards: 1 };
  const module = join(directory.path, "shelf.ts");
  const integrity = await hashOf(module);
  {
    await using adapter = await open({ module, params, integrity });
    assertEquals(String(adapter.reportStatus?.().plugin), "[object Object]");
  }
  const evil = join(directory.path, "evil.ts");
  const error = await assertRejects(() => open({ module: evil, params, integrity }), ConfigError);
  assertEquals(error.key, "integrity");
  assertStringIncludes(error.message, integrity);
  assertStringIncludes(error.message, await hashOf(evil));
  assertEquals(Reflect.get(globalThis, "evilRan"), undefined);
});

Deno.test("plugin: a file that changed since it was imported is imported anew", async () => {
  await using directory = await directoryOf({ "shelf.ts": shelf() });
  const module = join(directory.path, "shelf.ts");
  const params = { boards: 1 };
  const before = await hashOf(module);
  await (await open({ module, params, integrity: before }))[Symbol.asyncDispose]();
  await Deno.writeTextFile(module, shelf().replace('type: "shelf"', 'type: "rack"'));
  await assertRejects(() => open({ module, params, integrity: before }), ConfigError, before);
  await using adapter = await open({ module, params, integrity: await hashOf(module) });
  assertEquals(adapter.reportStatus?.().plugin, { module, type: "rack" });
});

Deno.test("plugin: an invalid hash, or one for a package, is refused", async () => {
  const integrity = `sha256-${new Uint8Array(32).toBase64()}`;
  for (const module of ["npm:keyv@^5", "jsr:@std/assert@1"]) {
    const error = await assertRejects(() => open({ module, integrity }), ConfigError);
    assertEquals(error.key, "integrity");
    assertStringIncludes(error.expected, "only a file can be hashed");
  }
  const missing = join(Deno.cwd(), "none.ts");
  const error = await assertRejects(() => open({ module: missing, integrity }), ConfigError);
  assertEquals([error.key, error.cause instanceof Deno.errors.NotFound], ["module", true]);
  for (const wrong of ["", "sha256-", "sha384-AAAA", "a".repeat(64)]) {
    const parse = () => parseAdapterConfig(plugin, { module: "a", integrity: wrong });
    assertEquals(assertThrows(parse, ConfigError).key, "integrity");
  }
});

Deno.test("plugin: a cache uses the configured module", async () => {
  await using directory = await directoryOf({ "shelf.ts": shelf() });
  const module = join(directory.path, "shelf.ts");
  const l2 = [{ type: "plugin", module, params: { boards: 3 } }];
  await using cache = await TieredCache.open({ device: new HostDevice(), l2 });
  const [adapter] = cache.reportStatus().adapters;
  assert(adapter !== undefined);
  assertEquals([adapter.type, adapter.details.plugin], ["plugin", { module, type: "shelf" }]);
});
