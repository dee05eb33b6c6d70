import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import { type CliResult, runKvtier } from "../../support/cli.ts";
import { fileOf, filesIn, openFs, testObject } from "../../support/fs_adapter.ts";
import { testKey } from "../../support/objects.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

const DAY_MS = 86_400_000;

/** Runs `kvtier models` on a directory. */
function models(basePath: string, ...options: string[]): Promise<CliResult> {
  const config = JSON.stringify({ type: "fs", base_path: basePath });
  return run("models", "--l2-adapter", config, ...options);
}

function run(...args: string[]): Promise<CliResult> {
  return runKvtier(args);
}

/** A key of another model; long names are hashed, and the key stands in the file. */
function keyOf(model: string, n: number): ObjectKey {
  return testKey(n, { model });
}

/** A directory with three objects of one model, and one of another that was used long ago. */
async function filled(): Promise<AsyncDisposable & { path: string }> {
  const directory = await tempDirectory();
  await using adapter = await openFs({ base_path: directory.path });
  const keys = [0, 1, 2].map((n) => keyOf("young", n));
  const objects = [...keys, keyOf("old", 3)].map((key) => testObject(key));
  await adapter.store(objects, { signal: new AbortController().signal });
  const longAgo = new Date(Date.now() - 40 * DAY_MS);
  await Deno.utime(fileOf(directory.path, keyOf("old", 3)), longAgo, longAgo);
  return directory;
}

async function objectsIn(path: string): Promise<string[]> {
  const files = await filesIn(path);
  return files.filter((name) => name.endsWith(".data"));
}

Deno.test("kvtier models lists models, least recently used first", async () => {
  await using directory = await filled();
  const { code, out } = await models(directory.path);
  const [first, second, rest] = out.trim().split("\n");
  assertEquals([code, rest], [0, undefined]);
  assertMatch(first ?? "", /^old: 1 objects, 0\.000 GiB, last used 20\d\d-/);
  assertMatch(second ?? "", /^young: 3 objects, 0\.000 GiB, last used 20\d\d-/);
  assertEquals((await objectsIn(directory.path)).length, 4);
});

Deno.test("kvtier models removes only models not used for N days", async () => {
  await using directory = await filled();
  const asked = await models(directory.path, "--unused-days", "30");
  assertEquals(asked.out.match(/^\w+/gm), ["old"]);
  assertEquals((await objectsIn(directory.path)).length, 4);
  const { out } = await models(directory.path, "--unused-days", "30", "--remove-unused");
  assertStringIncludes(out, "old: removed 1 of 1 objects");
  const left = await objectsIn(directory.path);
  assertEquals(left.length, 3);
  assertEquals(left.every((name) => name.includes("young")), true);
});

Deno.test("kvtier models removes the objects of one model", async () => {
  await using directory = await filled();
  const { out } = await models(directory.path, "--remove", "young");
  assertStringIncludes(out, "young: removed 3 of 3 objects");
  assertEquals((await objectsIn(directory.path)).length, 1);
  const again = await models(directory.path, "--remove", "young");
  assertStringIncludes(again.out, "young: there are no objects of this model");
});

Deno.test("kvtier models shows each adapter of a file", async () => {
  await using one = await filled();
  await using other = await tempDirectory();
  const file = `${other.path}/l2.jsonc`;
  const list = [one, other].map(({ path }) => ({ type: "fs", base_path: path }));
  await Deno.writeTextFile(file, `// Two directories.\n${JSON.stringify(list)}`);
  const { code, out } = await run("models", "--l2-config", file);
  assertEquals(code, 0);
  assertMatch(out, /^Adapter fs:\nold: .*\nyoung: .*\nAdapter fs:\nNo models\n$/);
});

Deno.test("kvtier models reports mistakes in a sentence", async () => {
  await using directory = await tempDirectory();
  const wrong: [string[], string][] = [
    [["--unused-days", "many"], "--unused-days: expected a number of days"],
    [["--remove-unused"], "--remove-unused: expected to be combined with --unused-days"],
    [["--l2-adapter", '{"type":"tape"}'], "tape"],
    [["--l2-adapter", "{"], "--l2-adapter: expected JSON"],
    [["--remove-unsued"], 'did you mean --remove-unused?: received "--remove-unsued"'],
    [["--remove"], "--remove: expected a value: MODEL"],
  ];
  for (const [options, message] of wrong) {
    const { code, err } = await models(directory.path, ...options);
    assertEquals(code, 2, err);
    assertStringIncludes(err, message);
    assertEquals(err.includes("    at "), false);
  }
});
