import { sha256 } from "../base/digest.ts";
import {
  checkNotNullish,
  checkNumber,
  checkOptionKeys,
  checkString,
  numberInWords,
  typeInWords,
} from "../base/options.ts";
import type { KvLayout } from "./kv_layout.ts";
import { validateCacheSalt, validateModelName } from "./object_key.ts";

/**
 * Token ids: integers from 0 to 4294967295. Tokenizers return them as numbers or 64-bit integers.
 */
export type TokenIds = ArrayLike<number> | ArrayLike<bigint>;

/** An input other than tokens that changes K and V from a token on, such as an image. */
export interface PositionedKey {
  /** Index of the first token it affects: for an image, its first placeholder. */
  readonly atToken: number;
  /** Identifies the input: for an image, its digest. Not empty. */
  readonly key: string;
}

/** Fields whose default is shared between callers; they must not be `undefined` or `null`. */
const SHARING_FIELDS = ["revision", "windows", "salt", "extraKey"];
const POSITIONED_DOMAIN = new TextEncoder().encode("kvtier positioned keys 1");

/** Everything besides the tokens that determines the KV bytes of a prefix. */
export interface PrefixIdentity {
  /** Model name, as in an object key. */
  readonly model: string;
  /** Version of the weights: a commit, a release, a digest. @default {""} */
  readonly revision?: string;
  /** Layout of one chunk, or one layout per group if the layers form several groups. */
  readonly layout: KvLayout | readonly KvLayout[];
  /** Attention window of each group in tokens; `undefined` for full attention. @default {[]} */
  readonly windows?: readonly (number | undefined)[];
  /** Cache salt, as in an object key. @default {""} */
  readonly salt?: string;
  /** Any other input that changes K and V of all tokens. @default {""} */
  readonly extraKey?: string;
}

/**
 * Computes the hash that precedes the first chunk: a digest of model, revision, KV dtype, layout,
 * chunk size, windows, salt and extra key. A change to any of them changes every hash of the chain.
 *
 * @returns 32 bytes.
 * @throws {TypeError | RangeError} If the model name or the salt is not valid in an object key, or
 * an optional field is present but `undefined` or `null`.
 */
export function rootHash(identity: PrefixIdentity): Uint8Array<ArrayBuffer> {
  checkNotNullish("Prefix identity", identity, SHARING_FIELDS);
  const { model, revision = "", layout, windows = [], salt = "", extraKey = "" } = identity;
  validateModelName(model);
  validateCacheSalt(salt);
  const [first, ...others] = "fingerprint" in layout ? [layout] : layout;
  if (first === undefined) throw new RangeError("layout must not be empty: received none");
  checkString("revision", revision);
  checkString("extraKey", extraKey);
  const hasWindows = windows.some((tokens) => tokens !== undefined);
  // JSON quotes every string, so different lists of fields never share an encoding.
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

/** Options of {@linkcode chunkHashes}. */
export interface ChunkHashOptions {
  /** Maximum number of chunks to hash. @default {Infinity} */
  readonly maxChunks?: number;
  /**
   * Inputs that change K and V from a token on, in any order. Each changes the hash of the chunk
   * that contains its token, and so of all later chunks. Keys beyond the last complete chunk have
   * no effect.
   *
   * @default {[]}
   */
  readonly positionedKeys?: readonly PositionedKey[];
}

/**
 * Computes chained hashes of the complete chunks of a token sequence: `h[i] = SHA-256(h[i-1] ||
 * tokens of chunk i as big-endian uint32)`. Each hash therefore identifies the whole prefix up to
 * the end of its chunk. vLLM and LMCache use the same scheme.
 *
 * @param root The hash that precedes the first chunk, from {@linkcode rootHash}.
 * @param tokens Token ids, each an integer from 0 to 4294967295.
 * @param chunkTokens Tokens per chunk. An incomplete last chunk has no hash.
 * @returns One hash of 32 bytes per complete chunk.
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
  checkNumber("chunkTokens", chunkTokens, { minimum: 1, multipleOf: 1 });
  const chunks = Math.min(Math.floor(tokens.length / chunkTokens), maxChunks);
  const encoded = new Uint8Array(chunks * chunkTokens * 4);
  const view = new DataView(encoded.buffer);
  for (let i = 0; i < chunks * chunkTokens; i++) view.setUint32(i * 4, tokenAt(tokens, i));
  const keysByChunk = Map.groupBy(positionedKeys, (key) => Math.floor(key.atToken / chunkTokens));
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
 * Returns the token id at `index`.
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

/**
 * Mixes the positioned keys of a chunk into the hash that precedes it, independent of their order.
 */
function withPositionedKeys(previous: Uint8Array, keys: readonly PositionedKey[]): Uint8Array {
  const sorted = keys.map(({ atToken, key }) => [atToken, key] as const)
    .sort(([a, x], [b, y]) => a - b || (x < y ? -1 : x > y ? 1 : 0));
  // JSON quotes every string, so different lists of keys never share an encoding.
  return sha256(POSITIONED_DOMAIN, previous, new TextEncoder().encode(JSON.stringify(sorted)));
}

/**
 * Throws unless `tokens` is array-like. Each id is checked when it is hashed.
 *
 * @throws {TypeError} If `tokens` has no length.
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
    checkString(`${what}.key`, key);
    if (key === "") throw new RangeError(`${what}.key must not be empty`);
  }
}
