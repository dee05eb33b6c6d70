import { assert, assertEquals, assertGreater } from "@std/assert";
import { walk } from "@std/fs";
import { dirname, fromFileUrl, join, relative } from "@std/path";

const project = fromFileUrl(new URL("../../", import.meta.url));

/** What each folder may import in addition to its own files: imports run one way. */
const mayImport: Readonly<Record<string, readonly string[]>> = {
  // Tools that every part may use.
  base: [],
  keys: [],
  memory: [],
  policies: [],
  l1: ["keys", "memory", "policies"],
  adapter: ["keys", "policies"],
  l2: ["keys", "policies", "adapter"],
  store: ["keys", "memory", "l1", "adapter", "l2"],
  prefetch: ["keys", "memory", "l1", "adapter", "l2", "src/lifecycle/forget_barrier.ts"],
  eviction: ["keys", "policies", "l1", "adapter", "l2"],
  lifecycle: ["keys", "l1", "l2", "eviction"],
  telemetry: ["keys", "memory", "l1", "l2", "store", "prefetch", "eviction", "lifecycle"],
  hotplug: [
    "keys",
    "memory",
    "adapter",
    "l2",
    "store",
    "eviction",
    "src/lifecycle/forget_barrier.ts",
  ],
  trace: ["policies"],
  "cache_options": ["memory", "policies", "l1", "adapter", "l2", "store", "prefetch", "hotplug"],
  "call_options": ["prefetch"],
  "object_checks": ["keys", "memory", "l1", "adapter", "prefetch"],
  "cache_hit": ["memory", "l1", "prefetch"],
  // The table of dynamic imports is not an adapter.
  "known_adapters": ["adapter", "l2", "cache_options", "adapters/mod.ts"],
  "cache_wiring": [
    "memory",
    "l1",
    "l2",
    "telemetry",
    "store",
    "prefetch",
    "eviction",
    "lifecycle",
    "hotplug",
    "cache_options",
    "known_adapters",
    "object_checks",
  ],
  "cache_status": ["l1", "telemetry", "cache_wiring"],
  "tiered_cache": [
    "keys",
    "memory",
    "l1",
    "telemetry",
    "store",
    "prefetch",
    "eviction",
    "lifecycle",
    "hotplug",
    "src/l2/adapter_config.ts",
    "cache_options",
    "cache_hit",
    "cache_status",
    "cache_wiring",
    "call_options",
    "object_checks",
  ],
  engine: ["keys", "memory", "l1", "adapter", "prefetch", "tiered_cache", "cache_hit"],
  server: [
    "adapter",
    "lifecycle",
    "hotplug",
    "src/l2/adapter_config.ts",
    "src/eviction/quota_registry.ts",
    "telemetry",
    "tiered_cache",
    "deno.json",
  ],
  cli: [
    "policies",
    "trace",
    "keys",
    "memory",
    "adapter",
    "l2",
    "hotplug",
    "src/eviction/remove_objects.ts",
    "server",
    "tiered_cache",
    "known_adapters",
    "deno.json",
  ],
  testing: ["keys", "adapter", "l2"],
  adapters: ["keys", "adapter"],
};

/** Where host APIs may be used; everything else is plain Web platform. */
const hostParts = ["base", "adapters", "src/l2/adapter_discovery.ts", "testing", "server", "cli"];

/** The adapters that share the base of stores on a server. */
const remoteAdapters = ["connector", "resp", "s3"];

/** One source file. */
interface Source {
  /** Path from the root of the repository. */
  readonly path: string;
  /** Its lines without comments. */
  readonly code: string;
  /** Its import specifiers. */
  readonly specifiers: readonly string[];
}

async function filesBelow(directory: string): Promise<string[]> {
  const entries = walk(join(project, directory), { includeDirs: false, exts: [".ts"] });
  return (await Array.fromAsync(entries)).map(({ path }) => relative(project, path)).sort();
}

