/** For `pending_batch.ts` alone: makes a proof. */
export let makeLoadProof: (
  parts: readonly Uint8Array[],
  byteLength: number,
  checksum: number,
) => LoadProof;

/**
 * Proof of the checksum of bytes that a worker thread has just read: only the pool of threads makes
 * it. It counts once, for these parts.
 */
export class LoadProof {
  readonly #parts: readonly Uint8Array[];
  readonly #byteLength: number;
  #checksum: number | undefined;

  private constructor(parts: readonly Uint8Array[], byteLength: number, checksum: number) {
    this.#parts = parts;
    this.#byteLength = byteLength;
    this.#checksum = checksum;
  }

  /**
   * The CRC-32 of the first `byteLength` bytes of parts, if `proof` is one for them that has not
   * been used.
   */
  static use(
    proof: unknown,
    parts: readonly Uint8Array[],
    byteLength: number,
  ): number | undefined {
    if (typeof proof !== "object" || proof === null || !(#checksum in proof)) return undefined;
    const checksum = proof.#checksum;
    proof.#checksum = undefined;
    const isForThem = proof.#byteLength === byteLength && areSame(proof.#parts, parts);
    return isForThem ? checksum : undefined;
  }

  static {
    makeLoadProof = (parts, byteLength, checksum) => new LoadProof(parts, byteLength, checksum);
  }
}

function areSame(some: readonly Uint8Array[], others: readonly Uint8Array[]): boolean {
  return some.length === others.length && some.every((part, i) => {
    const other = others[i];
    return part.buffer === other?.buffer && part.byteOffset === other.byteOffset &&
      part.byteLength === other.byteLength;
  });
}
