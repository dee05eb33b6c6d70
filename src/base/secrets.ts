/** Maximum size of a file that holds a secret. A larger file was named by mistake. */
const MAX_BYTES = 4096;

/** A secret, or the reason why it could not be read. The reason never shows its content. */
export type SecretReading =
  | { readonly bytes: Uint8Array<ArrayBuffer>; readonly problem?: undefined }
  | { readonly problem: string };

/**
 * Reads a secret from a file. Files that users other than the owner can access are rejected.
 *
 * Requires `--allow-read` permission for the path.
 */
export async function readSecretFile(path: string): Promise<SecretReading> {
  try {
    using file = await Deno.open(path);
    const { isFile, mode, size } = await file.stat();
    if (!isFile) return { problem: "is not a file" };
    if (mode !== null && (mode & 0o077) !== 0) {
      const shown = (mode & 0o777).toString(8).padStart(4, "0");
      return { problem: `can be read or written by others (mode ${shown}; chmod 600 it)` };
    }
    if (size > MAX_BYTES) return { problem: `is longer than ${MAX_BYTES} bytes` };
    const bytes = new Uint8Array(MAX_BYTES);
    let end = 0;
    for (;;) {
      const count = await file.read(bytes.subarray(end));
      if (count === null || count === 0) return { bytes: bytes.slice(0, end) };
      end += count;
    }
  } catch (error) {
    return { problem: `cannot be read: ${error instanceof Error ? error.message : String(error)}` };
  }
}

/** The value of an environment variable, or what was expected in place of the given name. */
export type VariableReading =
  | { readonly value: string; readonly problem?: undefined }
  | { readonly value?: undefined; readonly problem: string };

/**
 * What was expected if `name` cannot be the name of an environment variable; otherwise `undefined`.
 * It may be the secret itself, given where the name of its variable belongs.
 */
export function unmetVariableName(name: string): string | undefined {
  return /^\w+$/.test(name) ? undefined : "the name of a variable";
}

/**
 * Reads a secret from an environment variable. `problem` never shows the name, because callers may
 * have put the secret itself in its place.
 *
 * Requires `--allow-env` permission for the name.
 */
export async function readSecretVariable(name: string): Promise<VariableReading> {
  const { state } = await Deno.permissions.query({ name: "env", variable: name });
  if (state !== "granted") return { problem: "a variable that --allow-env permits to read" };
  const value = Deno.env.get(name);
  return value ? { value } : { problem: "the name of a variable that is set" };
}
