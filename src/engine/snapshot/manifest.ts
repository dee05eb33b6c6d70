/** Size of a manifest in bytes: a header, and the tokens of the largest possible chunk. */
export const MANIFEST_BYTES = 8192;
/** Maximum number of tokens after the last complete chunk. */
export const MAX_TAIL_TOKENS: number = (MANIFEST_BYTES - 48) / 4;

const MAGIC = 0x4b565331;

/** Names the parts of a saved state, and the tokens after the last complete chunk it covers. */
export interface Manifest {
  /** SHA-256 of the state. */
  readonly digest: Uint8Array<ArrayBuffer>;
  /** Size of the state in bytes. */
  readonly byteLength: number;
  /** Tokens after the last complete chunk, which the manifest's key identifies. */
  readonly tail: readonly number[];
}

/**
 * Encodes a manifest, big-endian: magic number, number of tokens, size of the state (64 bits), its
 * digest, the tokens, zero padding.
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

/** Decodes a manifest; returns `undefined` if the bytes are not one. */
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
