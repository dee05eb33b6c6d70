import { sha256 } from "../../src/runtime/digest.ts";
import { ConfigError } from "../../src/l2/adapter.ts";

/** What a hash looks like: that of `integrity` attributes on the Web. */
export const INTEGRITY = /^sha256-[A-Za-z0-9+/]{43}=$/;

/**
 * Checks that the file of a module has a hash.
 *
 * @param adapter What errors are about.
 * @param address The address of the module.
 * @param expected `sha256-` and the hash in base64.
 * @returns The address to import: another hash has another one, so that a module which was imported
 * before its file changed is not taken for the new one.
 * @throws {ConfigError} If it has another hash, or the module is no file that can be read.
 */
export async function checkIntegrity(
  adapter: string,
  address: string,
  expected: string,
): Promise<string> {
  const key = "integrity";
  if (!address.startsWith("file:")) {
    const instead = "nothing: only a file can be hashed, so name an exact version instead";
    throw new ConfigError({ adapter, key, expected: instead, received: expected });
  }
  const bytes = await Deno.readFile(new URL(address)).catch((cause) => {
    const expected = "a file that can be read";
    throw new ConfigError({ adapter, key: "module", expected, received: address, cause });
  });
  const received = `sha256-${sha256(bytes).toBase64()}`;
  if (received !== expected) throw new ConfigError({ adapter, key, expected, received });
  const pinned = new URL(address);
  pinned.hash = expected;
  return pinned.href;
}
