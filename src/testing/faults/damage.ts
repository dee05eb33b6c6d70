import { type AdapterObject, Bitmap, concatParts } from "../../l2/adapter.ts";

/** The first half of an object, where it lies. */
export function firstHalf({ key, parts, byteLength }: AdapterObject): AdapterObject {
  const half = Math.floor(byteLength / 2);
  const taken: Uint8Array<ArrayBuffer>[] = [];
  let left = half;
  for (const part of parts) {
    taken.push(part.subarray(0, left));
    left -= Math.min(left, part.byteLength);
  }
  return { key, parts: taken, byteLength: half };
}

/** A copy of an object in which one bit is another one; `pick` chooses it. */
export function flippedCopy(
  { key, parts, byteLength }: AdapterObject,
  pick: (limit: number) => number,
): AdapterObject {
  const copy = { key, parts: [concatParts(parts)], byteLength };
  flipBit(copy.parts, pick(8 * byteLength));
  return copy;
}

/** Makes one bit of the parts another one. */
export function flipBit(parts: readonly Uint8Array[], bit: number): void {
  let byte = bit >>> 3;
  for (const part of parts) {
    const value = part[byte];
    if (value !== undefined) {
      part[byte] = value ^ (1 << (bit & 7));
      return;
    }
    byte -= part.byteLength;
  }
}

/** Keeps what the second half of the parts holds now; returns a function that puts it back. */
export function keepSecondHalf({ parts, byteLength }: AdapterObject): () => void {
  let skipped = Math.floor(byteLength / 2);
  const kept = parts.map((part) => {
    const rest = part.subarray(skipped);
    skipped -= Math.min(skipped, part.byteLength);
    return { rest, bytes: rest.slice() };
  });
  return () => {
    for (const { rest, bytes } of kept) rest.set(bytes);
  };
}

/** An answer with one bit more than it should have. */
export function oneBitMore(bits: Bitmap): Bitmap {
  const longer = new Bitmap(bits.length + 1);
  for (let i = 0; i < bits.length; i++) if (bits.test(i)) longer.set(i);
  return longer;
}
