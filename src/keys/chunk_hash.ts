import { sha256 } from "../runtime/digest.ts";
import {
  checkNoneLost,
  checkNumber,
  checkOptionKeys,
  numberInWords,
  typeInWords,
} from "../runtime/options.ts";
import type { KvLayout } from "./kv_layout.ts";
import { validateCacheSalt, validateModelName } from "./object_key.ts";

/** Token ids: integers from 0 to 4294967295, or what tokenizers have as 64-bit integers. */
export type TokenIds = ArrayLike<number> | ArrayLike<bigint>;

/** What changes K and V from a token on. */
export interface PositionedKey {
  /** Index of the token: of an image, that of its first placeholder. */
  readonly atToken: number;
  /** What it is: of an image, a digest. Not empty. */
  readonly key: string;
}

/** Fields that have a default: lost on the way, they would name what others share. */
const SHARING_FIELDS = ["revision", "windows", "salt", "extraKey"];
const POSITIONED_DOMAIN = new TextEncoder().encode("kvtier positioned keys 1");

/** What besides the tokens decides the bytes of a prefix's KV. */
export interface PrefixIdentity {
  /** Model name, as in an object key. */
  readonly model: string;
  /** Which weights: a commit, a version, a digest. @default {""} */
  readonly revision?: string;
  /** Layout of one chunk; where layers form several groups, that of each group. */
  readonly layout: KvLayout | readonly KvLayout[];
  /** Tokens that each group attends to; left out for a group, all. @default {[]} */
  readonly windows?: readonly (number | undefined)[];
  /** Cache salt, as in an object key. @default {""} */
  readonly salt?: string;
  /** Whatever else changes K and V of all tokens. @default {""} */
  readonly extraKey?: string;
}

/**
 * The hash before the first chunk: a digest of model, revision, KV dtype, layout, chunk size,
 * windows, salt and extra key, so that a change of any of them changes every hash of the chain.
 *
 * @returns 32 bytes.
 * @throws {TypeError | RangeError} If the model name or the salt is not valid in an object key, or
 * an optional field is there but `undefined` or `null`.
 */
export function rootHash(identity: PrefixIdentity): Uint8Array<ArrayBuffer> {
  checkNoneLost("Prefix identity", identity, SHARING_FIELDS);
  const { model, revision = "", layout, windows = [], salt = "", extraKey = "" } = identity;
  validateModelName(model);
  validateCacheSalt(salt);
  const [first, ...others] = "fingerprint" in layout ? [layout] : layout;
  if (first === undefined) throw new RangeError("Layouts must be at least one: received none");
  checkText("revision", revision);
  checkText("extraKey", extraKey);
  const hasWindows = windows.some((tokens) => tokens !== undefined);
  // JSON quotes every string, so no two lists of fields have one encoding.
  const fields = JSON.stringify([
    "kvtier prefix 1",
    model,
    revision,
    first.dtype,
    first.fingerprint.toHex(),
    first.chunkTokens,
    salt,
    ...others.map(({ fingerprint }) => fingerprint.toHex()),
    ...(hasWindows ? [{ windows: windows.map((tokens) => tokens ?? null) }] : []),
    ...(extraKey === "" ? [] : [{ extraKey }]),
  ]);
  return sha256(new TextEncoder().encode(fields));
}

/** How {@linkcode chunkHashes} goes beyond the tokens. */
export interface ChunkHashOptions {
  /** How many chunks to hash at most. @default {Infinity} */
  readonly maxChunks?: number;
  /**
   * What changes K and V from some token on, in any order: each changes the hash of the chunk that
   * has its token, and so of all later ones. Beyond the last complete chunk it changes nothing.
   *
   * @default {[]}
   */
  readonly positionedKeys?: readonly PositionedKey[];
}

/**
 * Chained hashes of the complete chunks of a token sequence: `h[i] = SHA-256(h[i-1] || tokens of
 * chunk i as big-endian uint32)`, so that each names the whole prefix up to its end. The scheme is
 * that of vLLM's and LMCache's prefix caches.
 *
 * @param root The hash before the first chunk, from {@linkcode rootHash}.
 * @param tokens Token ids, each an integer from 0 to 4294967295.
 * @param chunkTokens Tokens in a chunk; an incomplete last chunk has no hash.
 * @returns One hash of 32 bytes for each complete chunk.
 * @throws {TypeError | RangeError} If `chunkTokens`, a token id or a positioned key is not valid.
 */
