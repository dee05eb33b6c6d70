import { crc32 } from "../../base/checksum.ts";

/** Size of a frame header in bytes. */
export const FRAME_HEADER_BYTES = 16;

const MAGIC = 0x3146564b; // "KVF1"

/** Encodes the total length of an object, as the header in front of objects of variable length. */
export function encodeFrameHeader(byteLength: number): Uint8Array<ArrayBuffer> {
  const header = new Uint8Array(FRAME_HEADER_BYTES);
  const view = new DataView(header.buffer);
  view.setUint32(0, MAGIC, true);
  view.setBigUint64(8, BigInt(byteLength), true);
  view.setUint32(4, crc32(header.subarray(8)), true);
  return header;
}

/**
 * Decodes the result of {@linkcode encodeFrameHeader}.
 *
 * @param bytes Front of an object.
 * @returns Total length of the object; `"foreign"` if there is no header, `"damaged"` if the header
 * is not intact.
 */
export function decodeFrameHeader(bytes: Uint8Array): number | "foreign" | "damaged" {
  if (bytes.byteLength < FRAME_HEADER_BYTES) return "foreign";
  const view = new DataView(bytes.buffer, bytes.byteOffset, FRAME_HEADER_BYTES);
  if (view.getUint32(0, true) !== MAGIC) return "foreign";
  if (view.getUint32(4, true) !== crc32(bytes.subarray(8, FRAME_HEADER_BYTES))) return "damaged";
  return Number(view.getBigUint64(8, true));
}
