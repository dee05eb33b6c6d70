// docs/internals names folders, files, functions, types, options and commands: all of them exist.
import { assertEquals, assertGreater } from "@std/assert";
import { walk } from "@std/fs";
import { fromFileUrl, join, normalize, relative } from "@std/path";

const project = fromFileUrl(new URL("../../", import.meta.url));
const pagesPath = "docs/internals";

/** A paragraph, list item, table row, or line of a diagram. */
interface Block {
  readonly line: number;
  readonly text: string;
  readonly isDiagram: boolean;
}

async function filesBelow(directory: string, exts: readonly string[]): Promise<string[]> {
  const entries = walk(join(project, directory), { includeDirs: false, exts: [...exts] });
  return (await Array.fromAsync(entries)).map(({ path }) => relative(project, path)).sort();
}

const sourceFolders = ["src", "adapters", "tests", "docs", ".ci"];
const exts = [".ts", ".py", ".md"];
const paths = [
  ...(await Promise.all(sourceFolders.map((folder) => filesBelow(folder, exts)))).flat(),
  ...["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "deno.json", "mod.ts", ".ci/run"],
];
const contents = new Map(
  await Promise.all(paths.map(async (path): Promise<[string, string]> => {
    return [path, await Deno.readTextFile(join(project, path))];
  })),
);
const isCode = (path: string): boolean =>
  /\.(?:ts|py|json)$|^\.ci\/run$/.test(path) && path !== "tests/unit/internals_test.ts";
/** All words of the code, with and without hyphens. */
const words = new Set(
  [...contents].filter(([path]) => isCode(path)).flatMap(([, text]) => [
    ...text.match(/[\w$]+/g) ?? [],
    ...text.match(/[\w-]+/g) ?? [],
  ]),
);
const { tasks } = JSON.parse(contents.get("deno.json") ?? "");

/** Splits a page. Comments and headings are paragraphs. */
function blocksOf(page: string): Block[] {
  const blocks: Block[] = [];
  let isDiagram = false;
  let isOpen = false;
  for (const [i, text] of page.split("\n").entries()) {
    if (text.startsWith("```")) {
      isDiagram = !isDiagram;
      isOpen = false;
      continue;
    }
    const last = blocks.at(-1);
    const continues = isOpen && !isDiagram && !/^\s*(?:[-|#]|\d+\. |$)/.test(text);
    if (continues && last !== undefined) {
      blocks[blocks.length - 1] = { ...last, text: `${last.text} ${text.trim()}` };
    } else if (text.trim() !== "") blocks.push({ line: i + 1, text, isDiagram });
    isOpen = text.trim() !== "";
  }
  return blocks;
}

/** What a block names: in prose in backticks, in a diagram wherever it stands. */
function namesIn({ text, isDiagram }: Block): string[] {
  return isDiagram
    ? text.match(/[\w./-]+\.(?:ts|md|py)\b|[#\w.[\]]+\(\)/g) ?? []
    : [...text.matchAll(/`([^`]+)`/g)].map(([, name = ""]) => name);
}

/** Why a path names nothing, or not one thing; a path may leave out the folders at its front. */
function faultOfPath(path: string): string | undefined {
  if (path.includes("<")) return undefined;
  if (path.endsWith("/")) {
    return paths.some((file) => file.startsWith(path)) ? undefined : `no folder ${path}`;
  }
  const found = resolve(path);
  if (found.length === 1) return undefined;
  return found.length === 0 ? `no file ${path}` : `${path} may be ${found.join(" or ")}`;
}

function resolve(path: string): string[] {
  return paths.includes(path) ? [path] : paths.filter((file) => file.endsWith(`/${path}`));
}

/** Whether a file declares a function or method; nested functions do not count. */
function declares(text: string, owner: string | undefined, name: string): boolean {
  if (owner !== undefined && !new RegExp(`\\b(?:class|interface) ${owner}\\b`).test(text)) {
    return false;
  }
  const escaped = name.replaceAll(/[[\].]/g, "\\$&");
  const top = `^(?:export )?(?:async )?(?:function\\*? ${escaped}\\b|const ${escaped} = .*\\()`;
  // A call on a line of its own is no declaration.
  const member = `^  (?:(?:static|protected|override|readonly|async) |\\*)*${escaped}\\??` +
    `(?:<[^>]*>)?(?:: | = )?\\((?!.*\\);$)`;
  return new RegExp(`${top}|${member}`, "m").test(text);
}

const FUNCTION = /^(?:(?<owner>[A-Z]\w*)\.)?(?<name>#?\w+|\[Symbol\.\w+\])\(\)$/;
const PATH = /^[\w./<>-]+(?:\/|\.(?:ts|md|py))$/;

/** What a page says that is not so. */
function faultsIn(page: string): string[] {
  const faults: string[] = [];
  for (const block of blocksOf(page)) {
    const names = namesIn(block);
    const note = (fault: string): void => void faults.push(`line ${block.line}: ${fault}`);
    let file = names.find((name) => PATH.test(name) && !name.endsWith("/"));
    for (const name of names) {
      if (PATH.test(name)) {
        const fault = faultOfPath(name);
        if (fault !== undefined) note(fault);
        else if (!name.endsWith("/")) file = name;
        continue;
      }
      const { owner, name: called } = FUNCTION.exec(name)?.groups ?? {};
      if (called !== undefined) {
        const candidates = file === undefined ? [...contents.keys()].filter(isCode) : resolve(file);
        const isThere = candidates.some((path) =>
          declares(contents.get(path) ?? "", owner, called)
        );
        if (!isThere) note(`no ${name} in ${file ?? "any file"}`);
      } else if (name.startsWith("deno task ")) {
        const [, , task = ""] = name.split(" ");
        if (!Object.hasOwn(tasks, task)) note(`no task ${task}`);
      } else if (/^[\w#.-]+$/.test(name)) {
        const last = name.split(".").at(-1)?.replace(/^(?:#|--)/, "") ?? "";
        if (!words.has(last)) note(`nothing in the code is called ${name}`);
      }
    }
  }
  return faults;
}

/** The anchor that a heading gets. */
function anchorOf(heading: string): string {
  return heading.toLowerCase().replaceAll(/[^\w\s-]/g, "").trim().replaceAll(" ", "-");
}

function linkFaultsIn(path: string, page: string): string[] {
  return [...page.matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([^)]+))?\)/g)].flatMap(
    ([, target = "", anchor]) => {
      const file = target === "" ? path : normalize(join(path, "..", target));
      const text = contents.get(file);
      if (text === undefined) {
        const isFolder = paths.some((other) => other.startsWith(join(file, "/")));
        return isFolder ? [] : [`${path} links to ${target}`];
      }
      const anchors = [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
        anchorOf(heading)
      );
      return anchor === undefined || anchors.includes(anchor)
        ? []
        : [`${path} links to ${target}#${anchor}`];
    },
  );
}

const pages = [...contents].filter(([path]) => path.startsWith(pagesPath));

Deno.test("docs/internals: the check finds what is wrong", () => {
  const page = [
    "See `src/l1/l1_cache.ts` `L1Cache.markDirty()`, `touch()`, `L1Entry` and",
    "`src/l1/` of `store_lane.ts`, `l1.readTtlMs`, `deno task ok`.",
    "",
    "See `src/l1/l1_cash.ts` and `l1_cache.ts`: `reserveNothing()`, `L1Cash.touch()`, `faultsInX`.",
    "```text",
    "prose  src/l1/l1_cache.ts  markDirty()  touchNothing()",
    "```",
    "`src/l3/`, `deno task nothing`, `mod.ts`",
  ].join("\n");
  assertEquals(faultsIn(page), [
    "line 4: no file src/l1/l1_cash.ts",
    "line 4: no reserveNothing() in l1_cache.ts",
    "line 4: no L1Cash.touch() in l1_cache.ts",
    "line 4: nothing in the code is called faultsInX",
    "line 6: no touchNothing() in src/l1/l1_cache.ts",
    "line 8: no folder src/l3/",
    "line 8: no task nothing",
  ]);
  const links =
    "[a](../../README.md) [b](l1.md#no-such-heading) [c](nothing.md) [d](../internals/)";
  assertEquals(linkFaultsIn(`${pagesPath}/store.md`, links), [
    `${pagesPath}/store.md links to l1.md#no-such-heading`,
    `${pagesPath}/store.md links to nothing.md`,
  ]);
});

Deno.test("docs/internals: everything that the pages name exists", () => {
  assertGreater(pages.length, 6);
  const faults = pages.flatMap(([path, text]) => faultsIn(text).map((fault) => `${path} ${fault}`));
  assertEquals(faults, []);
});

Deno.test("docs/internals: every link leads somewhere, and CONTRIBUTING.md links to every page", () => {
  const contributing = contents.get("CONTRIBUTING.md") ?? "";
  const linked = [...pages, ["CONTRIBUTING.md", contributing] as const];
  assertEquals(linked.flatMap(([path, text]) => linkFaultsIn(path, text)), []);
  assertEquals(pages.map(([path]) => path).filter((path) => !contributing.includes(path)), []);
});
