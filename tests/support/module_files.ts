import { join } from "@std/path";
import { type TempDirectory, tempDirectory } from "./temp_directory.ts";

/** The source of an adapter module of a type, which needs nothing to be imported. */
export function moduleSource(type: string): string {
  return `export default {
  type: ${JSON.stringify(type)},
  summary: "Written by a test.",
  config: {},
  create: () => ({}),
};\n`;
}

/** A directory with files of these names and texts. */
export async function directoryOf(files: Readonly<Record<string, string>>): Promise<TempDirectory> {
  const directory = await tempDirectory();
  for (const [name, text] of Object.entries(files)) {
    await Deno.writeTextFile(join(directory.path, name), text);
  }
  return directory;
}
