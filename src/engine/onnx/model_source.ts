import { createDigest } from "../../base/digest.ts";
import { DownloadError, isRemote, loadBytes } from "../../base/load_bytes.ts";

/** A file of a model: its bytes, a path, or a URL (`file:`, `http:`, `https:`). */
export type ModelSource = string | URL | Uint8Array<ArrayBuffer>;

/** A model in memory. */
export interface LoadedModel {
  /** File name of the model, without folders; `onnx` if it was given as bytes. */
  readonly name: string;
  /** SHA-256 of the model and its external files, in hexadecimal. */
  readonly digest: string;
  /** The model. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Its external files, in the form the runtime takes. */
  readonly externalData: readonly {
    readonly path: string;
    readonly data: Uint8Array<ArrayBuffer>;
  }[];
}

/**
 * Loads a model and its external files. The digest is computed from the returned bytes each time,
 * because files can be replaced under the same name.
 *
 * @throws {Error} If a file cannot be loaded.
 */
export async function loadModel(
  model: ModelSource,
  external: Readonly<Record<string, ModelSource>>,
): Promise<LoadedModel> {
  const bytes = await load(model);
  const externalData = await Promise.all(
    Object.entries(external).sort(([a], [b]) => a < b ? -1 : 1)
      .map(async ([path, source]) => ({ path, data: await load(source) })),
  );
  const digest = createDigest();
  digest.update(bytes);
  for (const { path, data } of externalData) {
    // Includes names and sizes, so that bytes moved between files change the digest.
    digest.update(new TextEncoder().encode(JSON.stringify([path, data.byteLength])));
    digest.update(data);
  }
  return { name: nameOf(model), digest: digest.finish().toHex(), bytes, externalData };
}

async function load(source: ModelSource): Promise<Uint8Array<ArrayBuffer>> {
  if (source instanceof Uint8Array) return source;
  try {
    return await loadBytes(source);
  } catch (cause) {
    if (!isRemote(source)) throw new Error(`Model file ${source} must be readable`, { cause });
    throw new Error(`Model file ${withoutSecrets(source)} must be readable: ${reasonOf(cause)}`);
  }
}

/** An HTTP URL without its credentials and query, which may be secrets. */
function withoutSecrets(source: string | URL): string {
  const url = URL.parse(String(source));
  return url === null ? "with a URL that is not valid" : `${url.origin}${url.pathname}`;
}

/** Why a download failed. The errors of the host name the whole URL. */
function reasonOf(cause: unknown): string {
  if (cause instanceof DownloadError) return cause.message;
  return "there is no answer, or the URL is not valid, has credentials or needs --allow-net";
}

function nameOf(model: ModelSource): string {
  if (model instanceof Uint8Array) return "onnx";
  const file = String(model).split(/[?#]/, 1)[0]?.split(/[\\/]/).at(-1) ?? "";
  return file.replace(/\.onnx$/, "") || "onnx";
}
