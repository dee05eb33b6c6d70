import { resolve, toFileUrl } from "@std/path";
import type { L2AdapterModule } from "../adapter/contract.ts";

/** Source of an adapter module. */
export interface AdapterSource {
  /** File name without extension; by convention the type of the adapter. */
  readonly name: string;
  /** Origin shown in messages: a URL or a description. */
  readonly origin: string;
  /** Imports the module. */
  readonly load: () => Promise<unknown>;
}

/** Source of a module that has been imported already. */
export function givenAdapter(module: L2AdapterModule): AdapterSource {
  return {
    name: module.type,
    origin: "options.adapters",
    load: () => Promise.resolve({ default: module }),
  };
}

const MODULE_FILE = /^(?<name>.+)\.(?:ts|mts|js|mjs)$/;

/**
 * Lists the adapter modules of a directory, sorted by file name, without importing them. Skips
 * `_*`, `.*`, `mod.*`, tests (`*_test.*`, `*.test.*`), declarations and files that are not modules.
 * Importing a module runs its code with the permissions of the process.
 *
 * Requires `--allow-read` permission for the directory.
 *
 * @param directory A path or a `file:` URL.
 * @throws {TypeError} If it is a URL with another scheme.
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
 * Sources of the built-in adapters: the files in `directory` if it is on disk and readable without
 * a permission prompt, otherwise `table`, which lists the same adapters.
 *
 * @param directory `undefined` where this package is part of a bundle.
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
