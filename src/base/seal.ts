import { crc32 } from "./checksum.ts";

/** Size of the trailer at the end of an object, in bytes. */
export const TRAILER_BYTES = 64;

/** Checksum of the payload, then of the trailer's bytes before: both little-endian. */
const CHECKSUMS_AT = TRAILER_BYTES - 8;

/**
 * Completes a trailer: writes the CRC-32 of the payload, and that of the bytes of the trailer before
 * it.
 *
 * @param tail Bytes that end with the trailer.
 */
export function addChecksums(tail: Uint8Array, payloadChecksum: number): void {
  const trailer = tail.subarray(-TRAILER_BYTES);
  const view = new DataView(trailer.buffer, trailer.byteOffset, TRAILER_BYTES);
  view.setUint32(CHECKSUMS_AT, payloadChecksum, true);
  view.setUint32(TRAILER_BYTES - 4, crc32(trailer.subarray(0, -4)), true);
}
