import { join } from "@std/path";
import { failFor } from "../base/config_error.ts";
import { unmetPath } from "../adapter/host_path.ts";
import { openAdapterRegistry } from "../known_adapters.ts";
import type { CliCommand, CommandGroup } from "./command.ts";
import { adapterSource, adapterTestSource } from "./adapter_template.ts";

const fail = failFor("kvtier new adapter");

const TYPE = /^[a-z][a-z0-9_]{0,62}$/;
/** Module names that adapter discovery skips. */
const SKIPPED = /^mod$|_test$/;

/** `kvtier new adapter NAME`: writes a working adapter and its test as a starting point. */
const newAdapterCommand: CliCommand = {
  description: "Write a working adapter and its conformance test",
  positional: { name: "NAME", description: "Adapter type: lower-case letters, digits and _" },
  options: {
    dir: { type: "string", valueHint: "DIR", default: ".", description: "Target directory" },
  },
  permissions: ["--allow-read=DIR --allow-write=DIR"],
  examples: ["new adapter my_store --dir ./my-adapters"],
  run: async ({ positional, values }, { out }) => {
    const type = await checkName(positional);
    const { dir: directory = "." } = values;
    const unmet = unmetPath(directory);
    if (unmet !== undefined) fail("--dir", unmet, directory);
    const files = new Map([
      [join(directory, `${type}.ts`), adapterSource(type)],
      [join(directory, `${type}_test.ts`), adapterTestSource(type)],
    ]);
    for (const path of files.keys()) await checkAbsent(path);
    await Deno.mkdir(directory, { recursive: true });
    for (const [path, text] of files) {
      await Deno.writeTextFile(path, text, { createNew: true });
      out.print(`Wrote ${path}`);
    }
    out.json({ files: [...files.keys()] });
    const [, test = ""] = files.keys();
    out.print(`Next: deno test -A ${/^[\w./-]+$/.test(test) ? test : `'${test}'`}`);
  },
};

/** `kvtier new`: generates source files. */
export const newCommand: CommandGroup = {
  description: "Generate source files",
  commands: { adapter: newAdapterCommand },
};

async function checkName(name: unknown): Promise<string> {
  if (typeof name !== "string" || !TYPE.test(name) || SKIPPED.test(name)) {
    const expected = `up to 63 lower-case letters, digits and _, not "mod" or ending in "_test"`;
    return fail("NAME", expected, name ?? "nothing");
  }
  const { loaded, failed } = await (await openAdapterRegistry({})).list();
  const taken = [...loaded.map(({ module }) => module.type), ...failed.map((each) => each.name)];
  if (taken.includes(name)) fail("NAME", "a type that this package does not have", name);
  return name;
}

async function checkAbsent(path: string): Promise<void> {
  try {
    await Deno.lstat(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw error;
  }
  fail("NAME", "files that do not exist yet", path);
}
