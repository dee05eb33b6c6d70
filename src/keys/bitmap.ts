/**
 * One bit per key of a batch: set for success, clear for a miss or a failure.
 *
 * Bits outside `0 … length - 1` read as clear, and setting or clearing them does nothing.
 */
export class Bitmap {
  /** Number of bits. */
  readonly length: number;
  readonly #words: Uint32Array;

  /**
   * Creates a bitmap in which the first `prefixBits` bits are set and the others clear.
   *
   * @param length Number of bits.
   * @param prefixBits Number of set bits, starting at index 0. Values above `length` set all bits.
   * @throws {RangeError} If either number is negative or not an integer.
   */
  constructor(length: number, prefixBits = 0) {
    checkCount("length", length);
    checkCount("prefixBits", prefixBits);
    this.length = length;
    this.#words = new Uint32Array(Math.ceil(length / 32));
    const ones = Math.min(prefixBits, length);
    this.#words.fill(0xffffffff, 0, ones >>> 5);
    if (ones & 31) this.#words[ones >>> 5] = 2 ** (ones & 31) - 1;
  }

  /** Creates a bitmap with the bits at `indices` set. */
  static of(length: number, indices: Iterable<number>): Bitmap {
    const bitmap = new Bitmap(length);
    bitmap.setAll(indices);
    return bitmap;
  }

  /** Creates a bitmap with one bit per item, set where `test` returns `true`. */
  static from<T>(items: readonly T[], test: (item: T, index: number) => boolean): Bitmap {
    const bitmap = new Bitmap(items.length);
    for (const [index, item] of items.entries()) if (test(item, index)) bitmap.set(index);
    return bitmap;
  }

  /** Sets the bit at `index`. */
  set(index: number): void {
    if (this.#has(index)) this.#words[index >>> 5] = this.#word(index >>> 5) | (1 << (index & 31));
  }

  /** Sets the bits at `indices`. */
  setAll(indices: Iterable<number>): void {
    for (const index of indices) this.set(index);
  }

  /** Clears the bit at `index`. */
  clear(index: number): void {
    if (this.#has(index)) this.#words[index >>> 5] = this.#word(index >>> 5) & ~(1 << (index & 31));
  }

  /** Whether the bit at `index` is set. */
  test(index: number): boolean {
    return this.#has(index) && (this.#word(index >>> 5) >>> (index & 31) & 1) === 1;
  }

  /** Number of set bits. */
  popcount(): number {
    let count = 0;
    for (const word of this.#words) count += popcount32(word);
    return count;
  }

  /** Number of clear bits before the first set one; `length` if none is set. */
  countLeadingZeros(): number {
    return this.#leading(0);
  }

  /** Number of set bits before the first clear one: the length of the complete prefix. */
  countLeadingOnes(): number {
    return this.#leading(0xffffffff);
  }

  /** The bits set in both. The result has the length of the shorter bitmap. */
  and(other: Bitmap): Bitmap {
    return this.#combine(other, (a, b) => a & b);
  }

  /** The bits set in either. The result has the length of the shorter bitmap. */
  or(other: Bitmap): Bitmap {
    return this.#combine(other, (a, b) => a | b);
  }

  /** The complement of this bitmap. */
  invert(): Bitmap {
    const full = new Bitmap(this.length, this.length);
    return this.#combine(full, (a, b) => ~a & b);
  }

  /** The indices of the set bits, ascending. */
  indices(): number[] {
    const found: number[] = [];
    for (let w = 0; w < this.#words.length; w++) {
      for (let word = this.#word(w); word !== 0; word &= word - 1) {
        found.push(w * 32 + 31 - Math.clz32(word & -word));
      }
    }
    return found;
  }

  /** The indices of the set bits, as a set. */
  indexSet(): Set<number> {
    return new Set(this.indices());
  }

  /** The items whose bits are set, in order; bits beyond the last item are skipped. */
  gather<T>(items: readonly T[]): T[] {
    const gathered: T[] = [];
    for (const index of this.indices()) {
      if (index < items.length) gathered.push(items[index] as T);
    }
    return gathered;
  }

  /** The bits as a string of `0` and `1`, index 0 first. */
  toString(): string {
    return Array.from({ length: this.length }, (_, i) => this.test(i) ? "1" : "0").join("");
  }

  #has(index: number): boolean {
    return Number.isInteger(index) && index >= 0 && index < this.length;
  }

  #word(index: number): number {
    return this.#words[index] ?? 0;
  }

  #leading(word: 0 | 0xffffffff): number {
    for (let w = 0; w < this.#words.length; w++) {
      const different = (this.#word(w) ^ word) >>> 0;
      if (different !== 0) {
        return Math.min(this.length, w * 32 + 31 - Math.clz32(different & -different));
      }
    }
    return this.length;
  }

  #combine(other: Bitmap, operation: (a: number, b: number) => number): Bitmap {
    const result = new Bitmap(Math.min(this.length, other.length));
    for (let w = 0; w < result.#words.length; w++) {
      result.#words[w] = operation(this.#word(w), other.#word(w));
    }
    if (result.length & 31) {
      const last = result.#words.length - 1;
      result.#words[last] = result.#word(last) & (2 ** (result.length & 31) - 1);
    }
    return result;
  }
}

function checkCount(name: string, value: number): void {
  if (Number.isSafeInteger(value) && value >= 0) return;
  throw new RangeError(`Bitmap ${name} must be an integer of at least 0: received ${value}`);
}

function popcount32(word: number): number {
  let n = word - ((word >>> 1) & 0x55555555);
  n = (n & 0x33333333) + ((n >>> 2) & 0x33333333);
  return Math.imul((n + (n >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
