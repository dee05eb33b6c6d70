import { ObjectKey } from "../../src/l2/adapter.ts";

const MAGIC = 0x4b564331; // "KVC1"
const HEADER_BYTES = 16;
const PART_ID_BYTES = 16;
const MANIFEST_BYTES = PART_ID_BYTES + 4;
const WHOLE = 1;
const MANIFEST = 2;
const SIZE = 3;

/** Max bytes of a manifest: whatever is longer is a whole object. */
export const MAX_MANIFEST_BYTES = 1024;

/** Where the bytes of an object are that lie in several values. */
export interface PartSet {
  /** What their names have in common: 32 hexadecimal digits that nobody else has. */
  readonly id: string;
  /** Bytes of each part but the last. */
  readonly partBytes: number;
  /** Number of parts. */
  readonly count: number;
}

/** A value under the name of an object. */
export interface DecodedValue {
  /** The key of the object. */
  readonly key: ObjectKey;
  /** Bytes of the object. */
  readonly byteLength: number;
  /** The bytes themselves, or where they are. */
  readonly body: Uint8Array | PartSet;
}

/** Bytes of what stands before an object in its value. */
export function headBytes(key: ObjectKey): number {
  return HEADER_BYTES + key.toBytes().byteLength;
}

/** The value of a whole object: a copy of its parts behind a head. */
export function encodeWhole(
  key: ObjectKey,
  byteLength: number,
  parts: readonly Uint8Array[],
): Uint8Array<ArrayBuffer> {
  const { bytes, offset } = encodeHead(key, WHOLE, byteLength, byteLength);
  let end = offset;
  for (const part of parts) {
    bytes.set(part, end);
    end += part.byteLength;
  }
  return bytes;
}

/** The value of an object that lies in parts. */
export function encodeManifest(
  key: ObjectKey,
  byteLength: number,
  { id, partBytes }: PartSet,
): Uint8Array<ArrayBuffer> {
  const { bytes, offset } = encodeHead(key, MANIFEST, byteLength, MANIFEST_BYTES);
  bytes.set(Uint8Array.fromHex(id), offset);
  new DataView(bytes.buffer).setUint32(offset + PART_ID_BYTES, partBytes, true);
  return bytes;
}

/** The value beside an object that tells its key, and by its name its bytes. */
export function encodeSize(key: ObjectKey, byteLength: number): Uint8Array<ArrayBuffer> {
  return encodeHead(key, SIZE, byteLength, 0).bytes;
}

/** The key in a value beside an object; `undefined` if it is none. */
export function decodeSizeKey(bytes: Uint8Array): ObjectKey | undefined {
  const isSize = bytes.byteLength >= HEADER_BYTES &&
    new DataView(bytes.buffer, bytes.byteOffset).getUint32(0) === MAGIC && bytes[4] === SIZE;
  return isSize ? keyIn(bytes.subarray(HEADER_BYTES)) : undefined;
}

/** What a value says; `undefined` if it is none of these, or not all of it is there. */
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

// Magic 4, kind u8, zero u8, key length u16, object length u64; then the key. Little-endian but for
// the magic.
function encodeHead(
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
