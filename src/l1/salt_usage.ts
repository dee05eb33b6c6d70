/** Bytes in use by cache salt. A salt without bytes takes no memory. */
export class SaltUsage {
  readonly #bytes = new Map<string, number>();

  /** Adds bytes to a salt; a negative number subtracts them. */
  add(salt: string, bytes: number): void {
    const sum = this.of(salt) + bytes;
    if (sum === 0) this.#bytes.delete(salt);
    else this.#bytes.set(salt, sum);
  }

  /** Current bytes of a salt. */
  of(salt: string): number {
    return this.#bytes.get(salt) ?? 0;
  }

  /** A copy of the bytes of each salt that has any. */
  all(): Map<string, number> {
    return new Map(this.#bytes);
  }
}
