import { lengthOfParts, sliceParts, writeParts } from "../base/byte_parts.ts";
import { hasHashedFileName } from "../keys/key_codec.ts";
import type { ObjectLayout } from "../keys/kv_layout.ts";
import { MAX_MODEL_BYTES, MAX_SALT_BYTES, ObjectKey } from "../keys/object_key.ts";
import { crc32, crc32OfParts } from "../base/checksum.ts";
import { LoadProof } from "../base/io/load_proof.ts";
import { addChecksums, TRAILER_BYTES } from "../base/seal.ts";

export { TRAILER_BYTES } from "../base/seal.ts";

/** Maximum bytes behind a payload: the longest inline key and a trailer. */
export const MAX_TAIL_BYTES: number = TRAILER_BYTES + 44 + MAX_MODEL_BYTES + MAX_SALT_BYTES;
/** Format version that this code writes and reads. */
export const TRAILER_VERSION = 1;

const MAGIC = new TextEncoder().encode("KVT1");

const NOTHING = new Uint8Array(0);

/** Why an object is not the one that was requested. */
export type TrailerFault =
  | "magic"
  | "version"
  | "trailer-checksum"
  | "length"
  | "key"
  | "layout"
  | "payload-checksum"
  /** A transform cannot be reversed: wrong key, or modified bytes. */
  | "transform";

/**
 * Bytes behind the payload of an object: the canonical key, if the object's file name does not
 * spell it, and the trailer.
 */
export function tailBytes(key: ObjectKey): number {
  return TRAILER_BYTES + inlineKey(key).byteLength;
}

/** Bytes of a whole object as adapters see it: payload, inline key and trailer. */
export function bytesWithTrailer(key: ObjectKey, layout: ObjectLayout): number {
  return layout.byteLength + tailBytes(key);
}

/**
 * Writes the inline key and the trailer of an object behind its payload.
 *
 * @param parts Bytes of the object: `layout.byteLength` of payload, then `tailBytes(key)`.
 */
export function writeTrailer(
  key: ObjectKey,
  layout: ObjectLayout,
  parts: readonly Uint8Array[],
): void {
  const tail = tailWithoutChecksums(key, layout);
  addChecksums(tail, crc32OfParts(parts, layout.byteLength));
  writeParts(parts, layout.byteLength, tail);
}

/** Inline key and trailer of an object; `addChecksums()` in `base` completes them. */
export function tailWithoutChecksums(
  key: ObjectKey,
  layout: ObjectLayout,
): Uint8Array<ArrayBuffer> {
  return encodeTail(key, layout, inlineKey(key));
}

/**
 * Verifies that bytes are the object stored under a key, complete and unchanged.
 *
 * @param parts Bytes of the object, as {@linkcode writeTrailer} left them.
 * @param proof A `LoadProof`, if there is one: if it is for the payload, its checksum is not
 * computed again.
 * @returns The fault, or `null`.
 */
export function verifyObject(
  key: ObjectKey,
  layout: ObjectLayout,
  parts: readonly Uint8Array[],
  proof?: unknown,
): TrailerFault | null {
  return verify(key, layout.byteLength, layout.fingerprint, parts, proof);
}

/**
 * Like {@linkcode verifyObject}, but accepts any layout: the one that the object was stored with.
 *
 * @param byteLength Bytes of the whole object.
 * @param parts Bytes of the object.
 * @returns The fault, or `null`.
 */
export function verifyAnyLayout(
  key: ObjectKey,
  byteLength: number,
  parts: readonly Uint8Array[],
  proof?: unknown,
): TrailerFault | null {
  const payloadBytes = byteLength - tailBytes(key);
  const present = lengthOfParts(parts);
  if (payloadBytes < 0 || present !== byteLength) return "length";
  return verify(key, payloadBytes, undefined, parts, proof);
}

/**
 * Reads the inline key of an object whose file name does not spell it.
 *
 * @param end Last bytes of the object: {@linkcode MAX_TAIL_BYTES}, or all of them if there are
 * fewer.
 * @param byteLength Bytes of the whole object.
 * @returns `null` if they are not the end of such an object.
 */
