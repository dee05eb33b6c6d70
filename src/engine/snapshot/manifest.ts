/** Bytes of a manifest: a header, and as many tokens as a chunk has at most. */
export const MANIFEST_BYTES = 8192;
/** Most tokens behind the last complete chunk. */
export const MAX_TAIL_TOKENS: number = (MANIFEST_BYTES - 48) / 4;

const MAGIC = 0x4b565331;

/** Which state was saved, and for which tokens behind the chunk that the key names. */
export interface Manifest {
  /** SHA-256 of the state. */
  readonly digest: Uint8Array<ArrayBuffer>;
  /** Bytes of the state. */
  readonly byteLength: number;
  /** The tokens. */
  readonly tail: readonly number[];
}

/**
 * A manifest in bytes, big-endian: magic, number of tokens, bytes of the state (64 bits), its
 * digest, the tokens, zeros.
 */
export function encodeManifest({ digest, byteLength, tail }: Manifest): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(MANIFEST_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC);
  view.setUint32(4, tail.length);
  view.setBigUint64(8, BigInt(byteLength));
  bytes.set(digest, 16);
  for (const [i, token] of tail.entries()) view.setUint32(48 + 4 * i, token);
  return bytes;
}

/** What bytes say; `undefined` if they are no manifest. */
export function decodeManifest(bytes: Uint8Array<ArrayBuffer>): Manifest | undefined {
  if (bytes.byteLength !== MANIFEST_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = view.getUint32(4);
  const byteLength = Number(view.getBigUint64(8));
  if (view.getUint32(0) !== MAGIC || count > MAX_TAIL_TOKENS) return undefined;
  if (!Number.isSafeInteger(byteLength)) return undefined;
  const tail = Array.from({ length: count }, (_, i) => view.getUint32(48 + 4 * i));
  return { digest: bytes.slice(16, 48), byteLength, tail };
}
