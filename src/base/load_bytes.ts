/** A server that answers, but not with the bytes. The message does not name the URL. */
export class DownloadError extends Error {
  /** The name of the class. */
  override readonly name = "DownloadError";
}

/**
 * Reads a file, or downloads it over HTTP.
 *
 * Requires `--allow-read` permission for a path or a `file:` URL, `--allow-net` for an HTTP URL.
 *
 * @throws {Error} If the server does not respond with success, or the file cannot be read.
 */
export async function loadBytes(source: string | URL): Promise<Uint8Array<ArrayBuffer>> {
  if (!isRemote(source)) return await Deno.readFile(source);
  const response = await fetch(source);
  if (response.ok) return await response.bytes();
  await response.body?.cancel();
  throw new DownloadError(`the server answered ${response.status}`);
}

/** Whether a file is downloaded over HTTP. */
export function isRemote(source: string | URL): boolean {
  return /^https?:/i.test(String(source));
}
