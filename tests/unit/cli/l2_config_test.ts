import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { readL2Config } from "../../../src/cli/l2_config.ts";
import { ConfigError } from "../../../src/base/config_error.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

const fs = { type: "fs", "base_path": "/data/kv" };
const mock = { type: "mock", "max_size_gb": 1 };

Deno.test("readL2Config() takes each --l2-adapter, in their order", async () => {
  const args = [
    "models",
    "--l2-adapter",
    JSON.stringify(mock),
    `--l2-adapter=${JSON.stringify(fs)}`,
  ];
  assertEquals(await readL2Config([...args, "--remove", "llama"]), [mock, fs]);
});

Deno.test("readL2Config() reads a file with comments and trailing commas", async () => {
  await using directory = await tempDirectory();
  const file = join(directory.path, "l2.jsonc");
  await Deno.writeTextFile(
    file,
    `// The local disk first.
[
  { "type": "fs", "base_path": "/data/kv" },
  { "type": "mock", /* GiB */ "max_size_gb": 1, },
]`,
  );
  assertEquals(await readL2Config(["--l2-config", file]), [fs, mock]);
});

const mistakes: readonly (readonly [string, readonly string[], RegExp])[] = [
  ["nothing", [], /--l2-adapter: expected an adapter in JSON/],
  [
    "invalid JSON",
    ["--l2-adapter", '{"type":"resp","password":"hunter2"'],
    /JSON in single quotes.*incomplete JSON/,
  ],
  [
    "JSON without its quotes, which the shell removed",
    ["--l2-adapter", "{type:fs}"],
    /invalid JSON at character 2/,
  ],
  ["JSON without an adapter", ["--l2-adapter", '{"password":"hunter2"}'], /a string "type"/],
  ["an option without a value", ["--l2-adapter"], /a string "type"/],
  [
    "both",
    ["--l2-adapter", '{"type":"fs"}', "--l2-config", "x.json"],
    /combined with --l2-adapter/,
  ],
  ["a file that does not exist", ["--l2-config", "/nowhere/x.json"], /a file that can be read/],
];
for (const [what, args, message] of mistakes) {
  Deno.test(`readL2Config() refuses ${what} without quoting secrets`, async () => {
    const error = await assertRejects(() => readL2Config(args), ConfigError);
    assertMatch(error.message, message);
    assertEquals(error.message.includes("hunter2"), false);
  });
}

const files: readonly (readonly [string, string, RegExp])[] = [
  ["invalid JSON", '[\n  { "type": "fs", "password": hunter2 }\n]', /JSON or JSONC.*in line 2/],
  [
    "one adapter outside an array",
    '{ "type": "fs" }',
    /an array of adapters.*one adapter outside an array/,
  ],
  ["an empty array", "[]", /an empty array/],
  ["an entry without a type", '[{ "type": "fs" }, { "password": "hunter2" }]', /adapter 2.*"type"/],
];
for (const [what, text, message] of files) {
  Deno.test(`readL2Config() refuses a file with ${what} without quoting secrets`, async () => {
    await using directory = await tempDirectory();
    const file = join(directory.path, "l2.json");
    await Deno.writeTextFile(file, text);
    const error = await assertRejects(() => readL2Config(["--l2-config", file]), ConfigError);
    assertMatch(error.message, message);
    assertEquals(error.message.includes("hunter2"), false);
  });
}