export function chunkHashes(
  root: Uint8Array,
  tokens: TokenIds,
  chunkTokens: number,
  options: ChunkHashOptions = {},
): Uint8Array<ArrayBuffer>[] {
  const { maxChunks = Infinity, positionedKeys = [] } = options;
  checkTokenIds(tokens);
  checkPositionedKeys(positionedKeys);
  if (!Number.isInteger(chunkTokens) || chunkTokens < 1) {
    throw new RangeError(`chunkTokens must be an integer of at least 1: received ${chunkTokens}`);
  }
  const chunks = Math.min(Math.floor(tokens.length / chunkTokens), maxChunks);
  const encoded = new Uint8Array(chunks * chunkTokens * 4);
  const view = new DataView(encoded.buffer);
  for (let i = 0; i < chunks * chunkTokens; i++) view.setUint32(i * 4, tokenAt(tokens, i));
  const keysByChunk = Map.groupBy(
    positionedKeys,
    ({ atToken }) => Math.floor(atToken / chunkTokens),
  );
  const hashes: Uint8Array<ArrayBuffer>[] = [];
  let previous = root;
  for (let i = 0; i < chunks; i++) {
    const keys = keysByChunk.get(i);
    if (keys !== undefined) previous = withPositionedKeys(previous, keys);
    const hash = sha256(previous, encoded.subarray(i * chunkTokens * 4, (i + 1) * chunkTokens * 4));
    hashes.push(hash);
    previous = hash;
  }
  return hashes;
}

/**
 * One of some token ids.
 *
 * @throws {RangeError} If it is not an integer from 0 to 4294967295.
 */
export function tokenAt(tokens: TokenIds, index: number): number {
  const id = tokens[index];
  const token = typeof id === "bigint" ? Number(id) : id ?? NaN;
  if (Number.isInteger(token) && token >= 0 && token <= 0xffffffff) return token;
  const received = typeof id === "bigint" ? id : numberInWords(id);
  throw new RangeError(
    `Token ids must be integers from 0 to 4294967295: received ${received} at index ${index}`,
  );
}

/** The hash before a chunk in which these keys begin, whatever their order. */
function withPositionedKeys(previous: Uint8Array, keys: readonly PositionedKey[]): Uint8Array {
  const sorted = keys.map(({ atToken, key }) => [atToken, key] as const)
    .sort(([a, x], [b, y]) => a - b || (x < y ? -1 : x > y ? 1 : 0));
  // JSON quotes every string, so no two lists of keys have one encoding.
  return sha256(POSITIONED_DOMAIN, previous, new TextEncoder().encode(JSON.stringify(sorted)));
}

/**
 * Throws unless tokens have a length; each id is checked where it is hashed.
 *
 * @throws {TypeError} If they have none.
 */
export function checkTokenIds(tokens: unknown): asserts tokens is TokenIds {
  if (typeof (tokens as Partial<TokenIds> | null | undefined)?.length === "number") return;
  throw new TypeError(`Tokens must be an array of token ids: received ${typeInWords(tokens)}`);
}

function checkPositionedKeys(keys: unknown): asserts keys is readonly PositionedKey[] {
  if (!Array.isArray(keys)) {
    throw new TypeError(
      `extraKey must be a string or an array of { atToken, key }: received ${typeInWords(keys)}`,
    );
  }
  for (const [i, entry] of keys.entries()) {
    const what = `extraKey[${i}]`;
    checkOptionKeys(what, entry, ["atToken", "key"]);
    const { atToken, key } = entry as Partial<PositionedKey>;
    checkNumber(`${what}.atToken`, atToken, { minimum: 0, multipleOf: 1 });
    checkText(`${what}.key`, key);
    if (key === "") throw new RangeError(`${what}.key must not be empty`);
  }
}

function checkText(what: string, text: unknown): void {
  if (typeof text !== "string") {
    throw new TypeError(`${what} must be a string: received ${typeInWords(text)}`);
  }
  // A lone surrogate becomes U+FFFD in UTF-8: two texts would share one hash.
  if (!text.isWellFormed()) throw new TypeError(`${what} must be well-formed Unicode`);
}
