import { createHash } from "node:crypto";

/** SHA-256 of the concatenation of `parts`: 32 bytes. */
export function sha256(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const digest = createDigest();
  for (const part of parts) digest.update(part);
  return digest.finish();
}

/** A SHA-256 that is computed piece by piece. */
export interface Digest {
  /** Adds bytes. */
  update(bytes: Uint8Array): void;
  /** The 32 bytes of the digest; it takes nothing more. */
  finish(): Uint8Array<ArrayBuffer>;
}

/** A SHA-256 of nothing yet. */
export function createDigest(): Digest {
  const hash = createHash("sha256");
  return {
    update: (bytes) => void hash.update(bytes),
    finish: () => new Uint8Array(hash.digest()),
  };
}
