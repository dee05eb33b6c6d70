import { sha256 } from "../runtime/digest.ts";
import type { KvLayout } from "./kv_layout.ts";
import { validateCacheSalt, validateModelName } from "./object_key.ts";

/** Token ids: integers from 0 to 4294967295, or what tokenizers have as 64-bit integers. */
export type TokenIds = ArrayLike<number> | ArrayLike<bigint>;

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
  /** Whatever else changes K and V. @default {""} */
  readonly extraKey?: string;
}

/**
 * The hash before the first chunk: a digest of model, revision, KV dtype, layout, chunk size,
 * windows, salt and extra key, so that a change of any of them changes every hash of the chain.
 *
 * @returns 32 bytes.
 * @throws {TypeError | RangeError} If the model name or the salt is not valid in an object key.
 */
export function rootHash(identity: PrefixIdentity): Uint8Array<ArrayBuffer> {
  const { model, revision = "", layout, windows = [], salt = "", extraKey = "" } = identity;
  validateModelName(model);
  validateCacheSalt(salt);
  const [first, ...others] = "fingerprint" in layout ? [layout] : layout;
  if (first === undefined) throw new RangeError("Layouts must be at least one: received none");
  if (!revision.isWellFormed()) throw new TypeError("Revision must be well-formed Unicode");
  if (!extraKey.isWellFormed()) throw new TypeError("extraKey must be well-formed Unicode");
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

/**
 * Chained hashes of the complete chunks of a token sequence: `h[i] = SHA-256(h[i-1] || tokens of
 * chunk i as big-endian uint32)`, so that each names the whole prefix up to its end. The scheme is
 * that of vLLM's and LMCache's prefix caches.
 *
 * @param root The hash before the first chunk, from {@linkcode rootHash}.
 * @param tokens Token ids, each an integer from 0 to 4294967295.
 * @param chunkTokens Tokens in a chunk; an incomplete last chunk has no hash.
 * @param maxChunks How many chunks to hash at most. Left out, all.
 * @returns One hash of 32 bytes for each complete chunk.
 * @throws {RangeError} If `chunkTokens` or a token id is out of range.
 */
export function chunkHashes(
  root: Uint8Array,
  tokens: TokenIds,
  chunkTokens: number,
  maxChunks = Infinity,
): Uint8Array<ArrayBuffer>[] {
  if (!Number.isInteger(chunkTokens) || chunkTokens < 1) {
    throw new RangeError(`chunkTokens must be an integer of at least 1: received ${chunkTokens}`);
  }
  const chunks = Math.min(Math.floor(tokens.length / chunkTokens), maxChunks);
  const encoded = new Uint8Array(chunks * chunkTokens * 4);
  const view = new DataView(encoded.buffer);
  for (let i = 0; i < chunks * chunkTokens; i++) view.setUint32(i * 4, tokenAt(tokens, i));
  const hashes: Uint8Array<ArrayBuffer>[] = [];
  let previous = root;
  for (let i = 0; i < chunks; i++) {
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
  throw new RangeError(
    `Token ids must be integers from 0 to 4294967295: received ${token} at index ${index}`,
  );
}
