/** Number of bytes in all parts. */
export function lengthOfParts(parts: readonly Uint8Array[]): number {
  return parts.reduce((sum, part) => sum + part.byteLength, 0);
}

/** Copies all parts into one new array. */
export function concatParts(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(lengthOfParts(parts));
  copyParts(parts, bytes);
  return bytes;
}

/** Copies all parts into `target`, from `offset` on. */
export function copyParts(parts: readonly Uint8Array[], target: Uint8Array, offset = 0): void {
  let end = offset;
  for (const part of parts) {
    target.set(part, end);
    end += part.byteLength;
  }
}

/**
 * Copies `bytes` into the parts.
 *
 * @returns Whether they fit exactly; if not, or if there are no bytes, nothing is copied.
 */
export function fillParts(parts: readonly Uint8Array[], bytes: Uint8Array | undefined): boolean {
  const wanted = lengthOfParts(parts);
  if (bytes?.byteLength !== wanted) return false;
  const [only] = parts;
  if (only?.byteLength === wanted) {
    only.set(bytes);
    return true;
  }
  let offset = 0;
  for (const part of parts) {
    part.set(bytes.subarray(offset, offset + part.byteLength));
    offset += part.byteLength;
  }
  return true;
}

/** Views of the first `byteLength` bytes. */
export function frontOfParts<Buffer extends ArrayBufferLike>(
  parts: readonly Uint8Array<Buffer>[],
  byteLength: number,
): Uint8Array<Buffer>[] {
  const front: Uint8Array<Buffer>[] = [];
  let left = byteLength;
  for (const part of parts) {
    if (left <= 0) break;
    front.push(part.byteLength <= left ? part : part.subarray(0, left));
    left -= part.byteLength;
  }
  return front;
}

/** The bytes from `start` to `end`: a view if they lie in one part, otherwise a copy. */
export function sliceParts<Buffer extends ArrayBufferLike>(
  parts: readonly Uint8Array<Buffer>[],
  start: number,
  end: number,
): Uint8Array<Buffer | ArrayBuffer> {
  const view = viewOfParts(parts, start, end);
  if (view !== undefined) return view;
  const copy = new Uint8Array(end - start);
  readParts(parts, start, copy);
  return copy;
}

/** The bytes from `start` to `end` as a view; `undefined` if they span several parts. */
export function viewOfParts<Buffer extends ArrayBufferLike>(
  parts: readonly Uint8Array<Buffer>[],
  start: number,
  end: number,
): Uint8Array<Buffer> | undefined {
  let offset = 0;
  for (const part of parts) {
    if (start >= offset && end <= offset + part.byteLength) {
      return part.subarray(start - offset, end - offset);
    }
    offset += part.byteLength;
  }
  return undefined;
}

/** Copies the bytes from `start` on into `target`, up to its length. */
export function readParts(parts: readonly Uint8Array[], start: number, target: Uint8Array): void {
  forEachOverlap(parts, start, target.byteLength, (part, done) => target.set(part, done));
}

/** Writes `bytes` at `start`. */
export function writeParts(parts: readonly Uint8Array[], start: number, bytes: Uint8Array): void {
  forEachOverlap(parts, start, bytes.byteLength, (part, done) => {
    part.set(bytes.subarray(done, done + part.byteLength));
  });
}

/** Whether bytes lie in memory of this thread alone, which some functions of the host require. */
export function isUnshared(bytes: Uint8Array): bytes is Uint8Array<ArrayBuffer> {
  return bytes.buffer instanceof ArrayBuffer;
}

/** Visits what each part holds of the `byteLength` bytes from `start` on. */
function forEachOverlap(
  parts: readonly Uint8Array[],
  start: number,
  byteLength: number,
  visit: (part: Uint8Array, done: number) => void,
): void {
  let offset = 0;
  for (const part of parts) {
    const from = Math.max(start, offset);
    const to = Math.min(start + byteLength, offset + part.byteLength);
    if (from < to) visit(part.subarray(from - offset, to - offset), from - start);
    offset += part.byteLength;
  }
}
