// Writes what adapter modules declare into docs/adapters.md.
import type { L2AdapterModule } from "../src/adapter/contract.ts";
import { type ConfigFields, type Configurable, describeField } from "../src/adapter/config.ts";
import { promisesOf } from "../src/cli/adapters.ts";
import { openAdapterRegistry } from "../src/known_adapters.ts";
import { markdownTable } from "./markdown_table.ts";

/** The page that has a block for each adapter. */
export const page = new URL("../docs/adapters.md", import.meta.url);

const HEADER = ["Key", "Type", "Default", "Meaning"];

const BLOCK = /(<!-- declared by (\w+) -->\n)[^]*?(<!-- end -->)/g;

/** The page with what the adapters declare now; `types` are those that it has blocks of. */
export async function withDeclarations(text: string): Promise<{ text: string; types: string[] }> {
  const types = [...text.matchAll(BLOCK)].map(([, , type = ""]) => type);
  const registry = await openAdapterRegistry({});
  const blocks = new Map<string, string>();
  for (const type of types) blocks.set(type, blockOf(await registry.resolve(type)));
  const written = text.replace(
    BLOCK,
    (_, start, type, end) => `${start}\n${blocks.get(type)}\n${end}`,
  );
  return { text: written, types };
}

function blockOf({ capabilities, ...module }: L2AdapterModule): string {
  if (capabilities === undefined) return `${adapterTable(module)}\n`;
  const promises = promisesOf(capabilities);
  return `${promises.charAt(0).toUpperCase()}${promises.slice(1)}.\n\n${adapterTable(module)}\n`;
}

/** Configuration keys of an adapter as a Markdown table. */
function adapterTable(module: Configurable): string {
  return markdownTable(HEADER, rowsOf(module.config, ""));
}

function rowsOf(fields: ConfigFields, prefix: string): string[][] {
  return Object.entries(fields).flatMap(([key, field]) => {
    const name = prefix + key;
    const own = field.type === "object" ? rowsOf(field.fields, `${name}.`) : [];
    const type = field.type === "object" ? "object" : describeField(field);
    const byDefault = field.default === undefined ? "" : `\`${JSON.stringify(field.default)}\``;
    return [[`\`${name}\``, type, field.required ? "required" : byDefault, field.help], ...own];
  });
}

if (import.meta.main) {
  const { text } = await withDeclarations(await Deno.readTextFile(page));
  await Deno.writeTextFile(page, text);
}
