import { copyParts } from "../../src/base/byte_parts.ts";
import { ObjectKey } from "../../src/adapter/contract.ts";

const MAGIC = 0x4b564331; // "KVC1"
const HEADER_BYTES = 16;
const PART_ID_BYTES = 16;
const MANIFEST_BYTES = PART_ID_BYTES + 4;
const WHOLE = 1;
const MANIFEST = 2;
const SIZE = 3;

/** Max bytes of a manifest; a longer value is an object that is not split. */
export const MAX_MANIFEST_BYTES = 1024;

/** The parts of a split object. */
export interface PartSet {
  /** The id in the names of the parts: 32 hexadecimal digits, unique per store. */
  readonly id: string;
  /** Bytes of each part but the last. */
  readonly partBytes: number;
  /** Number of parts. */
  readonly count: number;
}

/** A decoded value of an object. */
export interface DecodedValue {
  readonly key: ObjectKey;
  readonly byteLength: number;
  /** The bytes of the object, or its parts. */
  readonly body: Uint8Array | PartSet;
}

/** Bytes in front of the object in its value. */
export function headerBytes(key: ObjectKey): number {
  return HEADER_BYTES + key.toBytes().byteLength;
}

/** Encodes an object that is not split: a header and a copy of its parts. */
export function encodeWhole(
  key: ObjectKey,
  byteLength: number,
  parts: readonly Uint8Array[],
): Uint8Array<ArrayBuffer> {
  const { bytes, offset } = encodeWithHeader(key, WHOLE, byteLength, byteLength);
  copyParts(parts, bytes, offset);
  return bytes;
}

/** Encodes the manifest of a split object. */
export function encodeManifest(
  key: ObjectKey,
  byteLength: number,
  { id, partBytes }: PartSet,
): Uint8Array<ArrayBuffer> {
  const { bytes, offset } = encodeWithHeader(key, MANIFEST, byteLength, MANIFEST_BYTES);
  bytes.set(Uint8Array.fromHex(id), offset);
  new DataView(bytes.buffer).setUint32(offset + PART_ID_BYTES, partBytes, true);
  return bytes;
}

/** Encodes a side value: it contains the key, its name the size. */
export function encodeSize(key: ObjectKey, byteLength: number): Uint8Array<ArrayBuffer> {
  return encodeWithHeader(key, SIZE, byteLength, 0).bytes;
}

/** The key in a side value; `undefined` if invalid. */
export function decodeSizeKey(bytes: Uint8Array): ObjectKey | undefined {
  const isSize = bytes.byteLength >= HEADER_BYTES &&
    new DataView(bytes.buffer, bytes.byteOffset).getUint32(0) === MAGIC && bytes[4] === SIZE;
  return isSize ? keyIn(bytes.subarray(HEADER_BYTES)) : undefined;
}

/** Decodes the value of an object or a manifest; `undefined` if invalid or incomplete. */
export function decodeValue(bytes: Uint8Array): DecodedValue | undefined {
  if (bytes.byteLength < HEADER_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0) !== MAGIC) return undefined;
  const kind = view.getUint8(4);
  const byteLength = view.getUint32(8, true) + view.getUint32(12, true) * 2 ** 32;
  const start = HEADER_BYTES + view.getUint16(6, true);
  const key = keyIn(bytes.subarray(HEADER_BYTES, start));
  const body = bytes.subarray(start);
  if (key === undefined) return undefined;
  if (kind === WHOLE) {
    return body.byteLength === byteLength ? { key, byteLength, body } : undefined;
  }
  if (kind !== MANIFEST || body.byteLength !== MANIFEST_BYTES) return undefined;
  const partBytes = view.getUint32(start + PART_ID_BYTES, true);
  if (partBytes === 0) return undefined;
  const id = body.subarray(0, PART_ID_BYTES).toHex();
  return { key, byteLength, body: { id, partBytes, count: Math.ceil(byteLength / partBytes) } };
}

// Header: magic u32 (big-endian), kind u8, zero u8, key length u16, object length u64 (all
// little-endian), then the key.
function encodeWithHeader(
  key: ObjectKey,
  kind: number,
  byteLength: number,
  bodyBytes: number,
): { bytes: Uint8Array<ArrayBuffer>; offset: number } {
  const keyBytes = key.toBytes();
  const offset = HEADER_BYTES + keyBytes.byteLength;
  const bytes = new Uint8Array(offset + bodyBytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC);
  view.setUint8(4, kind);
  view.setUint16(6, keyBytes.byteLength, true);
  view.setUint32(8, byteLength >>> 0, true);
  view.setUint32(12, Math.floor(byteLength / 2 ** 32), true);
  bytes.set(keyBytes, HEADER_BYTES);
  return { bytes, offset };
}

function keyIn(bytes: Uint8Array): ObjectKey | undefined {
  try {
    return ObjectKey.fromBytes(bytes);
  } catch {
    return undefined;
  }
}
