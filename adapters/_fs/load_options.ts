/** The possible numbers of bytes that follow an object of `byteLength` bytes in its file. */
export type TrailingBytesOf = (byteLength: number) => readonly number[];

/** Options of loads from files that other programs write too. */
export interface SizeMismatchOptions {
  /** Called with the index of an object whose file has another length. */
  readonly onSizeMismatch?: (index: number) => void;
}
