/** Bytes in use under each cache salt; a salt without bytes takes no memory. */
export class SaltUsage {
  readonly #bytes = new Map<string, number>();

  /** Counts bytes that a salt took, or gave back if negative. */
  add(salt: string, bytes: number): void {
    const sum = this.of(salt) + bytes;
    if (sum === 0) this.#bytes.delete(salt);
    else this.#bytes.set(salt, sum);
  }

  /** Bytes of a salt now. */
  of(salt: string): number {
    return this.#bytes.get(salt) ?? 0;
  }

  /** Bytes of all salts that have any; a copy. */
  all(): Map<string, number> {
    return new Map(this.#bytes);
  }
}
