import { resolve, toFileUrl } from "@std/path";
import { unmetPath } from "./host_path.ts";

/** Valid module specifiers, in words. */
export const MODULE_SPECIFIER = "a path, a file: URL, or a jsr: or npm: specifier";

/**
 * Resolves the module specifier of a configuration to an address.
 *
 * @param specifier A path relative to the working directory or absolute, a `file:` URL, or a `jsr:`
 * or `npm:` specifier.
 * @returns `undefined` if it is none of these.
 */
export function moduleAddress(specifier: string): string | undefined {
  if (specifier.trim() === "") return undefined;
  // A single letter is a drive.
  const scheme = /^([a-z][a-z0-9+.-]+):/i.exec(specifier)?.[1]?.toLowerCase();
  if (scheme === undefined) {
    return unmetPath(specifier) === undefined ? toFileUrl(resolve(specifier)).href : undefined;
  }
  if (scheme === "file") return URL.canParse(specifier) ? new URL(specifier).href : undefined;
  return scheme === "jsr" || scheme === "npm" ? specifier : undefined;
}

/**
 * Imports a module. Its code runs with the permissions of the process.
 *
 * Requires `--allow-read` permission for a file.
 *
 * @param address Result of {@linkcode moduleAddress}.
 */
export async function importNamed(address: string): Promise<Readonly<Record<string, unknown>>> {
  return await import(address);
}
