import { resolve, toFileUrl } from "@std/path";
import { unmetPath } from "./host_path.ts";

/** What a module is named by, in words. */
export const MODULE_SPECIFIER = "a path, a file: URL, or a jsr: or npm: specifier";

/**
 * The address of a module that a configuration names.
 *
 * @param specifier A path, which starts at the working directory, a `file:` URL, or a `jsr:` or
 * `npm:` specifier.
 * @returns `undefined` if it is none of these.
 */
export function moduleAddress(specifier: string): string | undefined {
  if (specifier.trim() === "") return undefined;
  // One letter is a drive.
  const scheme = /^([a-z][a-z0-9+.-]+):/i.exec(specifier)?.[1]?.toLowerCase();
  if (scheme === undefined) {
    return unmetPath(specifier) === undefined ? toFileUrl(resolve(specifier)).href : undefined;
  }
  if (scheme === "file") return URL.canParse(specifier) ? new URL(specifier).href : undefined;
  return scheme === "jsr" || scheme === "npm" ? specifier : undefined;
}

/**
 * Imports a module; its code runs with the host's permissions.
 *
 * Requires `--allow-read` permission for a file.
 *
 * @param address What {@linkcode moduleAddress} returned.
 */
export async function importNamed(address: string): Promise<Readonly<Record<string, unknown>>> {
  return await import(address);
}
