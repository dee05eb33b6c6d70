import { createDigest } from "../../runtime/digest.ts";
import { loadBytes } from "../../runtime/load_bytes.ts";

/** Where a file of a model is: its bytes, a path, or a URL (`file:`, `http:`, `https:`). */
export type ModelSource = string | URL | Uint8Array<ArrayBuffer>;

/** A model in memory. */
export interface LoadedModel {
  /** File name of the model, without folders; `onnx` if it was given as bytes. */
  readonly name: string;
  /** SHA-256 of all of its bytes, and of those of the files it refers to, in hex. */
  readonly digest: string;
  /** Its bytes. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The files that it refers to, as the runtime takes them. */
  readonly externalData: readonly {
    readonly path: string;
    readonly data: Uint8Array<ArrayBuffer>;
  }[];
}

/**
 * Loads a model and the files that it refers to. The digest is taken anew each time, of the very
 * bytes that are returned: a file can be replaced under its name.
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
    // Names and lengths, so that bytes cannot move from one file to another.
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
    throw new Error(`Model file ${source} must be readable`, { cause });
  }
}

function nameOf(model: ModelSource): string {
  if (model instanceof Uint8Array) return "onnx";
  const file = String(model).split(/[?#]/, 1)[0]?.split(/[\\/]/).at(-1) ?? "";
  return file.replace(/\.onnx$/, "") || "onnx";
}
