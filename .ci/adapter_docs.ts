// Writes what adapter modules declare into docs/adapters.md.
import type { L2AdapterModule } from "../src/adapter/contract.ts";
import { adapterTable, promisesOf } from "../src/adapter/adapter_summary.ts";
import { openAdapterRegistry } from "../src/known_adapters.ts";

/** The page that has a block for each adapter. */
export const page = new URL("../docs/adapters.md", import.meta.url);

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

if (import.meta.main) {
  const { text } = await withDeclarations(await Deno.readTextFile(page));
  await Deno.writeTextFile(page, text);
}
