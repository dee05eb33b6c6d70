import {
  decodeFileName,
  encodeFileName,
  isHashedFileName,
  type ObjectKey,
} from "../../src/adapter/contract.ts";
import {
  hashedFileName,
  MAX_FILE_NAME_BYTES,
  parseName,
  spellName,
} from "../../src/keys/key_codec.ts";

/** Naming scheme and directory layout of objects. */
export type FileLayout = "kvtier" | "lmcache";

/**
 * What a file name tells: the key; that the key is in the file; `no-key` for an LMCache file whose
 * key cannot be represented here; or `null` for other files.
 */
export type NamedObject = { readonly key: ObjectKey } | "key-in-file" | "no-key" | null;

const DATA = ".data";
const encoder = new TextEncoder();
/**
 * Names that LMCache builds from any model, rank, group, hash and salt, including hashes of 8 and
 * 16 bytes, long salts, control characters and ranks above 32 bits.
 */
const LMCACHE_NAME =
  /@0x[0-9a-f]{8,}@[0-9a-f]+@(?:[0-9a-f]{2})+(?:@[^]+)?\.(?:data\.(?=tmp))?(data|tmp)$/;

/**
 * Maps objects of a directory to paths. `shards` is the number of levels of sub-directories; each
 * is named by the next two digits of the chunk hash.
 */
export class ObjectPaths {
  readonly basePath: string;
  readonly #layout: FileLayout;
  readonly #shards: number;
  #hasDigests = false;

  constructor(options: { basePath: string; layout: FileLayout; shards: number }) {
    this.basePath = options.basePath;
    this.#layout = options.layout;
    this.#shards = options.shards;
  }

  /**
   * Adds a digest of the key to all names of the kvtier layout from now on, for file systems that
   * treat names as equal that differ in case or Unicode form. LMCache names stay, because other
   * tools rely on them.
   */
  addDigests(): void {
    this.#hasDigests = this.#layout === "kvtier";
  }

  pathOf(key: ObjectKey): string {
    return `${this.directoryOf(key)}/${this.nameOf(key)}`;
  }

  directoryOf(key: ObjectKey): string {
    if (this.#shards === 0) return this.basePath;
    const hash = key.chunkHashHex;
    let path = this.basePath;
    for (let level = 0; level < this.#shards; level++) {
      path = `${path}/${hash.slice(2 * level, 2 * level + 2)}`;
    }
    return path;
  }

  nameOf(key: ObjectKey): string {
    if (this.#hasDigests) return digestName(key);
    if (this.#layout === "kvtier") return encodeFileName(key);
    const name = lmcacheName(key);
    // Falls back to a digest if LMCache's name would be too long or ambiguous.
    const isFaithful = encoder.encode(name).length <= MAX_FILE_NAME_BYTES &&
      decodeLmcacheName(name)?.equals(key) === true;
    return isFaithful ? name : hashedFileName(key);
  }

  /** Parses the name of a file in `directory`. */
  objectNamed(directory: string, name: string): NamedObject {
    if (isHashedFileName(name)) return "key-in-file";
    const key = this.#layout === "kvtier"
      ? decodeFileName(plainName(name))
      : decodeLmcacheName(name);
    const isHere = key !== null && this.directoryOf(key) === directory;
    if (isHere && this.nameOf(key) === name) return { key };
    // Never looked up: it lies in the wrong directory, has no key, or has the name for another file
    // system. Files of LMCache and kvtier still count.
    return isHere || this.#suffixOfLmcache(name) === "data" ? "no-key" : null;
  }

  /**
   * Whether LMCache uses such a name for a file that it has not published yet: with another suffix
   * next to the objects, or with the object's name in a directory for temporary files.
   */
  isForeignTemporary(name: string, isApart: boolean): boolean {
    const suffix = this.#suffixOfLmcache(name);
    return suffix === "tmp" || (suffix === "data" && isApart);
  }

  #suffixOfLmcache(name: string): string | undefined {
    return this.#layout === "lmcache" ? LMCACHE_NAME.exec(name)?.[1] : undefined;
  }

  /** Whether a directory at a level below the base directory may contain objects. */
  isShard(level: number, name: string): boolean {
    return level < this.#shards && /^[0-9a-f]{2}$/.test(name);
  }

  /** The shard directories if there is one level; more levels are too many to create in advance. */
  *shards(): Generator<string, void> {
    if (this.#shards !== 1) return;
    for (let i = 0; i < 256; i++) yield `${this.basePath}/${i.toString(16).padStart(2, "0")}`;
  }

  /** Number of levels of sub-directories. */
  get levels(): number {
    return this.#shards;
  }
}

/** The digest in a name, with its separator. */
const DIGEST = /~[0-9a-f]{16}(?=\.data$)/;

function digestName(key: ObjectKey): string {
  const plain = encodeFileName(key);
  const hashed = hashedFileName(key);
  // Both names end with ".data"; the hashed one begins with "h-".
  const name = `${plain.slice(0, -DATA.length)}~${hashed.slice(2, 18)}${DATA}`;
  return isHashedFileName(plain) || name.length > MAX_FILE_NAME_BYTES ? hashed : name;
}

function plainName(name: string): string {
  return name.replace(DIGEST, "");
}

// LMCache replaces each "/" of the model with "-SEP-", and escapes nothing else.
function lmcacheName(key: ObjectKey): string {
  return spellName(key, key.model.replaceAll("/", "-SEP-"), lmcacheSalt(key.cacheSalt));
}

function decodeLmcacheName(name: string): ObjectKey | null {
  const readText = (text: string, field: "model" | "salt"): string =>
    field === "model" ? text.replaceAll("-SEP-", "/") : readLmcacheSalt(text);
  return parseName(name, readText, lmcacheName);
}

// A salt that LMCache refuses is escaped and prefixed with "@": LMCache ignores such names, and
// none of its own salts looks like that.
function lmcacheSalt(salt: string): string {
  if (!/[@/\\]/.test(salt)) return salt;
  return `@${salt.replaceAll(/[%@/\\]/g, encodeURIComponent)}`;
}

function readLmcacheSalt(text: string): string {
  return text.startsWith("@")
    ? text.slice(1).replaceAll(/%[0-9A-F]{2}/g, decodeURIComponent)
    : text;
}
