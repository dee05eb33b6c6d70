import { createHash } from "node:crypto";

/** Computes the SHA-256 of the concatenation of `parts`: 32 bytes. */
export function sha256(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const digest = createDigest();
  for (const part of parts) digest.update(part);
  return digest.finish();
}

/** A SHA-256 computed incrementally. */
export interface Digest {
  /** Adds bytes. */
  update(bytes: Uint8Array): void;
  /** Returns the 32 bytes of the digest. No method may be called afterwards. */
  finish(): Uint8Array<ArrayBuffer>;
}

/** Starts an incremental SHA-256. */
export function createDigest(): Digest {
  const hash = createHash("sha256");
  return {
    update: (bytes) => void hash.update(bytes),
    finish: () => new Uint8Array(hash.digest()),
  };
}
