import type { failFor } from "../../src/base/config_error.ts";

/**
 * Reads the certificates of the configuration key `tls_ca_file`; `undefined` without a path.
 *
 * Requires `--allow-read` permission for the file.
 *
 * @throws {ConfigError} If the file cannot be read.
 */
export async function readCertificates(
  path: string | undefined,
  fail: ReturnType<typeof failFor>,
): Promise<string | undefined> {
  if (path === undefined) return undefined;
  try {
    return await Deno.readTextFile(path);
  } catch (cause) {
    return fail("tls_ca_file", "a file that can be read", path, cause);
  }
}
