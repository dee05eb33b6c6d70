// Keeps names, comments, messages and documentation in the words that the project agreed on.
import { assertEquals, assertGreater } from "@std/assert";
import { walk } from "@std/fs";
import { fromFileUrl, join, relative } from "@std/path";

const project = fromFileUrl(new URL("../../", import.meta.url));

/** Words that never appear; the Unix user "nobody" is written with quotes. */
const REJECTED =
  /(?<!["`])\b(?:a texts?|texts|somebody|nobody|whoever|whom|laggards?|condemned|leavers?|by and by|so that who|true or false)\b/i;

/** A doc comment names the symbol's purpose, not a person. */
const PERSONAL_DOC_COMMENT = /\/\*\*[\s*]*(?:Who|Whom|Whoever)\b/g;

/** A type declared at the top level of a module. */
const TYPE_DECLARATION = /^(?:export )?(?:abstract )?(?:interface|type|class) (\w+)/gm;

interface TextFile {
  /** Path from the top of the repository. */
  readonly path: string;
  readonly text: string;
}

async function readFiles(folders: readonly string[], exts: string[]): Promise<TextFile[]> {
  const files: TextFile[] = [];
  for (const folder of folders) {
    for await (const { path } of walk(join(project, folder), { includeDirs: false, exts })) {
      files.push(await readFile(relative(project, path)));
    }
  }
  return files;
}

async function readFile(path: string): Promise<TextFile> {
  return { path, text: await Deno.readTextFile(join(project, path)) };
}

/** The lines with a rejected word; a phrase may continue on the next line of a comment. */
function rejectedLines({ path, text }: TextFile): string[] {
  const lines = text.split("\n");
  return lines.flatMap((line, i) => {
    const next = lines[i + 1]?.replace(/^\s*(?:\*|\/\/)?\s*/, "") ?? "";
    const [own] = REJECTED.exec(line) ?? [];
    const [across] = REJECTED.test(next) ? [] : REJECTED.exec(`${line.trimEnd()} ${next}`) ?? [];
    const found = own ?? across;
    return found === undefined ? [] : [`${path}:${i + 1}: ${found}`];
  });
}

function personalDocComments({ path, text }: TextFile): string[] {
  return [...text.matchAll(PERSONAL_DOC_COMMENT)].map(({ index }) =>
    `${path}:${text.slice(0, index).split("\n").length}`
  );
}

/** The names of types that several files declare, with these files. */
function sharedTypeNames(files: readonly TextFile[]): string[] {
  const declarations = files.flatMap(({ path, text }) =>
    [...text.matchAll(TYPE_DECLARATION)].map(([, name = ""]) => ({ name, path }))
  );
  return [...Map.groupBy(declarations, ({ name }) => name)]
    .map(([name, found]) => `${name}: ${[...new Set(found.map(({ path }) => path))].join(", ")}`)
    .filter((line) => line.includes(", "));
}

const code = await readFiles(["src", "adapters"], [".ts"]);
const everything = [
  ...code,
  ...await readFiles(["docs"], [".ts", ".md", ".html"]),
  ...await Promise.all(["README.md", "CONTRIBUTING.md", "mod.ts"].map(readFile)),
];

Deno.test("words: the rules detect violations and accept the Unix user", () => {
  const linesOf = (text: string): string[] => rejectedLines({ path: "x", text });
  assertEquals(linesOf("ok\n * goes to whoever\n"), ["x:2: whoever"]);
  assertEquals(linesOf("  // must be true or\n  // false here\n"), ["x:1: true or false"]);
  assertEquals(linesOf("holds a text\nholds texts"), ["x:1: a text", "x:2: texts"]);
  assertEquals(linesOf('runs as "nobody", or as `nobody`'), []);
  assertEquals(linesOf("const textsOf = contextual;"), []);
  const comments =
    "/** Who waits. */\n/**\n * Whom it serves.\n */\n/** Whole. */\n/** Whose. */\n";
  assertEquals(personalDocComments({ path: "x", text: comments }), ["x:1", "x:2"]);
  const twice = "interface A {}\nexport type B = 1;\nexport abstract class C {}\n  type A = 1;\n";
  assertEquals(
    sharedTypeNames([{ path: "x", text: twice }, { path: "y", text: "class B {}\ntype C = 1;" }]),
    ["B: x, y", "C: x, y"],
  );
});

Deno.test("words: rejected words do not appear", () => {
  assertGreater(everything.length, 250);
  assertEquals(everything.flatMap(rejectedLines), []);
});

Deno.test("words: doc comments do not begin with a person", () => {
  assertEquals(everything.flatMap(personalDocComments), []);
});

Deno.test("words: every type name is declared in one file", () => {
  assertEquals(sharedTypeNames(code), []);
});