export function keyInTail(end: Uint8Array, byteLength: number): ObjectKey | null {
  const trailerAt = end.byteLength - TRAILER_BYTES;
  if (trailerAt < 0) return null;
  const trailer = end.subarray(trailerAt);
  const view = new DataView(trailer.buffer, trailer.byteOffset, TRAILER_BYTES);
  if (!holds(trailer, 0, MAGIC)) return null;
  if (view.getUint32(60, true) !== crc32(trailer.subarray(0, 60))) return null;
  const keyLength = view.getUint16(6, true);
  const payloadBytes = Number(view.getBigUint64(8, true));
  if (payloadBytes + keyLength + TRAILER_BYTES !== byteLength || keyLength > trailerAt) return null;
  try {
    const key = ObjectKey.fromBytes(end.subarray(trailerAt - keyLength, trailerAt));
    return holds(trailer, 16, key.digest) ? key : null;
  } catch {
    return null;
  }
}

/** Size of a {@linkcode keyTail} in bytes. */
export function keyTailBytes(key: ObjectKey): number {
  return key.toBytes().byteLength + TRAILER_BYTES;
}

/**
 * Inline key and trailer for an adapter to append to an object without the cache's trailer, so that
 * {@linkcode keyInTail} finds its key. The trailer has no layout fingerprint.
 *
 * @param parts Bytes of the object.
 */
export function keyTail(
  key: ObjectKey,
  byteLength: number,
  parts: readonly Uint8Array[],
): Uint8Array<ArrayBuffer> {
  const layout = { byteLength, fingerprint: new Uint8Array(8) };
  const tail = encodeTail(key, layout, key.toBytes());
  addChecksums(tail, crc32OfParts(parts, byteLength));
  return tail;
}

/** Verifies the trailer; an `undefined` fingerprint accepts any layout. */
function verify(
  key: ObjectKey,
  payloadBytes: number,
  fingerprint: Uint8Array | undefined,
  parts: readonly Uint8Array[],
  proof: unknown,
): TrailerFault | null {
  const inline = inlineKey(key);
  const tailEnd = payloadBytes + inline.byteLength + TRAILER_BYTES;
  const tail = sliceParts(parts, payloadBytes, tailEnd);
  const trailer = tail.subarray(inline.byteLength);
  const view = new DataView(trailer.buffer, trailer.byteOffset, TRAILER_BYTES);
  if (!holds(trailer, 0, MAGIC)) return "magic";
  if (view.getUint32(60, true) !== crc32(trailer.subarray(0, 60))) return "trailer-checksum";
  if (view.getUint8(4) !== TRAILER_VERSION || view.getUint8(5) !== 0) return "version";
  if (view.getUint16(6, true) !== inline.byteLength) return "length";
  if (view.getUint32(8, true) + view.getUint32(12, true) * 2 ** 32 !== payloadBytes) {
    return "length";
  }
  if (!holds(trailer, 16, key.digest)) return "key";
  if (fingerprint !== undefined && !holds(trailer, 48, fingerprint)) return "layout";
  if (!holds(tail, 0, inline)) return "key";
  const checksum = LoadProof.use(proof, parts, payloadBytes) ?? crc32OfParts(parts, payloadBytes);
  return view.getUint32(56, true) === checksum ? null : "payload-checksum";
}

// Little-endian: magic 4, version u8, flags u8, key length u16, payload length u64, key digest 32,
// layout fingerprint 8, CRC-32 of the payload u32, CRC-32 of the 60 bytes before it u32.
function encodeTail(
  key: ObjectKey,
  layout: ObjectLayout,
  inline: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const tail = new Uint8Array(inline.byteLength + TRAILER_BYTES);
  tail.set(inline);
  const trailer = tail.subarray(inline.byteLength);
  const view = new DataView(trailer.buffer, trailer.byteOffset);
  trailer.set(MAGIC, 0);
  view.setUint8(4, TRAILER_VERSION);
  view.setUint16(6, inline.byteLength, true);
  view.setBigUint64(8, BigInt(layout.byteLength), true);
  trailer.set(key.digest, 16);
  trailer.set(layout.fingerprint, 48);
  return tail;
}

function inlineKey(key: ObjectKey): Uint8Array {
  return hasHashedFileName(key) ? key.toBytes() : NOTHING;
}

/** Whether `bytes` contain `expected` at `offset`. */
function holds(bytes: Uint8Array, offset: number, expected: Uint8Array): boolean {
  for (let i = 0; i < expected.byteLength; i++) {
    if (bytes[offset + i] !== expected[i]) return false;
  }
  return true;
}
