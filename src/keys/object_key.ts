import { sha256 } from "../base/digest.ts";
import { checkNotNullish, checkString, typeInWords } from "../base/options.ts";

/** Longest model name, in UTF-8 bytes. */
export const MAX_MODEL_BYTES = 256;
/** Longest cache salt, in characters (Unicode code points); the same limit as LMCache's. */
export const MAX_SALT_CHARACTERS = 128;
/** Longest cache salt, in UTF-8 bytes. */
export const MAX_SALT_BYTES: number = 4 * MAX_SALT_CHARACTERS;
/** Length of a chunk hash, in bytes. */
export const CHUNK_HASH_BYTES = 32;

const encoder = new TextEncoder();
// A leading U+FEFF is part of the string, not a byte order mark.
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
// All chunks of a prompt share model and salt, so the last valid ones are not checked again.
let lastValidModel = "m";
let lastValidSalt = "";
/** Fields whose default may name another tenant's or rank's object: they must not be nullish. */
const OPTIONAL_FIELDS = ["cacheSalt", "kvRank", "objectGroup"];
const DIGEST_DOMAIN = encoder.encode("kvtier object key 1");

/** The fields of an {@linkcode ObjectKey}. */
export interface ObjectKeyFields {
  /** Hash of the prefix that ends with this chunk: 32 bytes. */
  readonly chunkHash: Uint8Array;
  /** Model name: 1 to 256 UTF-8 bytes without `@`, NUL and control characters. */
  readonly model: string;
  /** Identifies the part of the model's KV; see {@linkcode packKvRank}. @default {0} */
  readonly kvRank?: number;
  /** Index of the group of layers, for models with several kinds of attention. @default {0} */
  readonly objectGroup?: number;
  /**
   * Isolates tenants: a string of at most 128 characters without NUL and control characters.
   * Compared exactly, never normalized. Adapters encode characters that their names cannot contain.
   *
   * @default {""}
   */
  readonly cacheSalt?: string;
}

/**
 * Identifies one cached object: the KV of one chunk of a prefix, for one model, rank, group and
 * tenant. Immutable.
 */
export class ObjectKey {
  /** Model name. */
  readonly model: string;
  /** World size, rank, local world size and local rank, one byte each. */
  readonly kvRank: number;
  /** Object group. */
  readonly objectGroup: number;
  /** Cache salt, `""` for none. */
  readonly cacheSalt: string;
  /** Canonical string of all fields. Equal exactly for equal keys, so it can key a `Map`. */
  readonly id: string;
  readonly #chunkHash: Uint8Array;
  #digest: Uint8Array | undefined;

  /**
   * Validates and copies the fields.
   *
   * @throws {TypeError} If the model name or the salt has a forbidden character, or an optional
   * field is present but `undefined` or `null`.
   * @throws {RangeError} If a field has the wrong length or is out of range.
   */
  constructor(fields: ObjectKeyFields) {
    checkNotNullish("Object key", fields, OPTIONAL_FIELDS);
    const { chunkHash, model, kvRank = 0, objectGroup = 0, cacheSalt = "" } = fields;
    if (!(chunkHash instanceof Uint8Array)) {
      throw new TypeError(`Chunk hash must be a Uint8Array: received ${typeInWords(chunkHash)}`);
    }
    if (chunkHash.length !== CHUNK_HASH_BYTES) {
      throw new RangeError(
        `Chunk hash must have ${CHUNK_HASH_BYTES} bytes: received ${chunkHash.length}`,
      );
    }
    validateModelName(model);
    validateCacheSalt(cacheSalt);
    checkBelow(2 ** 32, "kvRank", kvRank);
    checkBelow(2 ** 32, "objectGroup", objectGroup);
    this.#chunkHash = chunkHash.slice();
    this.model = model;
    this.kvRank = kvRank;
    this.objectGroup = objectGroup;
    this.cacheSalt = cacheSalt;
    const hash = this.#chunkHash.toHex();
    this.id = `${model}@${kvRank.toString(16)}@${objectGroup.toString(16)}@${hash}@${cacheSalt}`;
  }

  /** Hash of the prefix that ends with this chunk: a copy of 32 bytes. */
  get chunkHash(): Uint8Array {
    return this.#chunkHash.slice();
  }

  /** The chunk hash as 64 lower-case hexadecimal digits. */
  get chunkHashHex(): string {
    return this.#chunkHash.toHex();
  }

  /** The key of another chunk of the same model, rank, group and salt. */
  withChunkHash(chunkHash: Uint8Array): ObjectKey {
    const { model, kvRank, objectGroup, cacheSalt } = this;
    return new ObjectKey({ chunkHash, model, kvRank, objectGroup, cacheSalt });
  }

