import { sha256 } from "../../src/base/digest.ts";
import { ConfigError } from "../../src/adapter/contract.ts";

/** Format of a hash, as in `integrity` attributes on the web. */
export const INTEGRITY = /^sha256-[A-Za-z0-9+/]{43}=$/;

/**
 * Verifies the hash of a module's file.
 *
 * @param adapter Adapter that errors name.
 * @param address URL of the module.
 * @param expected `sha256-` and the hash in base64.
 * @returns URL to import. It contains the hash, so that a module imported before its file changed
 * is not reused.
 * @throws {ConfigError} If the hash differs, or the module is not a readable file.
 */
export async function checkIntegrity(
  adapter: string,
  address: string,
  expected: string,
): Promise<string> {
  const key = "integrity";
  if (!address.startsWith("file:")) {
    const instead = "no value: only a file can be hashed, so pin an exact version instead";
    throw new ConfigError({ subject: adapter, key, expected: instead, received: expected });
  }
  const bytes = await Deno.readFile(new URL(address)).catch((cause) => {
    const expected = "a file that can be read";
    throw new ConfigError({ subject: adapter, key: "module", expected, received: address, cause });
  });
  const received = `sha256-${sha256(bytes).toBase64()}`;
  if (received !== expected) throw new ConfigError({ subject: adapter, key, expected, received });
  const pinned = new URL(address);
  pinned.hash = expected;
  return pinned.href;
}
