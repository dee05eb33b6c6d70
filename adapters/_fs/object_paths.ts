import {
  decodeFileName,
  encodeFileName,
  isHashedFileName,
  type ObjectKey,
} from "../../src/l2/adapter.ts";
import {
  hashedFileName,
  MAX_FILE_NAME_BYTES,
  parseName,
  spellName,
} from "../../src/keys/key_codec.ts";

/** How objects are named and where they lie. */
export type FileLayout = "kvtier" | "lmcache";

/** What the name of a file says about it: its key, that the key stands in the file, or nothing. */
export type NamedObject = { readonly key: ObjectKey } | "key-in-file" | null;

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
    const isFaithful = encoder.encode(name).length <= MAX_FILE_NAME_BYTES &&
      decodeLmcacheName(name)?.equals(key) === true;
    return isFaithful ? name : hashedFileName(key);
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

// `-SEP-` stands for every `/` of the model; nothing else is escaped.
function lmcacheName(key: ObjectKey): string {
  return spellName(key, key.model.replaceAll("/", "-SEP-"), key.cacheSalt);
}

function decodeLmcacheName(name: string): ObjectKey | null {
  const readText = (text: string, field: "model" | "salt"): string =>
    field === "model" ? text.replaceAll("-SEP-", "/") : text;
  return parseName(name, readText, lmcacheName);
}
