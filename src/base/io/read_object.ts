import { step, type Steps } from "./steps.ts";

/** A file open for reading. */
export interface SourceFile extends Disposable {
  /** Reads from `position` on; returns the bytes read, possibly fewer than fit, 0 at the end. */
  read(into: Uint8Array, position: number): number | Promise<number>;
  /** Whether the file ends at `position`; `undefined` if only a read can tell. */
  endsAt(position: number): boolean | undefined;
}

/** How to read an object from its file. */
export interface Reading {
  /** Filled in order. */
  readonly parts: readonly Uint8Array[];
  /** The possible numbers of bytes that follow the object. */
  readonly trailingBytes: readonly number[];
  /** Whether the object may be shorter. */
  readonly allowShorter: boolean;
  /** Size of the first read; 0 reads all at once. */
  readonly readAheadBytes: number;
}

/** Reads an object from the start of a file; returns whether the file has an expected length. */
export function* readObject(
  file: SourceFile,
  { parts, trailingBytes, allowShorter, readAheadBytes }: Reading,
): Steps<boolean> {
  let position = 0;
  for (const part of parts) {
    for (let done = 0; done < part.byteLength;) {
      const end = position === 0 && readAheadBytes > 0 ? readAheadBytes : part.byteLength;
      const rest = done === 0 && end >= part.byteLength ? part : part.subarray(done, done + end);
      const at = position;
      const count = yield* step(() => file.read(rest, at));
      if (count === 0) {
        return allowShorter && position > 0 && (yield* endsAtAny(file, position, trailingBytes));
      }
      done += count;
      position += count;
    }
  }
  return yield* endsAtAny(file, position, trailingBytes);
}

/** Whether the file ends at `place` plus one of the `trailingBytes`. */
function* endsAtAny(
  file: SourceFile,
  place: number,
  trailingBytes: readonly number[],
): Steps<boolean> {
  for (const rest of trailingBytes) {
    if (file.endsAt(place + rest) ?? (yield* isEnd(file, place + rest))) return true;
  }
  return false;
}

function* isEnd(file: SourceFile, place: number): Steps<boolean> {
  const byte = new Uint8Array(1);
  if ((yield* step(() => file.read(byte, place))) > 0) return false;
  return place === 0 || (yield* step(() => file.read(byte, place - 1))) > 0;
}
