/** Most bytes of a file that holds a secret: more is some other file. */
const MAX_BYTES = 4096;

/** A secret that was read, or what is wrong with where it should be, without a word of it. */
export type SecretReading =
  | { readonly bytes: Uint8Array<ArrayBuffer>; readonly problem?: undefined }
  | { readonly problem: string };

/**
 * Reads a secret from a file that nobody but its owner may read.
 *
 * Requires `--allow-read` permission for the path.
 */
export async function readSecretFile(path: string): Promise<SecretReading> {
  try {
    using file = await Deno.open(path);
    const { isFile, mode, size } = await file.stat();
    if (!isFile) return { problem: "is no file" };
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

/** The value of an environment variable, or what is wrong with it; neither shows its name. */
export type VariableReading =
  | { readonly value: string; readonly problem?: undefined }
  | { readonly value?: undefined; readonly problem: string };

/** Why a text is no name of an environment variable; it may be what the variable should hold. */
export function unmetVariableName(name: string): string | undefined {
  return /^\w+$/.test(name) ? undefined : "the name of a variable";
}

/**
 * Reads a secret from an environment variable. No problem shows the name: what stands in its place
 * may be the secret itself.
 *
 * Requires `--allow-env` permission for the name.
 */
export async function readSecretVariable(name: string): Promise<VariableReading> {
  const { state } = await Deno.permissions.query({ name: "env", variable: name });
  if (state !== "granted") return { problem: "a variable that --allow-env permits to read" };
  const value = Deno.env.get(name);
  return value ? { value } : { problem: "the name of a variable that is set" };
}
