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
export async function loadBytes(
  source: string | URL,
  signal?: AbortSignal,
): Promise<Uint8Array<ArrayBuffer>> {
  const isRemote = /^https?:/i.test(String(source));
  if (!isRemote) return await Deno.readFile(source, signal === undefined ? {} : { signal });
  const response = await fetch(source, signal === undefined ? {} : { signal });
  if (!response.ok) {
    await response.body?.cancel();
    throw new DownloadError(`the server answered ${response.status}`);
  }
  return await response.bytes();
}
