import * as nodeFs from "node:fs";

/** Opens a file with flags that `Deno.open()` does not know, and returns its number. */
export function openNumbered(path: string, flags: number): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  nodeFs.open(path, flags, (error, number) => error ? reject(error) : resolve(number));
  return promise;
}

/** Reads from a numbered file, on a thread of its own; returns how many bytes, 0 at the end. */
export function readNumbered(file: number, into: Uint8Array, position: number): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  nodeFs.read(
    file,
    into,
    0,
    into.byteLength,
    position,
    (error, count) => error ? reject(error) : resolve(count),
  );
  return promise;
}
