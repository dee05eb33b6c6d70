import { join } from "@std/path";
import { type TempDirectory, tempDirectory } from "./temp_directory.ts";

/** Source of an adapter module of the given type, without imports. */
export function moduleSource(type: string): string {
  return `export default {
  type: ${JSON.stringify(type)},
  summary: "Written by a test.",
  config: {},
  create: () => ({}),
};\n`;
}

/** Creates a directory with the given files, by name. */
export async function directoryOf(files: Readonly<Record<string, string>>): Promise<TempDirectory> {
  const directory = await tempDirectory();
  for (const [name, text] of Object.entries(files)) {
    await Deno.writeTextFile(join(directory.path, name), text);
  }
  return directory;
}
