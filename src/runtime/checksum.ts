import { crc32 as zlibCrc32 } from "node:zlib";

/**
 * CRC-32 (IEEE 802.3) of `data`, by the host's native implementation.
 *
 * @param data The bytes.
 * @param previous The CRC-32 of the bytes before `data`, to continue over several pieces.
 * @returns An unsigned 32-bit integer.
 */
export function crc32(data: Uint8Array, previous = 0): number {
  return zlibCrc32(data, previous);
}
