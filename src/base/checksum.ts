import { crc32 as zlibCrc32 } from "node:zlib";

/**
 * Computes the CRC-32 (IEEE 802.3) of `data` with the host's native implementation.
 *
 * @param data The bytes.
 * @param previous CRC-32 of the bytes before `data`, for input that arrives in several parts.
 * @returns An unsigned 32-bit integer.
 */
export function crc32(data: Uint8Array, previous = 0): number {
  return zlibCrc32(data, previous);
}

/** Computes the CRC-32 of the first `byteLength` bytes of parts. */
export function crc32OfParts(parts: readonly Uint8Array[], byteLength: number): number {
  let checksum = 0;
  let left = byteLength;
  for (const part of parts) {
    if (left <= 0) break;
    checksum = crc32(part.byteLength <= left ? part : part.subarray(0, left), checksum);
    left -= part.byteLength;
  }
  return checksum;
}