  /** Encodes all fields, with length prefixes: the bytes that {@linkcode digest} hashes. */
  toBytes(): Uint8Array<ArrayBuffer> {
    const model = encoder.encode(this.model);
    const salt = encoder.encode(this.cacheSalt);
    const bytes = new Uint8Array(CHUNK_HASH_BYTES + 4 + 4 + 2 + model.length + 2 + salt.length);
    const view = new DataView(bytes.buffer);
    bytes.set(this.#chunkHash, 0);
    view.setUint32(32, this.kvRank, true);
    view.setUint32(36, this.objectGroup, true);
    view.setUint16(40, model.length, true);
    bytes.set(model, 42);
    view.setUint16(42 + model.length, salt.length, true);
    bytes.set(salt, 44 + model.length);
    return bytes;
  }

  /**
   * Decodes the result of {@linkcode toBytes}.
   *
   * @throws {RangeError} If the length does not match the encoded fields, or a field is out of
   * range.
   * @throws {TypeError} If the model name or the salt is not UTF-8 or has a forbidden character.
   */
  static fromBytes(bytes: Uint8Array): ObjectKey {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const modelEnd = 42 + view.getUint16(40, true);
    const end = modelEnd + 2 + view.getUint16(modelEnd, true);
    if (end !== bytes.byteLength) {
      throw new RangeError(`An encoded key must have ${end} bytes: received ${bytes.byteLength}`);
    }
    return new ObjectKey({
      chunkHash: bytes.subarray(0, CHUNK_HASH_BYTES),
      kvRank: view.getUint32(32, true),
      objectGroup: view.getUint32(36, true),
      model: decoder.decode(bytes.subarray(42, modelEnd)),
      cacheSalt: decoder.decode(bytes.subarray(modelEnd + 2)),
    });
  }

  /** SHA-256 over a domain prefix and {@linkcode toBytes}: 32 bytes, which must not be modified. */
  get digest(): Uint8Array {
    return this.#digest ??= sha256(DIGEST_DOMAIN, this.toBytes());
  }

  /** Whether all fields are equal. */
  equals(other: ObjectKey): boolean {
    return this.id === other.id;
  }

  /** The canonical string, {@linkcode id}. */
  toString(): string {
    return this.id;
  }
}

/** The four numbers in a KV rank, each from 0 to 255. */
export interface KvRankFields {
  /** Number of ranks that share the model. */
  readonly worldSize: number;
  /** Global index of this rank. */
  readonly rank: number;
  /** Number of ranks on this host. */
  readonly localWorldSize: number;
  /** Index of this rank on its host. */
  readonly localRank: number;
}

/**
 * Packs a rank into the 32 bits that an {@linkcode ObjectKey} carries, one byte per field.
 *
 * @throws {RangeError} If a number does not fit into a byte.
 */
export function packKvRank(fields: KvRankFields): number {
  const { worldSize, rank, localWorldSize, localRank } = fields;
  for (const [name, value] of Object.entries({ worldSize, rank, localWorldSize, localRank })) {
    checkBelow(256, name, value);
  }
  return (worldSize << 24 | rank << 16 | localWorldSize << 8 | localRank) >>> 0;
}

/** Unpacks a KV rank; the inverse of {@linkcode packKvRank}. */
export function unpackKvRank(kvRank: number): KvRankFields {
  return {
    worldSize: kvRank >>> 24,
    rank: kvRank >>> 16 & 255,
    localWorldSize: kvRank >>> 8 & 255,
    localRank: kvRank & 255,
  };
}

/**
 * Checks a model name.
 *
 * @throws {TypeError} If it is not a string, or has a forbidden character.
 * @throws {RangeError} If it is empty or too long.
 */
export function validateModelName(model: string): void {
  if (model === lastValidModel) return;
  if (model === "") throw new RangeError("Model name must not be empty");
  validateString("Model name", model, "@");
  const bytes = encoder.encode(model).length;
  if (bytes > MAX_MODEL_BYTES) {
    throw new RangeError(
      `Model name must have at most ${MAX_MODEL_BYTES} UTF-8 bytes: received ${bytes}`,
    );
  }
  lastValidModel = model;
}

/**
 * Checks a cache salt.
 *
 * @throws {TypeError} If it is not a string, or has a forbidden character.
 * @throws {RangeError} If it is too long.
 */
export function validateCacheSalt(salt: string): void {
  if (salt === lastValidSalt) return;
  validateString("Cache salt", salt, "");
  const characters = [...salt].length;
  if (characters > MAX_SALT_CHARACTERS) {
    throw new RangeError(
      `Cache salt must have at most ${MAX_SALT_CHARACTERS} characters: received ${characters}`,
    );
  }
  lastValidSalt = salt;
}

function validateString(what: string, value: unknown, forbidden: string): void {
  checkString(what, value);
  for (const char of value) {
    const code = char.codePointAt(0) ?? 0;
    const isControl = code < 0x20 || (code >= 0x7f && code <= 0x9f);
    if (!isControl && !forbidden.includes(char)) continue;
    const shown = isControl ? `U+${code.toString(16).toUpperCase().padStart(4, "0")}` : `'${char}'`;
    const other = forbidden === "" ? "" : `'${forbidden}', `;
    throw new TypeError(
      `${what} must not contain ${other}NUL or control characters: received ${shown}`,
    );
  }
}

function checkBelow(end: number, name: string, value: number): void {
  if (Number.isInteger(value) && value >= 0 && value < end) return;
  throw new RangeError(`${name} must be an integer from 0 to ${end - 1}: received ${value}`);
}
