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

/**
 * What the name of a file says about it: its key, that the key stands in the file, that LMCache
 * wrote it under a key that cannot be had here (`no-key`), or nothing.
 */
export type NamedObject = { readonly key: ObjectKey } | "key-in-file" | "no-key" | null;

const DATA = ".data";
const encoder = new TextEncoder();
/**
 * The names that LMCache makes of any model, rank, group, hash and salt: of hashes of 8 and 16
 * bytes, long salts, control characters and ranks of more than 32 bits, too.
 */
const LMCACHE_NAME =
  /@0x[0-9a-f]{8,}@[0-9a-f]+@(?:[0-9a-f]{2})+(?:@[^]+)?\.(?:data\.(?=tmp))?(data|tmp)$/;

/**
 * Where the objects of a directory lie. `shards` is the number of levels of sub-directories, each
 * named by the next two digits of the chunk hash.
 */
export class ObjectPaths {
  /** The directory. */
  readonly basePath: string;
  readonly #layout: FileLayout;
  readonly #shards: number;
  #hasDigests = false;

  /** The paths in `basePath`. */
  constructor(options: { basePath: string; layout: FileLayout; shards: number }) {
    this.basePath = options.basePath;
    this.#layout = options.layout;
    this.#shards = options.shards;
  }

  /**
   * Has names of the kvtier layout carry a digest of their keys from now on: for file systems that
   * take names for one that differ in case, or in the form of a letter with an accent. Other tools
   * know LMCache's names, which stay.
   */
  addDigests(): void {
    this.#hasDigests = this.#layout === "kvtier";
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
    if (this.#hasDigests) return digestName(key);
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
    const key = this.#layout === "kvtier"
      ? decodeFileName(plainName(name))
      : decodeLmcacheName(name);
    const isHere = key !== null && this.directoryOf(key) === directory;
    if (isHere && this.nameOf(key) === name) return { key };
    // Never looked for, whether it lies in a wrong place, has no key, or has the name that it would
    // have on another file system; but LMCache's and ours take room.
    return isHere || this.#suffixOfLmcache(name) === "data" ? "no-key" : null;
  }

  /**
   * Whether LMCache makes a file of this name before it publishes an object: with another suffix
   * beside the objects, and under the name of the object in a directory for temporary files.
   */
  isForeignTemporary(name: string, isApart: boolean): boolean {
    const suffix = this.#suffixOfLmcache(name);
    return suffix === "tmp" || (suffix === "data" && isApart);
  }

  #suffixOfLmcache(name: string): string | undefined {
    return this.#layout === "lmcache" ? LMCACHE_NAME.exec(name)?.[1] : undefined;
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

/** Stands before the digest in a name. */
const DIGEST = /~[0-9a-f]{16}(?=\.data$)/;

function digestName(key: ObjectKey): string {
  const plain = encodeFileName(key);
  const hashed = hashedFileName(key);
  // Both begin with their kind, `h-`, and end with `.data`.
  const name = `${plain.slice(0, -DATA.length)}~${hashed.slice(2, 18)}${DATA}`;
  return isHashedFileName(plain) || name.length > MAX_FILE_NAME_BYTES ? hashed : name;
}

function plainName(name: string): string {
  return name.replace(DIGEST, "");
}

// `-SEP-` stands for every `/` of the model; nothing else is escaped of what LMCache can hold.
function lmcacheName(key: ObjectKey): string {
  return spellName(key, key.model.replaceAll("/", "-SEP-"), lmcacheSalt(key.cacheSalt));
}

function decodeLmcacheName(name: string): ObjectKey | null {
  const readText = (text: string, field: "model" | "salt"): string =>
    field === "model" ? text.replaceAll("-SEP-", "/") : readLmcacheSalt(text);
  return parseName(name, readText, lmcacheName);
}

// A salt that LMCache refuses is escaped and begins with an `@`: LMCache takes no such name for one
// of its own, and none of its salts can look like it.
function lmcacheSalt(salt: string): string {
  if (!/[@/\\]/.test(salt)) return salt;
  return `@${salt.replaceAll(/[%@/\\]/g, encodeURIComponent)}`;
}

function readLmcacheSalt(text: string): string {
  return text.startsWith("@")
    ? text.slice(1).replaceAll(/%[0-9A-F]{2}/g, decodeURIComponent)
    : text;
}
