import * as nodeFs from "node:fs";

/** Required alignment of addresses, lengths and offsets, in bytes. */
export const DIRECT_ALIGNMENT = 4096;
/** Bytes of one aligned buffer; larger transfers take several steps. */
export const DIRECT_BUFFER_BYTES: number = 4 * 2 ** 20;
/** Open flag that bypasses the page cache; 0 if the operating system has none. */
export const O_DIRECT: number = (nodeFs.constants as { O_DIRECT?: number }).O_DIRECT ?? 0;

/** Rounds `length` up to a multiple of {@linkcode DIRECT_ALIGNMENT}. */
export function alignUp(length: number): number {
  return Math.ceil(length / DIRECT_ALIGNMENT) * DIRECT_ALIGNMENT;
}
