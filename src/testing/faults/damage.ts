import { type AdapterObject, Bitmap, concatParts, frontOfParts } from "../../adapter/contract.ts";

/** The first half of an object, sharing its buffers. */
export function firstHalf({ key, parts, byteLength }: AdapterObject): AdapterObject {
  const half = Math.floor(byteLength / 2);
  return { key, parts: frontOfParts(parts, half), byteLength: half };
}

/** A copy of an object with one bit flipped, which `pick` chooses. */
export function flippedCopy(
  { key, parts, byteLength }: AdapterObject,
  pick: (limit: number) => number,
): AdapterObject {
  const copy = { key, parts: [concatParts(parts)], byteLength };
  flipBit(copy.parts, pick(8 * byteLength));
  return copy;
}

/** Flips one bit of the parts. */
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

/** Saves the bytes in the second half of the parts; the returned function restores them. */
export function saveSecondHalf({ parts, byteLength }: AdapterObject): () => void {
  let skipped = Math.floor(byteLength / 2);
  const saved = parts.map((part) => {
    const target = part.subarray(skipped);
    skipped -= Math.min(skipped, part.byteLength);
    return { target, bytes: target.slice() };
  });
  return () => {
    for (const { target, bytes } of saved) target.set(bytes);
  };
}

/** A copy of a result with an extra bit. */
export function withExtraBit(bits: Bitmap): Bitmap {
  const longer = new Bitmap(bits.length + 1);
  for (let i = 0; i < bits.length; i++) if (bits.test(i)) longer.set(i);
  return longer;
}
