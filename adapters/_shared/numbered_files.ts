import * as nodeFs from "node:fs";

/** Opens a file with flags that `Deno.open()` does not support; resolves to its descriptor. */
export function openNumbered(path: string, flags: number): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  nodeFs.open(path, flags, (error, number) => error ? reject(error) : resolve(number));
  return promise;
}

/** Reads from a file descriptor on a separate thread; resolves to the bytes read, 0 at the end. */
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
