import { assertArrayIncludes, assertEquals } from "@std/assert";
import { walk } from "@std/fs";
import config from "../../deno.json" with { type: "json" };

const project = new URL("../../", import.meta.url);

/** What users' programs fetch from npm, each with its reason. */
const packages: readonly string[] = [
  "@logtape/logtape", // warnings
  "@opentelemetry/api", // metrics
  "@redis/client", // resp
  "@webgpu/types", // types of the public API
  "aws4fetch", // s3
  "citty", // the command line
  "jsonc-parser", // its configuration files
];

/** What users start from: the exports, each adapter, and the demo. */
async function entryPoints(): Promise<string[]> {
  const paths = [...Object.values(config.exports), "docs/examples/demo.ts"];
  const options = { maxDepth: 1, includeDirs: false, exts: [".ts"] };
  for await (const { name } of walk(new URL("adapters/", project), options)) {
    paths.push(`adapters/${name}`);
  }
  return paths.map((path) => new URL(path, project).href);
}

/** Part of what `deno info --json` prints. */
interface Graph {
  readonly modules: readonly { readonly specifier: string; readonly error?: string }[];
  readonly npmPackages: Readonly<Record<string, { readonly name: string }>>;
}

async function graphOf(entries: readonly string[]): Promise<Graph> {
  const program = entries.map((href) => `import ${JSON.stringify(href)};`).join("");
  const { success, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["info", "--json", `data:application/typescript,${encodeURIComponent(program)}`],
    cwd: project,
    stderr: "inherit",
  }).output();
  assertEquals(success, true);
  return JSON.parse(new TextDecoder().decode(stdout));
}

Deno.test("packages: the entry points reach those of the list", async () => {
  const entries = await entryPoints();
  const { modules, npmPackages } = await graphOf(entries);
  assertEquals(modules.filter(({ error }) => error !== undefined), []);
  assertArrayIncludes(modules.map(({ specifier }) => specifier), entries);
  const names = new Set(Object.values(npmPackages).map(({ name }) => name));
  // Holds the packages of JSR where that is out of reach: see .ci/jsr.ts.
  names.delete("deno-std");
  assertEquals([...names].sort(), packages);
});

Deno.test("packages: the import map, all of which is fetched, names nothing more", () => {
  const std = ["@std/assert", "@std/async", "@std/fs", "@std/path"];
  assertEquals(Object.keys(config.imports).sort(), [...packages, ...std].sort());
});
