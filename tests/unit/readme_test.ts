import { assertEquals, assertGreater } from "@std/assert";
import { walk } from "@std/fs";
import { kvLayout } from "../../src/engine/mod.ts";

const project = new URL("../../", import.meta.url);

Deno.test("README: bytes per token are those of a layout", async () => {
  const text = await Deno.readTextFile(new URL("README.md", project));
  const number = (cell: string | undefined): number => Number(cell?.trim().replaceAll(",", ""));
  const rows = [...text.matchAll(/^\| [\w.-]+ +\|((?: [\d,]+ +\|){4}) ([\d,]+) MiB/gm)];
  assertEquals(rows.length, 5);
  for (const [, cells = "", mib] of rows) {
    const [layers = 0, kvHeads = 0, headDim = 0, bytes] = cells.split("|").map(number);
    const { byteLength } = kvLayout({ layers, kvHeads, headDim, dtype: "f16", chunkTokens: 256 });
    assertEquals(bytes, byteLength / 256);
    assertEquals(number(mib), byteLength * 32 / 2 ** 20);
  }
});

Deno.test("documentation: every link leads to a file and a heading that exist", async () => {
  const pages = ["README.md", "CONTRIBUTING.md", ".github/SECURITY.md"];
  for await (const { path } of walk(new URL("docs/", project), { exts: [".md"] })) {
    pages.push(path.slice(new URL(project).pathname.length));
  }
  let links = 0;
  const broken: string[] = [];
  for (const page of pages) {
    const text = await Deno.readTextFile(new URL(page, project));
    for (const [, target = ""] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      links++;
      const { pathname, hash } = new URL(target, new URL(page, project));
      const linked = await Deno.readTextFile(pathname).catch(() => undefined);
      if (linked === undefined) {
        if (!(await Deno.stat(pathname).catch(() => undefined))?.isDirectory) {
          broken.push(`${page}: ${target}`);
        }
      } else if (hash !== "" && !anchorsOf(linked).includes(hash.slice(1))) {
        broken.push(`${page}: ${target}`);
      }
    }
  }
  assertEquals(broken, []);
  assertGreater(links, 50);
});

/** The anchors of a page's headings, as code hosts make them. */
function anchorsOf(markdown: string): string[] {
  return [...markdown.matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) =>
    heading.toLowerCase().replace(/[^\w\- ]/g, "").replaceAll(" ", "-")
  );
}
