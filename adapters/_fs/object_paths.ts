import {
  decodeFileName,
  encodeFileName,
  isHashedFileName,
  ObjectKey,
} from "../../src/l2/adapter.ts";

/** How objects are named and where they lie. */
export type FileLayout = "kvtier" | "lmcache";

/** What the name of a file says about it: its key, that the key stands in the file, or nothing. */
export type NamedObject = { readonly key: ObjectKey } | "key-in-file" | null;

const SUFFIX = ".data";
const MAX_NAME_BYTES = 255;
const encoder = new TextEncoder();

/**
 * Where the objects of a directory lie. `shards` is the number of levels of sub-directories, each
 * named by the next two digits of the chunk hash.
 */
export class ObjectPaths {
  /** The directory. */
  readonly basePath: string;
  readonly #layout: FileLayout;
  readonly #shards: number;

  /** The paths in `basePath`. */
  constructor(options: { basePath: string; layout: FileLayout; shards: number }) {
    this.basePath = options.basePath;
    this.#layout = options.layout;
    this.#shards = options.shards;
  }

  /** The path of an object's file. */
  pathOf(key: ObjectKey): string {
    return `${this.directoryOf(key)}/${this.nameOf(key)}`;
  }

  /** The directory of an object's file. */
  directoryOf(key: ObjectKey): string {
    if (this.#shards === 0) return this.basePath;
    const hash = key.chunkHashHex;
    let path = this.basePath;
    for (let level = 0; level < this.#shards; level++) {
      path = `${path}/${hash.slice(2 * level, 2 * level + 2)}`;
    }
    return path;
  }

  /** The name of an object's file. */
  nameOf(key: ObjectKey): string {
    if (this.#layout === "kvtier") return encodeFileName(key);
    const name = lmcacheName(key);
    // Where their name would be too long, or would name another key too, ours is used.
    const isFaithful = encoder.encode(name).length <= MAX_NAME_BYTES &&
      decodeLmcacheName(name)?.equals(key) === true;
    return isFaithful ? name : `h-${key.digest.toHex()}${SUFFIX}`;
  }

  /** What the name of a file that lies in `directory` says about it. */
  objectNamed(directory: string, name: string): NamedObject {
    if (isHashedFileName(name)) return "key-in-file";
    const key = this.#layout === "kvtier" ? decodeFileName(name) : decodeLmcacheName(name);
    // A file in a wrong place is never looked for.
    return key !== null && this.directoryOf(key) === directory ? { key } : null;
  }

  /** Whether a directory at a level below the base directory can hold objects. */
  isShard(level: number, name: string): boolean {
    return level < this.#shards && /^[0-9a-f]{2}$/.test(name);
  }

  /** The directories of one level, if there is one: more would be too many to make in advance. */
  *shards(): Generator<string, void> {
    if (this.#shards !== 1) return;
    for (let i = 0; i < 256; i++) yield `${this.basePath}/${i.toString(16).padStart(2, "0")}`;
  }

  /** Levels of sub-directories. */
  get levels(): number {
    return this.#shards;
  }
}

// `<model>@0x<rank>@<group>@<hash>[@<salt>].data`, with `-SEP-` for every `/` of the model.
function lmcacheName(key: ObjectKey): string {
  const rank = key.kvRank.toString(16).padStart(8, "0");
  const salt = key.cacheSalt === "" ? "" : `@${key.cacheSalt}`;
  const model = key.model.replaceAll("/", "-SEP-");
  return `${model}@0x${rank}@${key.objectGroup.toString(16)}@${key.chunkHashHex}${salt}${SUFFIX}`;
}

function decodeLmcacheName(name: string): ObjectKey | null {
  if (!name.endsWith(SUFFIX)) return null;
  const fields = name.slice(0, -SUFFIX.length).split("@");
  const [model = "", rank = "", group = "", hash = "", salt] = fields;
  if (fields.length < 4 || fields.length > 5 || salt === "") return null;
  if (!/^0x[0-9a-f]{8}$/.test(rank) || !/^(0|[1-9a-f][0-9a-f]{0,7})$/.test(group)) return null;
  if (!/^[0-9a-f]{64}$/.test(hash)) return null;
  try {
    return new ObjectKey({
      chunkHash: Uint8Array.fromHex(hash),
      model: model.replaceAll("-SEP-", "/"),
      kvRank: parseInt(rank, 16),
      objectGroup: parseInt(group, 16),
      cacheSalt: salt ?? "",
    });
  } catch {
    return null;
  }
}
