import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { childCommand } from "../../support/child.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

const program = new URL("../../../src/cli/main.ts", import.meta.url);
const project = new URL("../../../", import.meta.url);

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function outcomeOf(command: Deno.Command): Promise<Outcome> {
  const { code, stdout, stderr } = await command.output();
  const [out = "", err = ""] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, out, err };
}

/** Runs `kvtier new adapter`. */
function newAdapter(...args: string[]): Promise<Outcome> {
  return outcomeOf(childCommand(program, { args: ["new", "adapter", ...args] }));
}

/** Runs Deno in a directory. */
function deno(cwd: string, ...args: string[]): Promise<Outcome> {
  const env = { NO_COLOR: "1" };
  return outcomeOf(new Deno.Command(Deno.execPath(), { args, cwd, env, stdin: "null" }));
}

async function namesIn(directory: string): Promise<string[]> {
  const entries = await Array.fromAsync(Deno.readDir(directory));
  return entries.map(({ name }) => name).sort();
}

/** The configuration of a project that uses this package from where it lies. */
async function writeProject(directory: string): Promise<void> {
  const { imports } = JSON.parse(await Deno.readTextFile(new URL("deno.json", project)));
  const own = {
    "@kvtier/kvtier/adapter": new URL("src/adapter/contract.ts", project).href,
    "@kvtier/kvtier/testing": new URL("src/testing/mod.ts", project).href,
  };
  const text = JSON.stringify({ lock: false, imports: { ...imports, ...own } }, null, 2);
  await Deno.writeTextFile(join(directory, "deno.json"), `${text}\n`);
}

Deno.test("kvtier new adapter writes an adapter that passes its tests", async (t) => {
  await using directory = await tempDirectory();
  const name = `my_${"long_".repeat(11)}name`;
  const { code, out, err } = await newAdapter(name, "--dir", directory.path);
  assertEquals([code, err], [0, ""]);
  assertEquals(await namesIn(directory.path), [`${name}.ts`, `${name}_test.ts`]);
  const next = /^Next: deno (.+)$/m.exec(out)?.[1]?.split(" ") ?? [];
  assertEquals(next, ["test", "-A", join(directory.path, `${name}_test.ts`)]);
  await writeProject(directory.path);
  // The types are checked by a step of their own.
  const test = [...next.slice(0, 1), "--no-check", ...next.slice(1)];
  const steps = [["fmt", "--check"], ["lint"], ["check", "."], test];
  for (const args of steps) {
    await t.step(`deno ${args[0]}`, async () => {
      const { code, out, err } = await deno(directory.path, ...args);
      assertEquals(code, 0, `${out}${err}`);
      if (args === test) {
        assertStringIncludes(out, `${name} adapter: if durable, objects survive a restart`);
      }
    });
  }
});

Deno.test("kvtier new adapter creates the directory", async () => {
  await using outer = await tempDirectory();
  const directory = join(outer.path, "a b/c");
  const { code, out } = await newAdapter("fresh", "--dir", directory);
  assertEquals([code, await namesIn(directory)], [0, ["fresh.ts", "fresh_test.ts"]]);
  assertStringIncludes(out, `Next: deno test -A '${join(directory, "fresh_test.ts")}'`);
});

Deno.test("kvtier new adapter writes nothing if a file exists", async () => {
  for (const existing of ["mine.ts", "mine_test.ts"]) {
    await using directory = await tempDirectory();
    const path = join(directory.path, existing);
    await Deno.writeTextFile(path, "precious");
    const { code, err } = await newAdapter("mine", "--dir", directory.path);
    assertEquals([code, await namesIn(directory.path)], [2, [existing]]);
    assertStringIncludes(err, `expected files that do not exist yet: received "${path}"`);
    assertEquals(await Deno.readTextFile(path), "precious");
  }
});

Deno.test("kvtier new adapter refuses invalid names", async () => {
  await using directory = await tempDirectory();
  const letters = "NAME: expected up to 63 lower-case letters, digits and _";
  const wrong: [string[], string][] = [
    [["Fs"], letters],
    [["../evil"], letters],
    [["mod"], letters],
    [["my_test"], letters],
    [["x".repeat(64)], letters],
    [[], letters],
    [["fs"], 'NAME: expected a type that this package does not have: received "fs"'],
    [["mine", "--directory", "x"], "an option that it has: one of --dir"],
  ];
  for (const [args, message] of wrong) {
    const { code, err } = await newAdapter(...args, "--dir", directory.path);
    assertEquals(code, 2, err);
    assertStringIncludes(err, message);
    assert(!err.includes("    at "));
  }
  assertEquals(await namesIn(directory.path), []);
});
