import { assert, assertArrayIncludes, assertEquals, assertMatch } from "@std/assert";
import { walk, type WalkOptions } from "@std/fs";
import { fromFileUrl, join, relative, toFileUrl } from "@std/path";

const project = fromFileUrl(new URL("../../../", import.meta.url));
const folder = join(project, ".ci", "jsr", "@std");

/** A package in the folder: what it declares, and which of that is there when it runs. */
interface Package {
  readonly version: string;
  readonly module: URL;
  readonly types: string[];
  readonly values: string[];
}

async function readJson(path: string): Promise<Record<string, unknown>> {
  return JSON.parse(await Deno.readTextFile(path));
}

async function readPackage(name: string): Promise<Package> {
  const version = String((await readJson(join(folder, name, "meta.json"))).latest);
  const { exports } = await readJson(join(folder, name, `${version}_meta.json`));
  assert(typeof exports === "object" && exports !== null && "." in exports);
  const module = join(folder, name, version, String(exports["."]));
  const text = await Deno.readTextFile(module.replace(/\.js$/, ".d.ts"));
  const names = (kinds: string): string[] =>
    [...text.matchAll(new RegExp(`^export (?:declare |async )?(?:${kinds}) (\\w+)`, "gm"))]
      .map((match) => match[1] ?? "");
  const [types, values] = [names("interface|type|class"), names("function\\*?|class|const")];
  return { version, module: toFileUrl(module), types, values };
}

/** The ranges of the @std packages in deno.json, by package name. */
async function readRanges(): Promise<Map<string, string>> {
  const { imports } = await readJson(join(project, "deno.json"));
  assert(typeof imports === "object" && imports !== null);
  const ranges = new Map<string, string>();
  for (const [name, target] of Object.entries(imports)) {
    if (name.startsWith("@std/")) ranges.set(name.slice(5), String(target).split("@").at(-1) ?? "");
  }
  return ranges;
}

/** Imports from @std in the project's sources and documentation examples: `package.name`. */
async function readUsed(): Promise<Map<string, string>> {
  const used = new Map<string, string>();
  const exts = [".ts", ".md"];
  const entries = await Array.fromAsync(walk(project, { maxDepth: 1, includeDirs: false, exts }));
  for (const name of ["src", "adapters", "tests", "docs"]) {
    entries.push(...await Array.fromAsync(walk(join(project, name), { includeDirs: false, exts })));
  }
  for (const { path } of entries) {
    const text = await Deno.readTextFile(path);
    const imports = /\b(?:import|export)\s([^;"']*?)\bfrom\s+["']@std\/([^"']+)["']/g;
    for (const [, clause = "", name] of text.matchAll(imports)) {
      for (const part of clause.replace(/^\s*type\b/, "").replace(/[{}]/g, "").split(",")) {
        const imported = part.replace(/^[\s*]*(?:type\s)?/, "").replace(/\sas\s[^]*$/, "").trim();
        if (imported !== "") used.set(`${name}.${imported}`, relative(project, path));
      }
    }
  }
  return used;
}

Deno.test("the JSR folder declares every name that the project imports from @std", async () => {
  const declared: string[] = [];
  for (const name of (await readRanges()).keys()) {
    const { types, values } = await readPackage(name);
    declared.push(...[...types, ...values].map((exported) => `${name}.${exported}`));
  }
  const used = await readUsed();
  // Imported by this file, thus found if the search works at all.
  assertArrayIncludes([...used.keys()], ["assert.assert", "fs.WalkOptions", "path.join"]);
  const missing = [...used].filter(([name]) => !declared.includes(name));
  assertEquals(missing, [], "declare these names in .ci/jsr/, or import them by name");
});

Deno.test("the JSR folder has, when it runs, every value that it declares", async () => {
  for (const name of (await readRanges()).keys()) {
    const { module, values } = await readPackage(name);
    assertArrayIncludes(Object.keys(await import(module.href)), values);
  }
});

Deno.test("the versions in the JSR folder satisfy the ranges in deno.json", async () => {
  for (const [name, range] of await readRanges()) {
    assertMatch(range, /^\^[1-9]\d*\.\d+\.\d+$/);
    const { version } = await readPackage(name);
    const [major = 0, minor = 0, patch = 0] = range.slice(1).split(".").map(Number);
    const [hasMajor = 0, hasMinor = 0, hasPatch = 0] = version.split(".").map(Number);
    const isNewEnough = hasMinor > minor || (hasMinor === minor && hasPatch >= patch);
    assert(hasMajor === major && isNewEnough, `${name} ${version} is outside ${range}`);
  }
});

Deno.test("walk yields the entries that its options ask for", async () => {
  const root = await Deno.makeTempDir();
  const names = async (options?: WalkOptions): Promise<string[]> =>
    (await Array.fromAsync(walk(root, options))).map(({ path }) => relative(root, path)).sort();
  try {
    await Deno.mkdir(join(root, "a", "b"), { recursive: true });
    const [b, y, z] = [join("a", "b"), join("a", "y.md"), join("a", "b", "z.ts")];
    for (const path of ["x.ts", y, z]) await Deno.writeTextFile(join(root, path), "");
    await Deno.symlink(join(root, b), join(root, "link"), { type: "dir" });

    assertEquals(await names(), ["", "a", b, z, y, "link", "x.ts"]);
    assertEquals(await names({ maxDepth: 0 }), [""]);
    assertEquals(await names({ maxDepth: 1, includeSymlinks: false }), ["", "a", "x.ts"]);
    assertEquals(await names({ includeFiles: false }), ["", "a", b, "link"]);
    assertEquals(await names({ exts: ["ts"] }), [z, "x.ts"]);
    assertEquals(await names({ match: [/y\.md$/] }), [y]);
    assertEquals(await names({ skip: [/[\\/]a$/], includeDirs: false }), ["link", "x.ts"]);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});
