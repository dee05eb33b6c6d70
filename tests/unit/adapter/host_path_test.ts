import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { builtInAdapters } from "../../../adapters/mod.ts";
import { readL2Config } from "../../../src/cli/l2_config.ts";
import { asAdapterModule, ConfigError, unmetPath } from "../../../src/adapter/contract.ts";
import type { ConfigField, ConfigFields } from "../../../src/adapter/config.ts";
import { readMasterKey } from "../../../src/l2/transforms/master_key.ts";
import { openAdapterRegistry } from "../../../src/known_adapters.ts";

/** Paths that a shell or a browser would expand, and a word of the message. */
const UNEXPANDED: readonly (readonly [string, string])[] = [
  ["~", "home directory"],
  ["~/kv", "home directory"],
  ["~user/kv", "home directory"],
  ["$HOME/kv", "variables"],
  ["/data/$USER/kv", "variables"],
  ["/data/kv-${HOSTNAME}", "variables"],
  ["%USERPROFILE%\\kv", "variables"],
  ["$(pwd)/kv", "variables"],
  ["file:///data/kv", "URL"],
  ["file:/data/kv", "URL"],
  ["FILE:///data/kv", "URL"],
  ["https://host/kv", "URL"],
  ["", "empty"],
  [" ", "empty"],
  ["a\0b", "NUL"],
];

Deno.test("a path that only a shell could expand is refused with what to write instead", () => {
  for (const [path, word] of UNEXPANDED) assertStringIncludes(unmetPath(path) ?? "", word);
});

Deno.test("a literal path is accepted", () => {
  for (
    const path of [
      "/",
      ".",
      "..",
      "a b",
      "./~",
      "a~b",
      "cost$",
      "a$b/c",
      "100%",
      "C:\\kv",
      "D:/kv",
      "模型",
    ]
  ) {
    assertEquals(unmetPath(path), undefined, path);
  }
});

/** The names of the keys that hold paths, with their declarations. */
function pathFields(fields: ConfigFields): (readonly [string, ConfigField])[] {
  return Object.entries(fields).flatMap(([key, field]) =>
    field.type === "object"
      ? pathFields(field.fields)
      : /(?:_path|_file|_dir|^module)$/.test(key)
      ? [[key, field] as const]
      : []
  );
}

Deno.test("every key of every adapter that holds a path refuses what is not expanded", async () => {
  const seen: string[] = [];
  for (const [type, load] of Object.entries(builtInAdapters)) {
    const namespace = await load() as { readonly default: unknown };
    for (const [key, field] of pathFields(asAdapterModule(namespace.default).config)) {
      seen.push(`${type}.${key}`);
      const check = field.check as ((path: string) => string | undefined) | undefined;
      for (const path of ["~/kv", "$HOME/kv", "${HOME}/kv", "~"]) {
        assertEquals(typeof check?.(path), "string", `${type}.${key}: ${path}`);
      }
    }
  }
  assertEquals(seen.sort(), [
    "connector.module",
    "file_pool.file_path",
    "fs.base_path",
    "fs.relative_tmp_dir",
    "plugin.module",
    "resp.tls_ca_file",
    "s3.tls_ca_file",
  ]);
});

Deno.test("paths outside of adapters are checked as well", async () => {
  await assertRejects(() => readL2Config(["--l2-config", "~/l2.json"]), ConfigError, "written out");
  await assertRejects(
    () => openAdapterRegistry({ adaptersDir: "~/adapters" }),
    ConfigError,
    "written out",
  );
  const url = new URL("./", import.meta.url);
  await openAdapterRegistry({ adaptersDir: fromFileUrl(url) });
  const values = { "master_key_path": "~/key", "master_key_env": undefined };
  const refuse = (_key: string, expected: string): never => {
    throw new Error(expected);
  };
  await assertRejects(() => readMasterKey(values, refuse), Error, "written out");
});
