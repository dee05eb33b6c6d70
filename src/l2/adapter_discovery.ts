import { resolve, toFileUrl } from "@std/path";

/** Where an adapter module can be had. */
export interface AdapterSource {
  /** The file's name without extension: by convention the adapter's type. */
  readonly name: string;
  /** Where it comes from, for messages: a URL or a word. */
  readonly origin: string;
  /** Imports the module. */
  readonly load: () => Promise<unknown>;
}

const MODULE_FILE = /^(?<name>.+)\.(?:ts|mts|js|mjs)$/;

/**
 * Lists the adapter modules of a directory, sorted by file name, without importing them. Skipped
 * are `_*`, `.*`, `mod.*`, tests (`*_test.*`, `*.test.*`), declarations and what is not a module.
 * Importing a module runs its code with the host's permissions.
 *
 * Requires `--allow-read` permission for the directory.
 *
 * @param directory A path, or a `file:` URL.
 * @throws {TypeError} If it is a URL of another kind.
 * @throws {Deno.errors.NotFound} If the directory does not exist.
 */
export async function discoverAdapters(directory: string | URL): Promise<AdapterSource[]> {
  const base = directory instanceof URL ? new URL(directory) : toFileUrl(resolve(directory));
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  const names: string[] = [];
  for await (const entry of Deno.readDir(base)) {
    if (!entry.isDirectory) names.push(entry.name);
  }
  return names.sort().flatMap((fileName) => {
    const name = MODULE_FILE.exec(fileName)?.groups?.name;
    if (name === undefined || /^[_.]|^mod$|[_.]test$|\.d$/.test(name)) return [];
    const url = new URL(encodeURIComponent(fileName), base).href;
    return [{ name, origin: url, load: () => import(url) }];
  });
}

/**
 * The adapters of this package: listed from `directory` where that lies on disk and may be read
 * without asking, else from `table`, which says the same.
 *
 * @param directory Left out where this package is part of a bundle.
 */
export async function builtInAdapterSources(
  directory: URL | undefined,
  table: Readonly<Record<string, () => Promise<unknown>>>,
): Promise<AdapterSource[]> {
  if (directory?.protocol === "file:") {
    const permission = await Deno.permissions.query({ name: "read", path: directory });
    if (permission.state === "granted") return await discoverAdapters(directory);
  }
  return Object.entries(table).map(([name, load]) => {
    const origin = directory === undefined ? `built in: ${name}` : new URL(`${name}.ts`, directory);
    return { name, origin: String(origin), load };
  });
}
