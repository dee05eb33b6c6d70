import { createHash } from "node:crypto";
import { dirname, join } from "@std/path";
import { PartialFile } from "./partial_file.ts";
import { TEXT_FILES, weightFiles } from "./model_files.ts";

/** Status of an answer to a range that begins behind the end of a file. */
const RANGE_NOT_SATISFIABLE = 416;

/** A file of a repository. */
interface RemoteFile {
  readonly path: string;
  readonly size: number;
  /** SHA-1 of a Git blob, or SHA-256 of a large file. */
  readonly digest: string;
  readonly isLarge: boolean;
}

/** Options of {@linkcode downloadModel}. */
export interface DownloadOptions {
  /** `https://huggingface.co` or a mirror of it. */
  readonly endpoint: string;
  /** Directory for models. */
  readonly directory: string;
  /** Name of the weights, such as `q4`. */
  readonly weights?: string;
  /** Called with the number of downloaded bytes of a file. */
  readonly onProgress?: (path: string, done: number, size: number) => void;
}

/**
 * Downloads the missing files of a model. Interrupted downloads are resumed, and the digest of each
 * file is verified. Several processes may download one model: each writes its own partial files.
 *
 * @param id Owner and name, as in `HuggingFaceTB/SmolLM2-135M-Instruct`.
 * @returns The directory of the model.
 * @throws {Error} If the server responds with an error, or a file has the wrong size or digest.
 */
export async function downloadModel(id: string, options: DownloadOptions): Promise<string> {
  const { directory, weights, onProgress = () => {} } = options;
  const endpoint = options.endpoint.replace(/\/+$/, "");
  const names = id.split("/");
  if (names.length !== 2 || names.some((name) => !/^(?!\.+$)[\w.-]+$/.test(name))) {
    throw new Error(`Id of a model must be owner/name: received ${id}`);
  }
  const files = await listFiles(`${endpoint}/api/models/${id}/tree/main?recursive=true`);
  const { model, data } = weightFiles(files.map(({ path }) => path), weights);
  const wanted = new Set([...TEXT_FILES, model, ...data]);
  const target = join(directory, ...names);
  for (const file of files.filter(({ path }) => wanted.has(path))) {
    const path = join(target, file.path);
    if (await isComplete(path, file)) continue;
    await Deno.mkdir(dirname(path), { recursive: true });
    const url = `${endpoint}/${id}/resolve/main/${file.path}`;
    await downloadFile(url, path, file, (done) => onProgress(file.path, done, file.size));
  }
  return target;
}

async function listFiles(url: string): Promise<RemoteFile[]> {
  const response = await fetch(url);
  if (!response.ok) {
    await response.body?.cancel();
    throw new Error(`${url} must list the files of the model: received ${response.status}`);
  }
  const entries: unknown = await response.json();
  if (!Array.isArray(entries)) throw new Error(`${url} must answer with a list of files`);
  return entries.flatMap((entry) => {
    const { type, path, size, oid, lfs } = entry as Record<string, unknown>;
    const large = (lfs ?? undefined) as { oid?: unknown; size?: unknown } | undefined;
    const [digest, bytes] = large === undefined ? [oid, size] : [large.oid, large.size];
    const isFile = type === "file" && typeof path === "string" && typeof digest === "string" &&
      typeof bytes === "number";
    // Rejects paths that lead out of the directory.
    if (!isFile || path.split("/").some((part) => part === ".." || part === "")) return [];
    return [{ path, size: bytes, digest, isLarge: large !== undefined }];
  });
}

async function downloadFile(
  url: string,
  path: string,
  file: RemoteFile,
  onProgress: (done: number) => void,
): Promise<void> {
  const { size, digest, isLarge } = file;
  using part = await PartialFile.open(path);
  const start = part.byteLength < size ? part.byteLength : 0;
  const response = await fetch(url, start === 0 ? {} : { headers: { range: `bytes=${start}-` } });
  // A server without support for ranges sends the whole file.
  let done = response.status === 206 ? start : 0;
  if (response.ok && response.body !== null) {
    await part.truncate(done);
    for await (const bytes of response.body) {
      await part.write(bytes);
      onProgress(done += bytes.byteLength);
      if (done > size) break;
    }
  } else {
    await response.body?.cancel();
    if (response.status !== RANGE_NOT_SATISFIABLE) {
      throw new Error(`Could not download ${url}: received ${response.status}`);
    }
    done = start;
  }
  // A resumed download that brought nothing will never bring more.
  if (done < size && done !== start) {
    throw new Error(`${url} was interrupted after ${done} of ${size} bytes: start again to resume`);
  }
  const received = await digestOf(part.path, isLarge ? undefined : size);
  if (done === size && received === digest) return await Deno.rename(part.path, path);
  await part.remove();
  // What was there before may be of another revision.
  if (start > 0) return await downloadFile(url, path, file, onProgress);
  throw new Error(
    `${url} must be ${size} bytes with the digest ${digest}: received ${done} with ${received}`,
  );
}

/** Whether a file is there as the repository has it now: revisions often have the same size. */
async function isComplete(path: string, { size, digest, isLarge }: RemoteFile): Promise<boolean> {
  const info = await Deno.stat(path).catch(() => undefined);
  return info?.size === size && await digestOf(path, isLarge ? undefined : size) === digest;
}

/** The SHA-256 of a file, or the SHA-1 of a Git blob of `blobBytes`. */
async function digestOf(path: string, blobBytes?: number): Promise<string> {
  const hash = createHash(blobBytes === undefined ? "sha256" : "sha1");
  if (blobBytes !== undefined) hash.update(`blob ${blobBytes}\0`);
  using file = await Deno.open(path);
  for await (const bytes of file.readable) hash.update(bytes);
  return hash.digest("hex");
}
