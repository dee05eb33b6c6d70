import { Buffer } from "node:buffer";

/** Reads and writes ranges of an object whose bytes lie in several parts. */
export class ObjectParts {
  readonly #parts: readonly Uint8Array<ArrayBuffer>[];

  constructor(parts: readonly Uint8Array<ArrayBuffer>[]) {
    this.#parts = parts;
  }

  /** The bytes from `start` to `end`: a view if they lie in one part, otherwise a copy. */
  slice(start: number, end: number): Buffer<ArrayBuffer> {
    const view = this.view(start, end);
    if (view !== undefined) return view;
    const copy = Buffer.allocUnsafe(end - start);
    this.copyTo(copy, start);
    return copy;
  }

  /** The bytes from `start` to `end` as a view; `undefined` if they span several parts. */
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

  /** Copies bytes from `start` on, up to the length of `target`. */
  copyTo(target: Uint8Array, start: number): void {
    this.#forEach(start, target.byteLength, (part, offset) => target.set(part, offset));
  }

  /** Writes `bytes` at `start`. */
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
