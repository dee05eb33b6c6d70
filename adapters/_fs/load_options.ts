import type { AdapterObject } from "../../src/adapter/contract.ts";

/** The possible numbers of bytes that follow an object of `byteLength` bytes in its file. */
export type TrailingBytesOf = (byteLength: number) => readonly number[];

const NOTHING = [0];

/** Of files that hold an object and nothing else. */
export const NO_TRAILING_BYTES: TrailingBytesOf = () => NOTHING;

/** Options of loads from files that other programs write too. */
export interface SizeMismatchOptions {
  /** Called with the index of an object whose file has another length. */
  readonly onSizeMismatch?: (index: number) => void;
}

/** Bytes of objects, for limiters. */
export function bytesOf(objects: readonly AdapterObject[]): number {
  return objects.reduce((sum, { byteLength }) => sum + byteLength, 0);
}
