import type { AdapterObject } from "../../src/adapter/contract.ts";
import type { ReadableFile } from "./file_system.ts";

/** The possible numbers of bytes that follow an object of `byteLength` bytes in its file. */
export type TrailingBytesOf = (byteLength: number) => readonly number[];

/** Options of loads from files that other programs write too. */
export interface SizeMismatchOptions {
  /** Called with the index of an object whose file has another length. */
  readonly onSizeMismatch?: (index: number) => void;
}

/** How to read an object from its file. */
export interface Reading extends Pick<AdapterObject, "parts"> {
  /** The possible numbers of bytes that follow the object. */
  readonly trailingBytes: readonly number[];
  /** Whether the object may be shorter. */
  readonly allowShorter: boolean;
  /** Size of the first read; 0 reads all at once. */
  readonly readAheadBytes: number;
}

/**
 * Reads an object from the start of a file; resolves to whether the file has an expected length.
 */
export async function readObject(
  file: ReadableFile,
  { parts, trailingBytes, allowShorter, readAheadBytes }: Reading,
): Promise<boolean> {
  let position = 0;
  for (const part of parts) {
    for (let done = 0; done < part.byteLength;) {
      const end = position === 0 && readAheadBytes > 0 ? readAheadBytes : part.byteLength;
      const rest = done === 0 && end >= part.byteLength ? part : part.subarray(done, done + end);
      const count = await file.read(rest, position);
      if (count === 0) {
        return allowShorter && position > 0 && await endsAtAny(file, position, trailingBytes);
      }
      done += count;
      position += count;
    }
  }
  return await endsAtAny(file, position, trailingBytes);
}

/** Whether the file ends at `place` plus one of the `trailingBytes`. */
async function endsAtAny(
  file: ReadableFile,
  place: number,
  trailingBytes: readonly number[],
): Promise<boolean> {
  for (const rest of trailingBytes) {
    if (file.endsAt(place + rest) ?? await isEnd(file, place + rest)) return true;
  }
  return false;
}

async function isEnd(file: ReadableFile, place: number): Promise<boolean> {
  const byte = new Uint8Array(1);
  if (await file.read(byte, place) > 0) return false;
  return place === 0 || await file.read(byte, place - 1) > 0;
}