async function readSource(path: string): Promise<Source> {
  const text = await Deno.readTextFile(join(project, path));
  const code = text.split("\n").filter((line) => !/^\s*(?:\/\/|\/\*|\*)/.test(line)).join("\n");
  const found = [
    // In the format of `deno fmt`, a statement starts its line, and its imports contain no
    // semicolon.
    ...code.matchAll(/^(?:import|export)\s(?:[^;"]*?\sfrom\s+)?"([^"]+)"/gm),
    ...code.matchAll(/\bimport\("([^"]+)"\)/g),
  ];
  return { path, code, specifiers: found.map(([, specifier = ""]) => specifier) };
}

const sources: readonly Source[] = await Promise.all(
  ["mod.ts", ...await filesBelow("src"), ...await filesBelow("adapters")].map(readSource),
);

/** Folder that a file belongs to: a folder of `src`, a file there, or `adapters`. */
function partOf(path: string): string {
  const [top = "", second = ""] = path.split("/");
  return top === "src" ? second.replace(/\.ts$/, "") : top;
}

/** Files that a file imports, as paths from the root of the repository. */
function importedFiles({ path, specifiers }: Source): string[] {
  return specifiers.filter((specifier) => specifier.startsWith("."))
    .map((specifier) => join(dirname(path), specifier));
}

/** The adapter that a file below `adapters/` belongs to. */
function adapterOf(path: string): string {
  return path.split("/")[1]?.replace(/^_/, "").replace(/\.ts$/, "") ?? "";
}

function isAllowed(from: string, to: string): boolean {
  const part = partOf(from);
  // The table and the entry points name everything.
  if (from === "mod.ts" || from === "adapters/mod.ts") return true;
  if (part === "adapters" && partOf(to) === "adapters") {
    const isOwn = to.startsWith("adapters/_") && adapterOf(from) === adapterOf(to);
    const isRemote = remoteAdapters.includes(adapterOf(from)) && to.startsWith("adapters/_remote/");
    return isOwn || isRemote || to.startsWith("adapters/_shared/");
  }
  const allowed = mayImport[part] ?? [];
  return partOf(to) === part || allowed.includes(partOf(to)) ||
    allowed.includes(to) || partOf(to) === "base";
}

Deno.test("architecture: the test sees the imports", () => {
  assertGreater(sources.length, 30);
  const cache = sources.find(({ path }) => path === "src/tiered_cache.ts");
  assert(cache !== undefined);
  assert(importedFiles(cache).includes("src/cache_hit.ts"));
  assert(importedFiles(cache).includes("src/cache_wiring.ts"));
  const table = sources.find(({ path }) => path === "adapters/mod.ts");
  assert(table !== undefined && importedFiles(table).includes("adapters/fs.ts"));
});

Deno.test("architecture: every folder of src has import rules", () => {
  const parts = new Set(sources.map(({ path }) => partOf(path)));
  parts.delete("mod.ts");
  assertEquals([...parts].filter((part) => !Object.hasOwn(mayImport, part)), []);
});

Deno.test("architecture: imports point in one direction", () => {
  const wrong = sources.flatMap((source) =>
    importedFiles(source).filter((to) => !isAllowed(source.path, to))
      .map((to) => `${source.path} imports ${to}`)
  );
  assertEquals(wrong, []);
});

/** The rows of the tables of a page that begin with a path in backticks, cell by cell. */
function tableRows(page: string): string[][] {
  return [...page.matchAll(/^\| `[^`]*[/.][^`]*` .*\|$/gm)]
    .map(([row]) => row.split("|").slice(1, -1).map((cell) => cell.trim()));
}

function namesIn(cell: string): string[] {
  return [...cell.matchAll(/`([^`]+)`/g)].map(([, name = ""]) => name);
}

Deno.test("architecture: docs/internals lists every folder, and what each part may import", async () => {
  const page = await Deno.readTextFile(join(project, "docs/internals/architecture.md"));
  const [, tables = ""] = page.split("## Folders and imports\n");
  const rows = tableRows(tables);
  const pathsOf = (rows: readonly string[][]) => rows.flatMap(([path = ""]) => namesIn(path));
  const parts = rows.filter(({ length }) => length === 3);
  const listed = parts.map(([path = "", , imports = ""]) => [
    partOf(namesIn(path)[0]?.replace(/\/$/, "") ?? ""),
    namesIn(imports),
  ]);
  assertEquals(Object.fromEntries(listed), mayImport);

  const files = [...sources.map(({ path }) => path), ...await filesBelow("tests")];
  const pages = await Array.fromAsync(Deno.readDir(join(project, "docs")));
  const folders = new Set([
    ...files.filter((path) => path.includes("/")).flatMap((path) => {
      const names = dirname(path).split("/");
      // Of the tests, what is one level down mirrors the rest.
      const depth = names[0] === "tests" ? 2 : names.length;
      return names.slice(0, depth).map((_, i) => `${names.slice(0, i + 1).join("/")}/`);
    }),
    ...pages.filter(({ isDirectory }) => isDirectory).map(({ name }) => `docs/${name}/`),
  ]);
  const tops = new Set(["src/", "tests/"]);
  assertEquals(
    pathsOf(rows).filter((path) => path.endsWith("/")).toSorted(),
    [...folders].filter((path) => !tops.has(path)).toSorted(),
  );
});

Deno.test("architecture: there are no import cycles", () => {
  const imports = new Map(sources.map((source) => [source.path, importedFiles(source)]));
  const done = new Set<string>();
  const cycles: string[] = [];
  const visit = (path: string, trail: readonly string[]): void => {
    if (trail.includes(path)) {
      cycles.push([...trail.slice(trail.indexOf(path)), path].join(" > "));
    } else if (!done.has(path)) {
      for (const next of imports.get(path) ?? []) visit(next, [...trail, path]);
      done.add(path);
    }
  };
  for (const path of imports.keys()) visit(path, []);
  assertEquals(cycles, []);
});

Deno.test("architecture: Deno and Node APIs are used in the allowed parts only", () => {
  const wrong = sources.filter(({ path, code, specifiers }) =>
    !hostParts.includes(partOf(path)) && !hostParts.includes(path) &&
    (/\bDeno\./.test(code) || specifiers.some((specifier) => specifier.startsWith("node:")))
  );
  assertEquals(wrong.map(({ path }) => path), []);
});

Deno.test("architecture: packages are named in deno.json only", async () => {
  const { imports } = JSON.parse(await Deno.readTextFile(join(project, "deno.json")));
  const names = Object.keys(imports);
  const isKnown = (specifier: string): boolean =>
    /^(?:\.|node:)/.test(specifier) ||
    // The text of the scaffold for new adapters imports this package by its name.
    specifier.startsWith("@kvtier/kvtier/") ||
    names.some((name) => specifier === name || specifier.startsWith(`${name}/`));
  const wrong = sources.flatMap(({ path, specifiers }) =>
    specifiers.filter((specifier) => !isKnown(specifier))
      .map((specifier) => `${path} imports ${specifier}`)
  );
  assertEquals(wrong, []);
  const inline = sources.filter(({ code }) =>
    /["'`](?:npm|jsr):|import\(\s*["'`]https?:/.test(code)
  );
  assertEquals(inline.map(({ path }) => path), []);
});

Deno.test("architecture: files and folders are named in snake_case", async () => {
  const tests = [...await filesBelow("tests"), ...await filesBelow("docs")];
  const paths = [...sources.map(({ path }) => path), ...tests];
  const isSnakeCase = (path: string): boolean =>
    path.replace(/\.ts$/, "").split("/").every((name) => /^_?[a-z0-9]+(?:_[a-z0-9]+)*$/.test(name));
  assertEquals(paths.filter((path) => !isSnakeCase(path)), []);
});

Deno.test("architecture: a mod.ts is a sorted list of named exports", () => {
  const entryPoints = sources.filter(({ path }) =>
    path === "mod.ts" || /^src\/.*\/mod\.ts$/.test(path)
  );
  assertGreater(entryPoints.length, 2);
  for (const { path, code } of entryPoints) {
    const statement = /export (?:type )?\{([^}]*)\} from "([^"]+)";/g;
    assertEquals(code.replaceAll(statement, "").trim(), "", `${path} holds something else`);
    const exports = [...code.matchAll(statement)];
    const specifiers = exports.map(([, , specifier = ""]) => specifier);
    assertEquals(specifiers, specifiers.toSorted(), `${path}: order of the files`);
    for (const [, list = "", specifier] of exports) {
      const names = list.split(",").map((name) => name.replace(/\btype\b/, "").trim().toLowerCase())
        .filter((name) => name !== "");
      assertEquals(names, names.toSorted(), `${path}: order of the names from ${specifier}`);
    }
  }
});

Deno.test("architecture: the top of the repository has no other files", async () => {
  const ignored = (await Deno.readTextFile(join(project, ".gitignore"))).split("\n")
    .map((line) => line.replaceAll("/", ""));
  const allowed = new Set([
    ...["deno.json", "mod.ts", "src", "adapters", "tests", "docs"],
    ...["README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md"],
    ...ignored,
  ]);
  const names = (await Array.fromAsync(Deno.readDir(project))).map(({ name }) => name);
  assertEquals(names.filter((name) => !name.startsWith(".") && !allowed.has(name)), []);
});
