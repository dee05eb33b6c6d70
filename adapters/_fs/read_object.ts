import type { AdapterObject } from "../../src/l2/adapter.ts";
import type { ReadableFile } from "./file_system.ts";

/** How an object is read from its file. */
export interface Reading extends Pick<AdapterObject, "parts"> {
  /** How many bytes may stand behind it: one of these numbers. */
  readonly rests: readonly number[];
  /** Whether the file may end before. */
  readonly allowShorter: boolean;
  /** Bytes that are read first; 0 reads all at once. */
  readonly readAheadBytes: number;
}

/** Fills the parts of an object from the beginning of a file; whether it ends where it should. */
export async function readObject(
  file: ReadableFile,
  { parts, rests, allowShorter, readAheadBytes }: Reading,
): Promise<boolean> {
  let position = 0;
  for (const part of parts) {
    for (let done = 0; done < part.byteLength;) {
      const end = position === 0 && readAheadBytes > 0 ? readAheadBytes : part.byteLength;
      const rest = done === 0 && end >= part.byteLength ? part : part.subarray(done, done + end);
      const count = await file.read(rest, position);
      if (count === 0) {
        return allowShorter && position > 0 && await endsAtAny(file, position, rests);
      }
      done += count;
      position += count;
    }
  }
  return await endsAtAny(file, position, rests);
}

/** Whether a file ends at a place, or so many bytes behind it. */
async function endsAtAny(
  file: ReadableFile,
  place: number,
  rests: readonly number[],
): Promise<boolean> {
  for (const rest of rests) {
    if (file.endsAt(place + rest) ?? await isEnd(file, place + rest)) return true;
  }
  return false;
}

async function isEnd(file: ReadableFile, place: number): Promise<boolean> {
  const byte = new Uint8Array(1);
  if (await file.read(byte, place) > 0) return false;
  return place === 0 || await file.read(byte, place - 1) > 0;
}
