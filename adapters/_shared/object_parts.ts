import { Buffer } from "node:buffer";

/** The bytes of parts that follow one another, by their place in the whole. */
export class ObjectParts {
  readonly #parts: readonly Uint8Array<ArrayBuffer>[];

  /** Of one object. */
  constructor(parts: readonly Uint8Array<ArrayBuffer>[]) {
    this.#parts = parts;
  }

  /** The bytes from `start` to `end`: a view where they lie in one part, else a copy. */
  slice(start: number, end: number): Buffer<ArrayBuffer> {
    const view = this.view(start, end);
    if (view !== undefined) return view;
    const copy = Buffer.allocUnsafe(end - start);
    this.copyTo(copy, start);
    return copy;
  }

  /** The bytes from `start` to `end` as they lie in one part; `undefined` if they do not. */
  view(start: number, end: number): Buffer<ArrayBuffer> | undefined {
    let offset = 0;
    for (const part of this.#parts) {
      if (start >= offset && end <= offset + part.byteLength) {
        return Buffer.from(part.buffer, part.byteOffset + start - offset, end - start);
      }
      offset += part.byteLength;
    }
    return undefined;
  }

  /** Copies bytes from `start` on, as many as fit. */
  copyTo(target: Uint8Array, start: number): void {
    this.#forEach(start, target.byteLength, (part, offset) => target.set(part, offset));
  }

  /** Puts `bytes` at `start`. */
  fill(bytes: Uint8Array, start: number): void {
    this.#forEach(start, bytes.byteLength, (part, offset) => {
      part.set(bytes.subarray(offset, offset + part.byteLength));
    });
  }

  #forEach(
    start: number,
    byteLength: number,
    use: (part: Uint8Array, offset: number) => void,
  ): void {
    let partStart = 0;
    for (const part of this.#parts) {
      const from = Math.max(start, partStart);
      const to = Math.min(start + byteLength, partStart + part.byteLength);
      if (from < to) use(part.subarray(from - partStart, to - partStart), from - start);
      partStart += part.byteLength;
    }
  }
}
